"""The platform explains itself: why, when, in which order, and what was decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from backendai.manager.access import Caller, Rank
from backendai.manager.operations import explain as operations
from backendai.manager.operations.asking import AfterInput, PartInput
from backendai.manager.operations.explain import DryRun, GetOverview, GetQueue, ListDecisions, WhySession
from backendai.manager.store.decisions import write_decision
from backendai.manager.store.schema import DEFAULT, PROJECT, groups, quotas, sessions, users
from backendai.model.errors import Failure
from backendai.model.explain import Why
from backendai.model.session import SessionType
from backendai.plugin.errors import Missing
from backendai.spec.hook_v20 import User
from backendai.wire.link import KernelState as K
from backendai.wire.link import Usage
from sqlalchemy import insert

from core.tests.manager.stage import Stage, refused

INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


async def why(stage: Stage, id: str, caller: Caller | None = None, replay: bool = False) -> Why:
    return await operations.why(stage.context, caller or stage.caller, WhySession(id=id, replay=replay))


async def dry(stage: Stage, cpu: float = 1, caller: Caller | None = None, **more: Any) -> Why:
    given: dict[str, Any] = {"type": SessionType.BATCH, "command": ("true",), "slots": {"cpu": cpu, "mem": "1g"}, **more}
    return await operations.dry_run(stage.context, caller or stage.caller, DryRun(**given))


async def stranger(stage: Stage, name: str = "eve", rank: Rank | None = Rank.MEMBER) -> Caller:
    """Return another user, who is in the first project or in none."""
    id = stage.context.new_id()
    row = {"id": id, "name": name, "email": "", "role": "user", "active": True, "uid": 1, "gid": 1, "created_at": stage.now}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(users), [row]))
    return Caller(User(id, name, "user", ""), domain_id=DEFAULT, project_id=PROJECT, projects={PROJECT: rank} if rank else {})


async def test_a_waiting_session_is_told_its_place_what_blocks_it_and_what_would_help(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await stage.running(cpu=3, name="lab", **INTERACTIVE)
    stage.now += 3 * 3600
    wide = await stage.ask(cpu=4, name="wide")
    await stage.look()
    found = await why(stage, wide)
    assert (found.name, found.state, found.group, found.position, found.waiting) == ("wide", "PENDING", "default", 1, 1)
    assert found.text == "wide waits, alone in the queue of the group default."
    assert found.hold == "Waits for 4 cores: the most that one agent has free now is 1 (agent a)."
    assert [(b.kind, b.what, b.wanted, b.most, b.short, b.agents) for b in found.blockers] == [("slot", "cpu", 4, 1, 1, 1)]
    assert [(r.kind, r.text) for r in found.remedies] == [
        ("slots", "with 1 core instead of 4"), ("stop", "if the session lab, idle for 3h, were stopped")]
    assert found.remedies[0].change == {"slots": {"cpu": 1}}
    assert found.expected is not None and (found.expected.earliest, found.expected.latest) == (None, None)
    assert found.expected.text.startswith("Nobody can say: it waits for sessions without a time limit to end")


async def test_a_remedy_that_is_followed_starts_the_session(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    lab = await stage.running(cpu=3, name="lab", **INTERACTIVE)
    wide = await stage.ask(cpu=4)
    await stage.look()
    remedy = next(remedy for remedy in (await why(stage, wide)).remedies if remedy.kind == "stop")
    assert remedy.change == {"stop": (lab,)}
    await stage.stop(lab)
    await stage.look()
    await stage.see(lab, K.EXITED, exit_code=0)
    await stage.see(lab, K.GONE)
    await stage.look()
    assert await stage.state(wide) == "SCHEDULED"


async def test_expected_starts_follow_time_limits_and_the_queue(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await stage.running(cpu=4, time_limit_s=600.0)
    begun = stage.now
    first, second = await stage.ask(cpu=4, name="first", time_limit_s=100.0), await stage.ask(cpu=4, name="second")
    await stage.look()
    stage.now += 60
    found = (await operations.queue(stage.context, stage.caller, GetQueue())).items
    assert [queue.group for queue in found] == ["default"]
    entries = found[0].items
    assert [(entry.position, entry.name) for entry in entries] == [(1, "first"), (2, "second")]
    assert [entry.latest for entry in entries] == [begun + 600, begun + 700] and all(entry.earliest is None for entry in entries)
    one = (await operations.queue(stage.context, stage.caller, GetQueue(session="second"))).items[0]
    assert [entry.session for entry in one.items] == [second] and one.waiting == 2
    expected = (await why(stage, first)).expected
    assert expected is not None and expected.latest == begun + 600
    assert expected.text.startswith("That is if all those before it use up their time limits; it is sooner if they end sooner.")


async def test_habits_give_the_earliest_start(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    for _ in range(8):
        id = await stage.running(cpu=1, time_limit_s=1000.0)
        stage.now += 100
        await stage.see(id, K.EXITED, exit_code=0)
        await stage.see(id, K.GONE)
    await stage.running(cpu=4, time_limit_s=1000.0)
    begun = stage.now
    waits = await stage.ask(cpu=4)
    await stage.look()
    expected = (await why(stage, waits)).expected
    assert expected is not None and expected.earliest == pytest.approx(begun + 100, abs=2) and expected.latest == begun + 1000
    assert "as soon as a quarter of the last 8 sessions did" in expected.text


async def test_one_that_runs_says_where_for_how_long_and_who_decided_it(stage: Stage) -> None:
    box = await stage.box("a")
    id = await stage.running(cpu=1, name="job")
    stage.now += 90
    found = await why(stage, id)
    assert found.text == "job runs on a for 1m30s." and found.agents == ("a",)
    assert found.decision is not None and found.decision.placed == {id: (box.id,)} and found.decision.kept
    assert found.decision.scheduler.startswith(stage.config.scheduler) and len(found.decision.snapshot) == 64
    await stage.see(id, K.EXITED, exit_code=3)
    await stage.see(id, K.GONE)
    assert (await why(stage, id)).text == "job has ended with failure after running for 1m30s. The command ended with 3."


async def test_a_session_that_waits_for_its_time_does_not_stand_in_the_queue(stage: Stage) -> None:
    await stage.box("a")
    id = await stage.ask(name="later", not_before=stage.now + 3600)
    await stage.look()
    found = await why(stage, id)
    assert found.position is None and found.text == "later waits, and does not stand in the queue of the group default yet."
    assert found.hold.startswith("Waits until")
    assert found.expected is not None and found.expected.earliest == (await stage.row(id)).not_before
    entry = (await operations.queue(stage.context, stage.caller, GetQueue())).items[0].items[0]
    assert (entry.position, entry.earliest) == (None, (await stage.row(id)).not_before)


async def test_a_session_that_waits_for_others_names_those_that_one_may_see(stage: Stage) -> None:
    await stage.box("a")
    await stage.running(name="data")
    await stage.ask(name="train", after=(AfterInput(session="data"),))
    await stage.look()
    found = await why(stage, "train")
    assert [(b.kind, b.text) for b in found.blockers] == [("after", "data has to end with success first; it is RUNNING.")]
    assert found.expected is not None and found.expected.text == "As soon as those have ended and there is room."
    eve = await stranger(stage)
    await stage.context.store.write(lambda tx: tx.connection.execute(
        sessions.update().where(sessions.c.name == "train").values(owner_id=eve.id)))
    apart = replace(eve, projects={})
    found = await why(stage, "train", apart)
    assert [b.text for b in found.blockers] == ["Another session, which you may not see, has to end with success first."]
    assert "data" not in repr(found)


async def test_a_decision_is_made_again_and_compared(stage: Stage) -> None:
    await stage.box("a", cpu=8)
    await stage.box("b", cpu=4)
    first, second = await stage.ask(cpu=1, name="first"), await stage.ask(cpu=2, name="second")
    await stage.look()
    found = (await why(stage, second, replay=True)).replay
    assert found is not None and found.same and found.differs == ()
    assert [(turn.name, len(turn.agents)) for turn in found.turns] == [("first", 1), ("second", 1)]
    assert [(choice.rank, choice.taken) for choice in found.choices[0]] == [(1, True), (2, False)]
    placed = (await stage.row(second)).agent_id
    assert found.choices[0][0].agent == next(box.name for box in stage.boxes if box.id == placed)
    await stage.context.store.write(lambda tx: tx.connection.execute(_spoil(found.decision.id, second)))
    again = (await why(stage, second, replay=True)).replay
    assert again is not None and not again.same
    assert again.differs == (f"The scheduler was fifo (nobody 0) and is {_label(stage)} now.",
                             "1 of 1 sessions come to lie elsewhere now.")
    assert first != second


def _spoil(decision: int, session: str) -> Any:
    from backendai.manager.store.schema import decisions

    return decisions.update().where(decisions.c.id == decision).values(
        scheduler="fifo (nobody 0)", placed=f'{{"{session}": ["elsewhere"]}}')


def _label(stage: Stage) -> str:
    from backendai.manager.sights import label_of

    return label_of(stage.context.host, "scheduler_v10.fifo")


async def test_what_is_not_on_record_cannot_be_decided_again(stage: Stage) -> None:
    box = await stage.box("a")
    id = await stage.ask()
    await stage.look()
    await stage.context.store.write(lambda tx: write_decision(tx, DEFAULT, stage.now, "f" * 64, ("s", "t"), {id: (box.id,)}, None))
    failure = await refused(lambda: why(stage, id, replay=True))
    assert failure.code == "not-found" and "is not kept any more, only its name ffffffffffffffff" in failure.message


async def test_a_dry_run_says_where_it_would_start_and_changes_nothing(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await stage.look()
    found = await dry(stage, cpu=2)
    assert (found.session, found.text, found.agents, found.hold) == ("", "It would start now on a.", ("a",), "")
    assert found.expected is not None and found.expected.text == "There is room for it: it starts with the next plan."
    await stage.running(cpu=3, time_limit_s=60.0)
    found = await dry(stage, cpu=2)
    assert found.text == "It would wait, alone in the queue of the group default." and found.agents == ()
    assert found.remedies[0].text == "with 1 core instead of 2"
    assert found.expected is not None and found.expected.latest == stage.now + 60
    assert len(await stage.states()) == 1, "nothing was asked for"


async def test_a_dry_run_refuses_what_create_refuses(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await stage.ask(name="taken")
    await stage.look()
    for given, code in (({"cpu": 64}, "impossible"), ({"name": "taken"}, "name-taken"), ({"priority": 101}, "invalid-request"),
                        ({"name": "no/name"}, "bad-name"), ({"group": "nowhere"}, "not-found")):
        assert (await refused(lambda given=given: dry(stage, **given))).code == code


async def test_quotas_are_named_and_stopping_ones_own_session_helps(stage: Stage) -> None:
    await stage.box("a", cpu=8)
    row = {"id": stage.context.new_id(), "scope": "user", "scope_id": stage.caller.id, "group_id": "", "what": "cpu", "limit": 4000,
           "used": 0}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(quotas), [row]))
    stage.context.bus.wake(everything=True)
    await stage.look()
    await stage.running(cpu=3, name="mine", **INTERACTIVE)
    waits = await stage.ask(cpu=2)
    await stage.look()
    found = await why(stage, waits)
    assert [b.text for b in found.blockers] == ["Its user may use 4 cores at once; 3 of that is taken, and it needs 2."]
    assert [(b.what, b.wanted, b.most, b.used) for b in found.blockers] == [("cpu", 2, 4, 3)]
    assert [remedy.text for remedy in found.remedies] == ["with 1 core instead of 2", "if the session mine were stopped"]


async def test_another_group_that_one_may_use_is_proposed(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    await stage.running(cpu=4)
    row = {"id": "west", "name": "west", "scheduler": "", "selector": "", "options": "{}", "created_at": stage.now}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(groups), [row]))
    stage.context.groups.forget()
    box = await stage.box("w", cpu=4)
    from backendai.manager.store.schema import agents

    await stage.context.store.write(lambda tx: tx.connection.execute(agents.update().where(agents.c.id == box.id).values(group_id="west")))
    stage.context.bus.wake(everything=True)
    waits = await stage.ask(cpu=2, group="default")
    await stage.look()
    assert "in the group west" in [remedy.text for remedy in (await why(stage, waits)).remedies]
    eve = await stranger(stage)
    found = await dry(stage, cpu=2, caller=eve)
    assert not any(remedy.kind == "group" for remedy in found.remedies), "it is not open to her"


async def test_nobody_is_told_of_sessions_that_they_may_not_see(stage: Stage) -> None:
    await stage.box("a", cpu=4)
    secret = await stage.running(cpu=3, name="secret-one", **INTERACTIVE)
    hidden = await stage.ask(cpu=4, name="secret-two")
    await stage.look()
    eve = await stranger(stage, rank=None)
    eve = replace(eve, projects={}, project_id=PROJECT)
    assert (await refused(lambda: why(stage, hidden, eve))).code == "not-found"
    queue = (await operations.queue(stage.context, eve, GetQueue())).items[0]
    assert (queue.waiting, queue.hidden, queue.items) == (1, 1, ())
    view = await operations.overview(stage.context, eve, GetOverview())
    assert (view.busy, view.hidden) == ((), 1)
    member = replace(eve, projects={PROJECT: Rank.MEMBER})
    stage.now += 1
    found = await dry(stage, cpu=2, caller=member)
    assert (found.position, found.waiting) == (2, 2)
    for said in (view, queue, found):
        assert "secret" not in repr(said) and secret not in repr(said) and hidden not in repr(said)


async def test_the_record_of_decisions_is_for_operators(stage: Stage) -> None:
    box = await stage.box("a")
    ids = []
    for _ in range(3):
        ids.append(await stage.ask())
        await stage.look()
    page = await operations.decisions(stage.context, stage.caller, ListDecisions(group="default", limit=2))
    assert [dict(decision.placed) for decision in page.items] == [{ids[2]: (box.id,)}, {ids[1]: (box.id,)}]
    rest = await operations.decisions(stage.context, stage.caller, ListDecisions(before=int(page.next or 0)))
    assert [dict(decision.placed) for decision in rest.items] == [{ids[0]: (box.id,)}] and rest.next is None
    only = await operations.decisions(stage.context, stage.caller, ListDecisions(session=ids[1]))
    assert [decision.id for decision in only.items] == [page.items[1].id]
    eve = await stranger(stage)
    assert (await refused(lambda: operations.decisions(stage.context, eve, ListDecisions()))).code == "forbidden"


async def test_the_overview_shows_groups_agents_sessions_with_their_use_and_queues(stage: Stage) -> None:
    box = await stage.box("a", cpu=4)
    id = await stage.running(cpu=3, name="busy")
    waits = await stage.ask(cpu=4, name="waits")
    await stage.look()
    _, kernel = stage.on(id)
    stage.context.live.usage[kernel] = Usage(stage.now, cpu_s=5.0, memory=1 << 20)
    view = await operations.overview(stage.context, stage.caller, GetOverview())
    assert [(line.name, line.agents, line.well, line.running, line.waiting) for line in view.groups] == [("default", 1, 1, 1, 1)]
    assert view.groups[0].used["cpu"] == 3 and [agent.id for agent in view.agents] == [box.id]
    assert [(one.name, one.agents, one.slots["cpu"], one.usage and one.usage.cpu_s) for one in view.busy] == [("busy", ("a",), 3, 5.0)]
    assert [entry.session for entry in view.queues[0].items] == [waits]
    parts = PartInput(role="main"), PartInput(role="sub", count=3, slots={"cpu": 0.5, "mem": "1g"})
    gang = await stage.ask(cpu=1, cluster=parts, name="gang")
    await stage.look()
    stage.now += 3
    found = (await operations.queue(stage.context, stage.caller, GetQueue(session=gang))).items[0].items[0]
    assert found.slots["cpu"] == 1 + 3 * 0.5, "of all its containers"
    for limit in (0, 1001):
        with pytest.raises(Failure):
            await operations.overview(stage.context, stage.caller, GetOverview(limit=limit))


async def test_where_nobody_can_plan_the_rest_is_still_shown(stage: Stage) -> None:
    await stage.box("a")
    id = await stage.ask(cpu=4)
    await stage.ask(cpu=4, name="behind")
    await stage.look()

    def broken(group: str) -> Any:
        raise Missing("scheduler_v10.gone is not installed")

    stage.context.sights.source = broken
    stage.now += 60
    behind = (await operations.queue(stage.context, stage.caller, GetQueue())).items[0]
    assert [(entry.name, entry.position) for entry in behind.items] == [("behind", None)]
    assert behind.text == "scheduler_v10.gone is not installed; ask your administrator to look at `bai plugin ls`."
    assert (await why(stage, "behind")).text == "behind waits."
    assert len((await operations.overview(stage.context, stage.caller, GetOverview())).busy) == 1
    assert (await refused(lambda: dry(stage))).code == "unavailable"
    assert await stage.state(id) == "SCHEDULED"
