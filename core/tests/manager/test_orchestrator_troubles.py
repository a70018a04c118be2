"""What goes wrong: states that last too long, agents that go, come back or change, races that are lost, failures between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backendai.manager import notices
from backendai.manager.store.nodes import set_capacity
from backendai.model.errors import Failure
from backendai.model.session import DEADLINES, SessionState, SessionType
from backendai.wire.link import Desired, Observed, Report, Want
from backendai.wire.link import KernelState as K

from core.tests.manager.stage import GIB, Box, Stage, Wire, orders, refused, staged

S = SessionState
INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


@pytest.fixture
async def stage(tmp_path: Path, db_url: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path, db_url) as it:
        yield it
        await it.check()


async def called_back(stage: Stage) -> tuple[Box, str, str]:
    """Return an agent, a session that it has not begun in time, and its kernel."""
    box = await stage.box("box")
    id = await stage.ask()
    await stage.look()
    kernel = orders(box)[-1].kernel
    await stage.later(DEADLINES[S.SCHEDULED] - 1.0)
    assert (await stage.row(id)).reason == "" and orders(box)[-1].want is Want.RUN
    await stage.later(2.0)
    row = await stage.row(id)
    assert (row.state, row.reason) == ("SCHEDULED", "Its agent has not begun within 1m; it is called back.")
    assert (orders(box)[-1].kernel, orders(box)[-1].want) == (kernel, Want.STOP) and await stage.ledger()
    return box, id, kernel


async def test_what_an_agent_gives_back_is_tried_anew_with_another_id(stage: Stage) -> None:
    box, id, first = await called_back(stage)
    box.step(first)
    await stage.look()
    assert await stage.state(id) == "SCHEDULED", "it was placed anew at once"
    second = orders(box)[-1].kernel
    assert second != first and box.kernels[first].dropped and not box.kernels[second].dropped
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "PENDING", "SCHEDULED"]
    assert (await stage.see(id, K.RUNNING)).reason == ""
    assert (await stage.see(id, K.GONE, exit_code=0)).state == "TERMINATED"


async def test_back_in_the_queue_it_says_why(stage: Stage) -> None:
    box, id, kernel = await called_back(stage)
    await box.beat(why="sick")
    box.step(kernel)
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.agent_id, row.deadline) == ("PENDING", None, None)
    assert row.reason == "Its agent did not begin within 1m; it is back in the queue." and "sick" in row.hold
    assert await stage.ledger() == {}


async def test_what_begins_while_it_is_called_back_is_not_run_twice(stage: Stage) -> None:
    for ways in ((K.RUNNING, K.EXITED, K.GONE), (K.RUNNING, K.GONE), (K.EXITED, K.GONE)):
        box, id, kernel = await called_back(stage)
        for said in ways:
            box.see(kernel, said, **({} if said is K.RUNNING else {"exit_code": 143, "why": "stopped"}))
            await stage.look()
        row = await stage.row(id)
        assert (row.state, row.result) == ("FAILED", "failure") and row.reason.startswith("Its agent began it only when"), (ways, row)
        box.step(kernel)
        await box.leave()
        stage.boxes.clear()
        await stage.later(200.0)


async def test_what_was_only_being_prepared_when_it_was_called_back_is_tried_anew(stage: Stage) -> None:
    box, id, kernel = await called_back(stage)
    box.see(kernel, K.PREPARING)
    await stage.look()
    assert await stage.state(id) == "SCHEDULED"
    box.step(kernel)
    await stage.look()
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "PENDING", "SCHEDULED"]


async def test_what_ends_by_itself_while_it_is_called_back_has_its_result(stage: Stage) -> None:
    box, id, kernel = await called_back(stage)
    box.see(kernel, K.EXITED, exit_code=0)
    await stage.look()
    box.see(kernel, K.GONE)
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.result, row.exit_code, row.reason) == ("TERMINATED", "success", 0, "")


async def test_what_is_called_back_can_be_stopped(stage: Stage) -> None:
    box, id, kernel = await called_back(stage)
    await stage.stop(id)
    await stage.look()
    assert await stage.state(id) == "TERMINATING"
    box.step(kernel)
    await stage.look()
    assert await stage.state(id) == "CANCELLED"


async def test_an_agent_that_has_it_and_does_not_answer_is_waited_for_and_then_given_up(stage: Stage) -> None:
    _, id, _ = await called_back(stage)
    await stage.later(DEADLINES[S.SCHEDULED] + 1.0)
    row = await stage.row(id)
    assert (row.state, row.reason) == ("FAILED", "Its agent has neither begun nor given it back; ask for it again.")
    assert await stage.ledger() == {}


async def test_an_agent_that_never_said_that_it_has_it_keeps_nobody_from_another_try(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.ask()
    assert box.wire is not None
    box.wire.broken = True
    await stage.look()
    await stage.later(2 * DEADLINES[S.SCHEDULED] + 2.0)
    assert (await stage.row(id)).reason.endswith("it is called back.")
    await stage.later(DEADLINES[S.SCHEDULED] + 1.0)
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "PENDING", "SCHEDULED"]


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


@pytest.mark.parametrize(("said", "state", "says"), [
    (K.PREPARING, S.PREPARING, "Fetching its image took longer than 30m."),
    (K.STARTING, S.STARTING, "Making its container took longer than 2m."),
])
async def test_a_beginning_that_lasts_too_long_is_ended_and_has_failed(stage: Stage, said: K, state: S, says: str) -> None:
    box = await stage.box("box")
    id = await stage.ask()
    await stage.look()
    await stage.see(id, said)
    await stage.later(DEADLINES[state] - 1.0)
    assert await stage.state(id) == state
    await stage.later(2.0)
    row = await stage.row(id)
    assert (row.state, row.result, row.reason) == ("TERMINATING", "failure", says)
    assert orders(box)[-1].want is Want.STOP
    box.step(orders(box)[-1].kernel)
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.result, row.reason) == ("FAILED", "failure", says)


async def test_an_end_that_nobody_confirms_is_an_end_all_the_same(stage: Stage) -> None:
    box = await stage.box("box")
    stopped, exited = await stage.running(**INTERACTIVE), await stage.running()
    await stage.stop(stopped)
    await stage.look()
    await stage.see(exited, K.EXITED, exit_code=4)
    await stage.later(DEADLINES[S.TERMINATING] - 1.0)
    assert {await stage.state(stopped), await stage.state(exited)} == {"TERMINATING"}
    await stage.later(2.0)
    row = await stage.row(exited)
    assert (row.state, row.result, row.exit_code) == ("TERMINATED", "failure", 4)
    assert await stage.state(stopped) == "TERMINATING", "a stop has its grace besides"
    await stage.later(10.0)
    row = await stage.row(stopped)
    assert (row.state, row.result, row.reason) == ("TERMINATED", "success", "It was stopped by its owner.")
    assert await stage.ledger() == {} and all(played.dropped for played in box.kernels.values()), "the agent goes on cleaning up"


async def test_running_has_no_deadline_while_its_agent_is_here(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.running()
    await stage.later(100_000.0)
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


async def lose_the_race(stage: Stage, monkeypatch: pytest.MonkeyPatch, between: Any) -> None:
    """Have something happen between the plan and its commit."""
    planner, propose = stage.orchestrator._planner, stage.orchestrator._planner.propose
    todo = [between]

    async def slowly(nodes: Any) -> Any:
        proposal = await propose(nodes)
        if todo:
            await todo.pop()()
        return proposal

    monkeypatch.setattr(planner, "propose", slowly)


async def test_a_placement_that_comes_too_late_is_not_made(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    id = await stage.ask(cpu=2)

    async def shrink() -> None:
        await stage.context.store.write(lambda tx: set_capacity(tx, box.id, {"cpu": 1000, "mem": 16 * GIB}))

    await lose_the_race(stage, monkeypatch, shrink)
    await stage.look()
    assert await stage.state(id) == "PENDING" and await stage.ledger() == {} and not orders(box)
    await stage.look()
    assert (await stage.row(id)).hold.startswith("Needs 2 cores")
    await box.beat(capacity={"cpu": 2000, "mem": 16 * GIB})
    await stage.look()
    assert await stage.state(id) == "SCHEDULED"


@pytest.mark.parametrize("what", ["stop", "sick", "leave"])
async def test_who_wins_the_race_is_obeyed(stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    box = await stage.box("box")
    id, other = await stage.ask(cpu=2), await stage.ask(cpu=2)
    deeds: dict[str, Any] = {"stop": lambda: stage.stop(id), "sick": lambda: box.beat(why="sick"), "leave": box.leave}
    await lose_the_race(stage, monkeypatch, deeds[what])
    await stage.orchestrator.look_once()
    states = (await stage.state(id), await stage.state(other))
    assert states == (("PENDING", "SCHEDULED") if what == "stop" else ("PENDING", "PENDING"))
    await stage.look()
    assert await stage.state(id) == ("CANCELLED" if what == "stop" else "PENDING")
    if what != "stop":
        await box.connect() if what == "leave" else await box.beat(why="")
        await stage.look()
        assert await stage.state(id) == await stage.state(other) == "SCHEDULED"


async def test_two_plans_of_one_room_fill_it_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the plan ever think that there is more than there is, the ledger says no."""
    box = await stage.box("box", cpu=2)
    ids = [await stage.ask(cpu=2) for _ in range(2)]
    await box.beat(capacity={"cpu": 4000, "mem": 16 * GIB})

    async def shrink() -> None:
        await stage.context.store.write(lambda tx: set_capacity(tx, box.id, {"cpu": 2000, "mem": 16 * GIB}))

    await lose_the_race(stage, monkeypatch, shrink)
    await stage.orchestrator.look_once()
    assert [await stage.state(id) for id in ids] == ["SCHEDULED", "PENDING"]
    assert stage.orchestrator._next <= 0.1, "who lost is tried again soon"


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("part", ["leases", "dispatch", "notices"])
async def test_what_fails_after_a_commit_makes_everything_begin_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    box = await stage.box("box")
    id = await stage.ask()
    settler = stage.orchestrator._settler
    broken = {"leases": (settler.leases, "note"), "dispatch": (settler.dispatch, "tell"), "notices": (settler.notices, "tell")}[part]

    def fail(*_: Any) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        await stage.orchestrator.look_once()
    assert await stage.state(id) == "SCHEDULED"
    with pytest.raises(Broken):
        await stage.orchestrator.look_once()
    await stage.orchestrator.begin()
    await stage.look()
    await stage.check()
    assert stage.on(id)[0] is box


