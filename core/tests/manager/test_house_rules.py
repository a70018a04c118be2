"""The rules of the house as decisions follow them: groups, cordons, quotas, borrowing, reservations and fair shares."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from backendai.manager.operations import agents as agent_operations
from backendai.manager.operations import bookings, domains, groups, projects, quotas
from backendai.manager.operations.asking import PartInput
from backendai.manager.operations.registry import Nothing
from backendai.manager.store.quotas import find_takers, read_quotas, recount
from backendai.manager.store.schema import sessions, shares
from backendai.manager.usage import bring_up_to_date
from backendai.model.errors import Failure
from backendai.model.session import Evicted
from backendai.wire.link import KernelState as K
from sqlalchemy import select

from core.tests.manager.stage import Stage

HOUR = 3600.0


async def make_group(stage: Stage, name: str, *boxes: str, **options: Any) -> None:
    """Make a resource group with these agents."""
    await groups.create(stage.context, stage.caller, groups.CreateGroup(name=name, **options))
    for box in boxes:
        await agent_operations.change(stage.context, stage.caller, agent_operations.ChangeAgent(id=box, group=name))


async def limit(stage: Stage, scope: str, group: str | None = None, **limits: Any) -> None:
    await quotas.set_(stage.context, stage.caller, quotas.SetQuotas(scope=scope, limits=limits, group=group))


async def used(stage: Stage) -> dict[str, tuple[int, int]]:
    """Return what is used of each quota, beside what is held by it, by id."""
    async def job(connection: Any) -> dict[str, tuple[int, int]]:
        lines = await read_quotas(connection)
        held = recount(lines, await find_takers(connection))
        return {line.id: (line.used, held.get(line.id, 0)) for line in lines}

    return await stage.context.store.read(job)


async def test_every_session_runs_in_its_own_group(stage: Stage) -> None:
    a, b = await stage.box("a"), await stage.box("b")
    await make_group(stage, "gpu", "b")
    here, there = await stage.ask(cpu=1), await stage.ask(cpu=1, group="gpu")
    await stage.look()
    assert ((await stage.row(here)).agent_id, (await stage.row(there)).agent_id) == (a.id, b.id)
    rest = [await stage.ask(cpu=2) for _ in range(3)]
    await stage.look()
    states = [await stage.state(id) for id in rest]
    assert states.count("SCHEDULED") == 1 and "2 cores" in (await stage.row(rest[-1])).hold, "the other group's room is not theirs"
    await agent_operations.change(stage.context, stage.caller, agent_operations.ChangeAgent(id="b", group="default"))
    await stage.look()
    assert [await stage.state(id) for id in rest].count("SCHEDULED") == 2
    assert (await stage.row(there)).agent_id == b.id, "what runs stays"


async def test_each_group_has_its_own_scheduler_with_its_own_options(stage: Stage) -> None:
    await stage.box("a")
    await stage.box("b")
    await make_group(stage, "strict", "a", scheduler="fifo")
    await make_group(stage, "loose", "b", scheduler="fifo", scheduler_options={"overtake": True})
    small = {}
    for group in ("strict", "loose"):
        await stage.running(cpu=3, group=group)
        await stage.ask(cpu=2, group=group)
        small[group] = await stage.ask(cpu=1, group=group)
    await stage.look()
    assert (await stage.state(small["strict"]), await stage.state(small["loose"])) == ("PENDING", "SCHEDULED")
    await groups.change(stage.context, stage.caller, groups.ChangeGroup(name="strict", scheduler_options={"overtake": True}))
    await stage.look()
    assert await stage.state(small["strict"]) == "SCHEDULED", "the next decision follows the change"


async def test_nothing_new_is_placed_on_a_cordoned_agent(stage: Stage) -> None:
    await stage.box("a")
    runs = await stage.running()
    await agent_operations.change(stage.context, stage.caller, agent_operations.ChangeAgent(id="a", cordoned=True))
    waits = await stage.ask()
    await stage.look()
    assert await stage.state(runs) == "RUNNING" and "It is cordoned." in (await stage.row(waits)).hold
    await agent_operations.change(stage.context, stage.caller, agent_operations.ChangeAgent(id="a", cordoned=False))
    await stage.look()
    assert await stage.state(waits) == "SCHEDULED"


async def test_a_quota_counts_in_its_group_and_is_waited_for(stage: Stage) -> None:
    await stage.box("a", cpu=16)
    await stage.box("b", cpu=16)
    await make_group(stage, "gpu", "b")
    await limit(stage, "user:admin", "gpu", cpu=2)
    await limit(stage, "project:default", sessions=3)
    first, second, third = [await stage.ask(cpu=2, group="gpu"), await stage.ask(cpu=1, group="gpu"), await stage.ask(cpu=4)]
    await stage.look()
    assert [await stage.state(id) for id in (first, second, third)] == ["SCHEDULED", "PENDING", "SCHEDULED"]
    assert "quota" in (await stage.row(second)).hold
    await stage.ask(cpu=1)
    late = await stage.ask(cpu=1)
    await stage.look()
    assert await stage.state(late) == "PENDING", "three of the project's sessions hold something"
    await limit(stage, "project:default", sessions=None)
    await limit(stage, "user:admin", "gpu", cpu=3)
    await stage.look()
    assert [await stage.state(id) for id in (second, late)] == ["SCHEDULED", "SCHEDULED"], "a limit that is raised lets them go"
    assert all(one == held for one, held in (await used(stage)).values())


async def in_project(stage: Stage, name: str) -> None:
    await projects.create(stage.context, stage.caller, projects.CreateProject(name=name, domain="default"))


async def test_projects_lend_each_other_what_they_leave_unused_and_take_it_back(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await in_project(stage, "ml")
    await limit(stage, "project:default/default", cpu=2)
    await limit(stage, "project:default/ml", cpu=2)
    await limit(stage, "domain:default", cpu=4)
    mine = [await stage.running(cpu=1, project="default/default", evicted=Evicted.REQUEUE) for _ in range(2)]
    more = await stage.ask(cpu=1, project="default/default", evicted=Evicted.REQUEUE)
    await stage.look()
    assert await stage.state(more) == "PENDING", "its quota is used up"
    await domains.change(stage.context, stage.caller, domains.ChangeDomain(name="default", borrow=True))
    await stage.look()
    assert await stage.state(more) == "SCHEDULED", "the domain's is not"
    await stage.see(more, K.RUNNING)
    await stage.running(cpu=1, project="default/default", evicted=Evicted.REQUEUE)
    theirs = await stage.ask(cpu=2, project="default/ml")
    await stage.look()
    assert await stage.state(theirs) == "PENDING" and (await stage.states())[mine[0]][0] == "RUNNING"
    options = groups.PreemptionInput(enabled=True, reclaim=True)
    await groups.change(stage.context, stage.caller, groups.ChangeGroup(name="default", preemption=options))
    for _ in range(3):
        await stage.look()
        for id, (state, *_) in (await stage.states()).items():
            if state == "TERMINATING":
                await stage.see(id, K.GONE, exit_code=143, why="stopped")
    assert await stage.state(theirs) == "SCHEDULED", "what is theirs is given back"
    states = Counter(state for state, *_ in (await stage.states()).values())
    assert states == {"RUNNING": 2, "PENDING": 2, "SCHEDULED": 1}, "and no more than that"
    assert all(one == held for one, held in (await used(stage)).values())


async def book(stage: Stage, name: str, begin: float, end: float, **more: Any) -> None:
    await bookings.create(stage.context, stage.caller, bookings.CreateBooking(
        name=name, scope="project:default", begins=stage.now + begin, ends=stage.now + end, **more))


async def test_a_reservation_is_kept_for_who_has_it(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await book(stage, "lesson", HOUR, 2 * HOUR, agents=("a",), slots={"cpu": 3, "mem": "8g"})
    inside = await stage.ask(cpu=3, reservation="lesson", time_limit_s=600.0)
    short, long, small = [await stage.ask(cpu=2, time_limit_s=1800.0), await stage.ask(cpu=2), await stage.ask(cpu=1)]
    await stage.look()
    assert [await stage.state(id) for id in (inside, short, long, small)] == ["PENDING", "SCHEDULED", "PENDING", "SCHEDULED"], (
        "who ends before it may use its room, who may not end must leave it free")
    assert (await stage.row(inside)).hold == "Waits for its reservation lesson to begin."
    await stage.see(short, K.RUNNING)
    await stage.see(short, K.GONE, exit_code=0)
    await stage.later(HOUR + 1)
    assert await stage.state(inside) == "SCHEDULED", (await stage.row(inside)).hold
    assert await stage.state(long) == "PENDING"
    await stage.see(inside, K.RUNNING)
    await stage.see(inside, K.GONE, exit_code=0)
    await stage.look()
    assert await stage.state(long) == "PENDING", "room that nobody uses is kept all the same"
    await stage.later(HOUR)
    await bring_up_to_date(stage.context)
    await stage.look()
    assert await stage.state(long) == "SCHEDULED", "and everybody's when it is over"


async def test_a_reservation_is_remembered_until_nothing_runs_in_it(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await book(stage, "lesson", 0.0, HOUR, agents=("a",))
    inside = await stage.running(reservation="lesson")

    async def names() -> list[str]:
        return [booking.name for booking in (await bookings.list_(stage.context, stage.caller, Nothing())).items]

    stage.now += HOUR + 600.0
    await bring_up_to_date(stage.context)  # before the orchestrator looks, as after a manager's absence
    assert await names() == ["lesson"]
    await stage.look()
    row = await stage.see(inside, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.reason) == ("TERMINATED", "Its reservation is over.")
    await bring_up_to_date(stage.context)
    assert await names() == []


async def test_who_used_less_goes_first_where_shares_are_fair(stage: Stage) -> None:
    await stage.box("a", cpu=2)
    await in_project(stage, "ml")
    await groups.change(stage.context, stage.caller, groups.ChangeGroup(name="default", scheduler="fairshare"))
    heavy = await stage.running(cpu=2, project="default/default")
    await stage.later(600.0)
    await bring_up_to_date(stage.context)
    first, second = await stage.ask(cpu=2, project="default/default"), await stage.ask(cpu=2, project="default/ml")
    await stage.look()
    await stage.see(heavy, K.GONE, exit_code=0)
    await stage.look()
    assert (await stage.state(first), await stage.state(second)) == ("PENDING", "SCHEDULED"), "though it came later"
    rows = (await stage.context.store.read(lambda connection: connection.execute(select(shares)))).all()
    assert len(rows) == 3 and all(row.usage == pytest.approx(600, rel=0.1) for row in rows), "ten minutes of the whole group"


@pytest.mark.parametrize("seed", range(3))
async def test_quotas_and_ledgers_hold_whatever_happens(stage: Stage, seed: int) -> None:
    """Gangs and single sessions of two projects in two groups come, end, are stopped and moved while managers are killed."""
    dice = random.Random(seed)
    for name in ("a", "b", "c"):
        await stage.box(name, cpu=8)
    await make_group(stage, "gpu", "c", allow=("*",))
    await in_project(stage, "ml")
    limits = {("project:default/default", None): 7, ("project:default/ml", None): 6, ("user:admin", "gpu"): 4, ("domain:default", None): 11}
    for (scope, group), cpu in limits.items():
        await limit(stage, scope, group, cpu=cpu, sessions=5)
    ids: list[str] = []
    for _ in range(30):
        stage.now += dice.choice([0.1, 5.0])
        step = dice.random()
        if step < 0.5:
            cluster = (PartInput(role="main", count=1), PartInput(role="worker", count=dice.choice([1, 2]))) if dice.random() < 0.3 else ()
            what: dict[str, Any] = {"cpu": dice.choice([1, 2]), "cluster": cluster,
                                    "project": dice.choice(["default/default", "default/ml"]),
                                    "group": dice.choice(["default", "gpu"]), "evicted": dice.choice([None, Evicted.REQUEUE])}
            with suppress(Failure):  # what could never be within a quota is refused
                ids.append(await stage.ask(**what))
        elif step < 0.6 and ids:
            await stage.stop(dice.choice(ids))
        elif step < 0.68:
            await stage.kill()
            await stage.start()
            for box in stage.boxes:
                await box.connect()
        elif step < 0.76:
            change = agent_operations.ChangeAgent(id=dice.choice("ab"), draining=dice.random() < 0.5)
            await agent_operations.change(stage.context, stage.caller, change)
        for box in stage.boxes:
            for kernel in list(box.kernels):
                if dice.random() < 0.3:
                    box.step(kernel)
        await stage.look()
        for line, (one, held) in (await used(stage)).items():
            assert one == held, (seed, line)
        for line in await stage.context.store.read(read_quotas):
            assert line.used <= line.limit, (seed, line)
        await stage.check()
    held_in = select(sessions.c.group_id, sessions.c.agent_id).where(sessions.c.agent_id.is_not(None))
    rows = await stage.context.store.read(lambda connection: connection.execute(held_in))
    assert {row.agent_id for row in rows if row.group_id != "default"} <= {stage.boxes[2].id}
