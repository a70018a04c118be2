"""Why a session waits besides room: a time, other sessions, its array, its owners' quotas; and how it comes back to the queue."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from backendai.manager.operations import sessions as operations
from backendai.manager.operations.asking import AfterInput, PartInput, RetryInput, WishesInput
from backendai.manager.store.placement import wish_stop
from backendai.manager.store.schema import agents, bookings, groups, kernels, quotas
from backendai.model.group import GroupOptions, Preemption
from backendai.model.session import After, Evicted, SessionType
from backendai.wire.link import KernelState as K
from backendai.wire.link import Want
from sqlalchemy import insert, select, update

from core.tests.manager.stage import Stage, orders, refused

INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


async def end(stage: Stage, id: str, code: int = 0) -> Any:
    """Have a session that was placed run and end."""
    await stage.see(id, K.RUNNING)
    return await stage.see(id, K.GONE, exit_code=code)


async def test_it_waits_for_its_time_and_starts_then(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.ask(not_before=stage.now + 100.0)
    await stage.look()
    row = await stage.row(id)
    assert row.state == "PENDING" and row.hold.startswith("Waits until 2027-")
    assert 99.0 < (stage.orchestrator._planners["default"].pause or 0.0) <= 100.0
    stage.now += 101.0
    await stage.look()
    assert await stage.state(id) == "SCHEDULED"


@pytest.mark.parametrize(("kind", "code", "state"), [
    (After.OK, 0, "SCHEDULED"), (After.OK, 1, "CANCELLED"), (After.ANY, 0, "SCHEDULED"), (After.ANY, 1, "SCHEDULED"),
    (After.NOT_OK, 0, "CANCELLED"), (After.NOT_OK, 1, "SCHEDULED")])
async def test_a_dependency_lets_go_or_cancels_at_once(stage: Stage, kind: After, code: int, state: str) -> None:
    await stage.box("box")
    first = await stage.ask(name="first")
    second = await stage.ask(after=(AfterInput(session="first", kind=kind),))
    third = await stage.ask(after=(AfterInput(session=second),))
    await stage.look()
    assert (await stage.row(second)).hold == "Waits for another session to end."
    await end(stage, first, code)
    row = await stage.row(second)
    assert row.state == state
    if state == "CANCELLED":
        assert "ended without one" in row.reason or "without a" in row.reason
        assert await stage.state(third) == "CANCELLED", "and so on"
    else:
        assert await stage.state(third) == "PENDING"


async def test_a_dependency_that_is_met_before_its_session_was_looked_at_counts(stage: Stage) -> None:
    box = await stage.box("box")
    first = await stage.running()
    second = await stage.ask(after=(AfterInput(session=first),))
    box.see(stage.on(first)[1], K.GONE, exit_code=0)
    box.speak()
    await stage.orchestrator.write_reports()  # the end is written, and nobody has looked at the queue since
    await stage.look()
    assert (await stage.state(first), await stage.state(second)) == ("TERMINATED", "SCHEDULED"), (await stage.row(second)).hold


async def test_what_has_ended_already_is_looked_at_when_it_is_asked(stage: Stage) -> None:
    await stage.box("box")
    done = await stage.ask()
    await stage.look()
    await end(stage, done)
    id = await stage.ask(after=(AfterInput(session=done),))
    await stage.look()
    assert await stage.state(id) == "SCHEDULED"
    failure = await refused(lambda: stage.ask(after=(AfterInput(session=done, kind=After.NOT_OK),)))
    assert failure.code == "conflict" and "afterany" in failure.message
    assert (await refused(lambda: stage.ask(after=(AfterInput(session="nobody"),)))).code == "not-found"


async def test_an_array_runs_so_many_at_once_and_ends_as_one(stage: Stage) -> None:
    box = await stage.box("box")
    await stage.ask(cpu=0.5, name="many", array="3-6%2")
    states = await stage.states()
    assert len(states) == 4
    await stage.look()
    running = [id for id, (state, *_) in (await stage.states()).items() if state == "SCHEDULED"]
    assert len(running) == 2
    assert [order.env["BACKENDAI_ARRAY_INDEX"] for order in orders(box)] == ["3", "4"] and orders(box)[0].env["BACKENDAI_ARRAY_SIZE"] == "4"
    await end(stage, running[0])
    await stage.look()
    assert sum(state == "SCHEDULED" for state, *_ in (await stage.states()).values()) == 2
    await operations.stop(stage.context, stage.caller, operations.StopSession(id="many"))
    await stage.look()
    assert {state for state, *_ in (await stage.states()).values()} <= {"TERMINATED", "CANCELLED", "TERMINATING"}


async def test_a_quota_is_waited_for_and_never_exceeded(stage: Stage) -> None:
    await stage.box("box")
    row = {"id": "q", "scope": "user", "scope_id": stage.caller.id, "group_id": "", "what": "cpu", "limit": 2000, "used": 0}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(quotas), [row]))
    first, second = await stage.ask(cpu=2), await stage.ask(cpu=1)
    await stage.look()
    assert (await stage.state(first), await stage.state(second)) == ("SCHEDULED", "PENDING") and (await stage.row(second)).hold

    async def used() -> int:
        return int((await stage.context.store.read(lambda connection: connection.execute(select(quotas.c.used)))).scalar_one())

    assert await used() == 2000
    await end(stage, first)
    await stage.look()
    assert await stage.state(second) == "SCHEDULED" and await used() == 1000


async def test_what_failed_is_tried_again_with_other_kernels(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.ask(retry=RetryInput(count=2, backoff_s=30.0, exit_codes=(75,)))
    await stage.look()
    kernel = orders(box)[-1].kernel
    row = await end(stage, id, 75)
    assert (row.state, row.attempt, row.retried, row.not_before) == ("PENDING", 2, 1, stage.now + 30.0)
    assert row.reason == "Attempt 1 failed: The command ended with 75. It is tried again in 30s." and await stage.ledger() == {}
    stage.now += 31.0
    await stage.look()
    order = orders(box)[-1]
    assert order.kernel != kernel and order.attempt == 2 and order.env["BACKENDAI_ATTEMPT"] == "2"
    row = await end(stage, id, 75)
    assert row.not_before == stage.now + 60.0, "twice as long"
    stage.now += 61.0
    await stage.look()
    row = await end(stage, id, 75)
    assert (row.state, row.exit_code, row.attempt) == ("TERMINATED", 75, 3)
    query = select(kernels.c.attempt, kernels.c.exit_code, kernels.c.holds).where(kernels.c.session_id == id).order_by(kernels.c.attempt)
    old = (await stage.context.store.read(lambda connection: connection.execute(query))).all()
    assert [tuple(row) for row in old] == [(1, 75, False), (2, 75, False), (3, 75, False)]


async def test_another_exit_code_is_not_worth_it_but_a_lost_agent_is(stage: Stage) -> None:
    box = await stage.box("box")
    retry = RetryInput(count=1, exit_codes=(75,))
    id = await stage.ask(retry=retry)
    await stage.look()
    assert (await end(stage, id, 1)).state == "TERMINATED"
    id = await stage.ask(retry=retry)
    await stage.look()
    await stage.see(id, K.RUNNING)
    await box.leave()
    await stage.later(200.0)
    row = await stage.row(id)
    assert (row.state, row.attempt) == ("PENDING", 2) and "was lost" in row.reason
    assert (await refused(lambda: stage.ask(retry=retry, **INTERACTIVE))).code == "invalid-request"


async def test_what_was_stopped_is_not_tried_again(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.ask(retry=RetryInput(count=3))
    await stage.look()
    await stage.see(id, K.RUNNING)
    await stage.stop(id)
    await stage.look()
    assert (await stage.see(id, K.GONE, exit_code=143, why="stopped")).state == "TERMINATED"


async def preempting(stage: Stage) -> None:
    options = msgspec.json.encode(GroupOptions(preemption=Preemption(enabled=True, grace_s=5.0))).decode()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).values(options=options)))
    stage.context.groups.forget()


@pytest.mark.parametrize(("how", "state", "reason"), [
    (Evicted.REQUEUE, "PENDING", "It made room for more urgent work. It is back in the queue."),
    (Evicted.END, "TERMINATED", "It made room for more urgent work.")])
async def test_the_urgent_have_others_make_room_and_nobody_steals_it(stage: Stage, how: Evicted, state: str, reason: str) -> None:
    box = await stage.box("box", cpu=4)
    await preempting(stage)
    victim = await stage.running(cpu=4, evicted=how, priority=1)
    urgent = await stage.ask(cpu=4, priority=90)
    await stage.look()
    assert (await stage.state(victim), await stage.state(urgent)) == ("TERMINATING", "PENDING")
    assert orders(box)[-1].want is Want.STOP and orders(box)[-1].grace_s == 5.0
    assert msgspec.json.decode((await stage.row(urgent)).claim) == [box.id]
    thief = await stage.ask(cpu=1, priority=50)
    await stage.kill()
    await stage.start()
    await box.connect()
    row = await stage.see(victim, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.reason) == (state, reason)
    row = await stage.row(urgent)
    assert (row.state, row.claim) == ("SCHEDULED", "") and await stage.state(thief) == "PENDING"
    if how is Evicted.REQUEUE:
        assert (await stage.row(victim)).attempt == 2


async def test_what_ends_by_itself_while_it_makes_room_keeps_its_result(stage: Stage) -> None:
    await stage.box("box", cpu=4)
    await preempting(stage)
    victim = await stage.running(cpu=4, evicted=Evicted.REQUEUE, priority=1)
    await stage.ask(cpu=4, priority=90)
    await stage.look()
    row = await stage.see(victim, K.GONE, exit_code=0)
    assert (row.state, row.result, row.reason) == ("TERMINATED", "success", "")


async def test_a_claim_goes_with_its_session(stage: Stage) -> None:
    await stage.box("box", cpu=4)
    await preempting(stage)
    victim = await stage.running(cpu=4, evicted=Evicted.END, priority=1)
    urgent, other = await stage.ask(cpu=4, priority=90), await stage.ask(cpu=4, priority=2)
    await stage.look()
    await stage.stop(urgent)
    await stage.look()
    assert (await stage.row(urgent)).claim == ""
    await stage.see(victim, K.GONE, exit_code=143, why="stopped")
    assert await stage.state(other) == "SCHEDULED"


async def test_what_may_move_leaves_an_agent_that_is_drained(stage: Stage) -> None:
    box = await stage.box("box")
    stays, moves = await stage.running(), await stage.running(evicted=Evicted.REQUEUE)
    other = await stage.box("other")
    await stage.context.store.write(lambda tx: tx.connection.execute(update(agents).where(agents.c.id == box.id).values(draining=True)))
    await stage.look()
    assert (await stage.state(stays), await stage.state(moves)) == ("RUNNING", "TERMINATING")
    row = await stage.see(moves, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.agent_id) == ("SCHEDULED", other.id)


async def test_a_stop_says_who_wanted_it_and_an_earlier_reason_stays(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.running(**INTERACTIVE)

    async def rule(why: str) -> None:
        await stage.context.store.write(lambda tx: wish_stop(tx, [id], why))

    await rule("Nobody used it for 3h.")
    await rule("Something else.")
    await stage.look()
    assert (await stage.see(id, K.GONE, exit_code=143, why="stopped")).reason == "Nobody used it for 3h."


async def test_a_later_stop_may_give_less_time(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.running(grace_s=300.0)
    await stage.stop(id)
    await stage.look()
    await operations.stop(stage.context, stage.caller, operations.StopSession(id=id, grace_s=1.0))
    await stage.orchestrator.look_once(False)
    await stage.look()
    assert [order.grace_s for order in orders(box) if order.want is Want.STOP] == [300.0, 1.0]


async def test_a_time_limit_is_shown_and_kept_when_the_agent_does_not(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.running(time_limit_s=60.0)
    assert (await stage.row(id)).expires_at == stage.now + 60.0
    await stage.later(80.0)
    assert await stage.state(id) == "RUNNING", "its agent has the first word"
    await stage.later(20.0)
    assert await stage.state(id) == "TERMINATING"
    row = await stage.see(id, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.reason) == ("TERMINATED", "It reached its time limit of 1m.")


async def test_wishes_say_where(stage: Stage) -> None:
    await stage.box("first")
    second = await stage.box("second")
    id, other = await stage.ask(wishes=WishesInput(agents=("second",))), await stage.ask(wishes=WishesInput(avoid=("first",)))
    await stage.look()
    assert {(await stage.row(id)).agent_id, (await stage.row(other)).agent_id} == {second.id}
    apart = await stage.ask(cluster=(PartInput(role="main", count=2),), wishes=WishesInput(arrange="spread"))  # type: ignore[arg-type]  # as JSON
    await stage.look()
    assert len({box.id for box, _ in stage.kernels(apart).values()}) == 2


async def test_groups_are_planned_apart(stage: Stage) -> None:
    box = await stage.box("box")
    row = {"id": "other", "name": "other", "created_at": 0.0}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(groups), [row]))
    await stage.context.store.write(lambda tx: tx.connection.execute(update(agents).values(group_id="other")))
    stage.context.groups.forget()
    here, there = await stage.ask(), await stage.ask(group="other")
    await stage.look()
    assert (await stage.state(here), await stage.state(there)) == ("PENDING", "SCHEDULED")
    assert (await stage.row(there)).agent_id == box.id and (await stage.row(here)).hold == "No agent is connected."


async def test_what_runs_in_a_reservation_ends_with_it(stage: Stage) -> None:
    box = await stage.box("box")
    row = {"id": "b", "name": "mine", "group_id": "default", "scope_id": stage.caller.id, "made_by": stage.caller.id, "created_at": 0.0,
           "agents": msgspec.json.encode({box.id: {"cpu": 4000, "mem": 16 << 30}}).decode(), "begins": stage.now - 1.0,
           "ends": stage.now + 500.0}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(bookings), [row]))
    id, stranger = await stage.ask(cpu=4, reservation="mine", time_limit_s=499.0), await stage.ask(cpu=1)
    await stage.look()
    assert (await stage.state(id), await stage.state(stranger)) == ("SCHEDULED", "PENDING")
    await stage.see(id, K.RUNNING)
    await stage.later(395.0)
    assert await stage.state(id) == "RUNNING"
    await stage.later(110.0)
    row = await stage.see(id, K.GONE, exit_code=143, why="stopped")
    assert (row.state, row.reason) == ("TERMINATED", "Its reservation is over.")