async def test_nobody_is_told_of_what_was_not_committed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    id = await stage.ask()

    def fail(*_: Any) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(stage.context.store, "_number", fail)  # the last thing before the commit
        with pytest.raises(Broken):
            await stage.orchestrator.look_once()
    assert box.wire is not None and not box.wire.inbox and not stage.orchestrator._settler.leases.by_session
    assert await stage.state(id) == "PENDING"
    await stage.look()
    assert [order.session for order in orders(box)] == [id]


async def test_a_hello_that_is_cut_off_is_followed_all_the_same(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its link ends while its transaction is being committed: what it said counts, and the agent is away."""
    box = await stage.box("box")
    id = await stage.running()
    _, kernel = stage.on(id)
    await box.leave()
    box.see(kernel, K.GONE, exit_code=0)
    hello: asyncio.Task[None] | None = None
    gather = notices.Notices.gather

    async def cut(self: Any, *given: Any) -> Any:
        if hello is not None:
            hello.cancel()
        return await gather(self, *given)

    monkeypatch.setattr(notices.Notices, "gather", cut)
    wires: list[Wire] = []

    def wired(box: Box) -> Wire:
        wires.append(Wire(box))
        return wires[-1]

    monkeypatch.setattr("core.tests.manager.stage.Wire", wired)
    hello = asyncio.create_task(box.connect())
    with pytest.raises(asyncio.CancelledError):
        await hello
    hello = None
    await stage.orchestrator.gone(wires[0])
    await stage.context.store.write(lambda tx: asyncio.sleep(0))  # whatever was queued is done
    assert await stage.state(id) == "TERMINATED"
    assert stage.orchestrator._settler.leases.by_session == {} and await stage.connected() == set()


async def test_an_agent_whose_leave_could_not_be_written_is_seen_off_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    id = await stage.running()

    async def fail(*_: Any) -> None:
        raise Failure("unavailable", "The database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(stage.context.store, "write", fail)
        await box.leave()
    assert await stage.connected() == {"box"}
    await stage.look()
    assert await stage.connected() == set()
    await stage.later(200.0)
    assert (await stage.row(id)).reason == "The agent box was lost."


async def test_who_comes_back_while_being_seen_off_is_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    write, comes = stage.context.store.write, [box.connect]

    async def fail(*_: Any) -> None:
        raise Failure("unavailable", "The database does not answer.")

    async def late(job: Any) -> Any:
        if comes:
            await comes.pop()()
        return await write(job)

    monkeypatch.setattr(stage.context.store, "write", fail)
    await box.leave()
    monkeypatch.setattr(stage.context.store, "write", late)
    await stage.orchestrator.look_once()
    assert not comes and await stage.connected() == {"box"}


async def test_an_agent_that_could_not_be_told_everything_is_cut_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    assert box.wire is not None

    async def fail(*_: Any) -> None:
        raise Failure("unavailable", "The database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(stage.context.store, "read", fail)
        with pytest.raises(Failure):
            await stage.orchestrator.begin()
    assert "connect anew" in box.wire.closed


async def test_reports_that_could_not_be_written_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box = await stage.box("box")
    id = await stage.running()
    _, kernel = stage.on(id)
    box.see(kernel, K.GONE, exit_code=0)
    box.speak()

    async def fail(*_: Any) -> None:
        raise Failure("unavailable", "The database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(stage.context.store, "write", fail)
        with pytest.raises(Failure):
            await stage.orchestrator.write_reports()
    await stage.look()
    assert await stage.state(id) == "TERMINATED"


async def test_a_ledger_that_is_wrong_is_put_right_at_the_start(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    from backendai.manager.store.schema import agent_slots
    from sqlalchemy import update

    box: Box = await stage.box("box")
    await stage.running(cpu=2)
    true = await stage.ledger()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(agent_slots).values(used=77)))
    await stage.orchestrator.begin()
    assert await stage.ledger() == true
    assert f"{box.id}.cpu" in caplog.text and f"{box.id}.mem" in caplog.text
