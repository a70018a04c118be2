"""Agents that go, come back, change, or are not who they were."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.manager.store.schema import agents
from backendai.model.session import SessionState, SessionType
from backendai.wire.link import Desired, Observed, Report, Want
from backendai.wire.link import KernelState as K
from sqlalchemy import select, update

from core.tests.manager.stage import Stage, refused

S = SessionState
INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


async def test_a_manager_that_was_away_for_long_gives_agents_time_to_come_back(stage: Stage) -> None:
    box = await stage.box("box")
    runs, begins = await stage.running(), await stage.ask()
    await stage.look()
    await stage.see(begins, K.STARTING)
    await stage.kill()
    stage.now += 10_000.0
    await stage.start()
    await stage.look()
    assert (await stage.state(runs), await stage.state(begins)) == ("RUNNING", "STARTING")
    await stage.later(170.0)
    assert (await stage.state(runs), await stage.state(begins)) == ("RUNNING", "STARTING")
    await box.connect()
    await stage.look()
    assert (await stage.see(begins, K.RUNNING)).state == "RUNNING"
    await box.leave()
    await stage.later(200.0)
    assert (await stage.state(runs), await stage.state(begins)) == ("FAILED", "FAILED")


async def test_an_agent_that_comes_back_in_the_last_moment_is_not_lost(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    id = await stage.running()
    await box.leave()
    stage.now += 200.0
    commit, box_comes = stage.orchestrator._settler.commit, [box.connect]

    async def late(decide: Any) -> Any:
        if box_comes:
            await box_comes.pop()()
        return await commit(decide)

    monkeypatch.setattr(stage.orchestrator._settler, "commit", late)
    await stage.orchestrator.look_once()
    assert await stage.state(id) == "RUNNING"


@pytest.mark.parametrize("reached", [(), (K.PREPARING,), (K.PREPARING, K.STARTING), (K.RUNNING,), (K.RUNNING, K.EXITED)])
async def test_while_an_agent_is_away_nothing_is_concluded_and_then_it_is_lost(stage: Stage, reached: tuple[K, ...]) -> None:
    box = await stage.box("box")
    id = await stage.ask()
    await stage.look()
    for said in reached:
        await stage.see(id, said, **({"exit_code": 0} if said is K.EXITED else {}))
    state = await stage.state(id)
    await box.leave()
    await stage.later(170.0)
    assert await stage.state(id) == state, "its agent may come back and know more"
    await stage.later(20.0)
    row = await stage.row(id)
    if K.EXITED in reached:
        assert (row.state, row.result, row.exit_code) == ("TERMINATED", "success", 0), "how it ended is known"
    else:
        assert (row.state, row.result, row.reason) == ("FAILED", "failure", "The agent box was lost.")
    assert await stage.ledger() == {}
    await box.connect()
    await stage.look()
    assert all(played.dropped for played in box.kernels.values()), "what is left of it is removed"
    assert await stage.row(id) == row


async def test_a_failure_that_was_heard_of_stays_one_when_the_agent_is_lost(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.running()
    await stage.see(id, K.EXITED, exit_code=0, error="Its output is lost.", code="runtime-fault")
    await box.leave()
    await stage.later(200.0)
    row = await stage.row(id)
    assert (row.state, row.result, row.reason) == ("FAILED", "failure", "Its output is lost.")


async def test_a_stop_while_the_agent_is_away_is_done_when_it_is_back_or_lost(stage: Stage) -> None:
    box, other = await stage.box("box"), await stage.box("other", cpu=1)
    first, second = await stage.running(cpu=2, **INTERACTIVE), await stage.running(cpu=1, **INTERACTIVE)
    assert {stage.on(first)[0], stage.on(second)[0]} == {box, other}
    for id in (first, second):
        await stage.on(id)[0].leave()
        await stage.stop(id)
    await stage.later(150.0)
    assert {await stage.state(first), await stage.state(second)} == {"TERMINATING"}
    await box.connect()
    await stage.look()
    _, kernel = stage.on(first)
    assert box.kernels[kernel].order.want is Want.STOP
    box.step(kernel)
    await stage.later(40.0)
    assert (await stage.row(first)).exit_code == 143
    row = await stage.row(second)
    assert (row.state, row.result, row.reason) == ("TERMINATED", "success", "It was stopped by its owner.")


async def test_an_agent_that_comes_back_in_time_has_lost_nothing(stage: Stage) -> None:
    box = await stage.box("box")
    runs, ended = await stage.running(), await stage.running()
    await box.leave()
    _, kernel = stage.on(ended)
    box.see(kernel, K.EXITED, exit_code=5)
    await stage.later(100.0)
    assert await stage.connected() == set()
    await box.connect()
    await stage.look()
    assert await stage.state(runs) == "RUNNING" and (await stage.row(ended)).exit_code == 5
    assert await stage.connected() == {"box"}


async def test_what_an_agent_never_heard_of_is_ordered_again(stage: Stage) -> None:
    box = await stage.box("box")
    assert box.wire is not None
    box.wire.broken = True
    id = await stage.ask()
    await stage.look()
    assert await stage.state(id) == "SCHEDULED" and not box.kernels
    await box.leave()
    await box.connect()
    await stage.look()
    assert (await stage.see(id, K.RUNNING)).state == "RUNNING"


async def test_an_agent_that_comes_back_without_what_it_had_has_lost_it(stage: Stage) -> None:
    box = await stage.box("box")
    runs, done, stopped = await stage.running(), await stage.running(), await stage.running(**INTERACTIVE)
    await stage.see(done, K.EXITED, exit_code=0)
    await stage.stop(stopped)
    await stage.look()
    await box.leave()
    box.kernels.clear()
    await box.connect()
    await stage.look()
    row = await stage.row(runs)
    assert (row.state, row.result, row.reason) == ("FAILED", "failure", "The agent box came back without it.")
    row = await stage.row(done)
    assert (row.state, row.result, row.exit_code) == ("TERMINATED", "success", 0), "how it ended was known already"
    row = await stage.row(stopped)
    assert (row.state, row.result) == ("TERMINATED", "success"), "its owner wanted it to end"


async def test_after_a_reboot_the_agent_says_what_is_lost(stage: Stage) -> None:
    box = await stage.box("box")
    id, waits = await stage.running(), await stage.ask(cpu=3)
    await stage.look()
    await box.leave()
    box.reboot()
    await box.connect()
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.reason) == ("FAILED", "The container was lost when the machine stopped.")
    assert await stage.state(waits) == "SCHEDULED", "what had not begun begins now"


async def test_a_name_that_is_taken_over_ends_what_its_bearer_held(stage: Stage) -> None:
    old = await stage.box("box")
    id = await stage.running()
    assert (await refused(lambda: stage.box("box"))).code == "name-taken"
    stage.boxes.pop()
    await old.leave()
    await stage.box("box")
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.reason) == ("FAILED", "The agent box was replaced by a new one.")
    assert await stage.ledger() == {}


async def test_a_machine_that_is_set_up_anew_stays_cordoned_and_labelled(stage: Stage) -> None:
    old = await stage.box("box")
    decided = {"cordoned": True, "overrides": '{"zone":"a"}'}
    await stage.context.store.write(lambda tx: tx.connection.execute(update(agents).where(agents.c.id == old.id).values(decided)))
    await old.leave()
    new = await stage.box("box")
    row = (await stage.context.store.read(lambda connection: connection.execute(select(agents).where(agents.c.id == new.id)))).one()
    assert new.id != old.id and (row.name, row.cordoned, row.overrides, row.labels) == ("box", True, '{"zone":"a"}', '{"zone":"a"}')


async def test_an_agent_of_another_cluster_is_refused_while_it_holds_kernels(stage: Stage) -> None:
    box = await stage.box("box")
    await stage.running()
    box.cluster = "another"
    assert (await refused(box.connect)).code == "conflict"


async def test_the_newer_link_wins_and_the_end_of_the_older_one_ends_nothing(stage: Stage) -> None:
    box = await stage.box("box")
    old = box.wire
    assert old is not None
    id = await stage.running()
    await box.connect()
    assert old.closed == "the agent has connected anew"
    await stage.orchestrator.gone(old)
    await stage.look()
    assert await stage.connected() == {"box"}
    assert (await stage.see(id, K.GONE, exit_code=0)).state == "TERMINATED"


async def test_reports_about_what_is_not_theirs_are_answered_with_a_drop(stage: Stage) -> None:
    box, thief = await stage.box("box"), await stage.box("thief", cpu=1)
    id = await stage.running(cpu=2)
    _, kernel = stage.on(id)
    stage.orchestrator.reported(thief.id, Report(1, (Observed(kernel, K.GONE, exit_code=0), Observed("0" * 26, K.RUNNING))))
    await stage.look()
    assert await stage.state(id) == "RUNNING" and not box.kernels[kernel].dropped
    drops = [message.drop for message in thief.heard if isinstance(message, Desired) and message.drop]
    assert sorted(drop for drops in drops for drop in drops) == sorted((kernel, "0" * 26))
