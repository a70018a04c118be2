"""The way of a session through the orchestrator, state by state, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.model.session import DEADLINES, SessionState, SessionType
from backendai.wire.link import KernelState as K
from backendai.wire.link import Want

from core.tests.manager.stage import GIB, Stage, orders, refused

S = SessionState
INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


async def test_a_session_lives_from_the_queue_to_its_end(stage: Stage) -> None:
    id = await stage.ask(cpu=2, mem="3g")
    assert await stage.state(id) == "PENDING"
    await stage.look()
    assert (await stage.row(id)).hold == "No agent is connected."
    box = await stage.box("box")
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.agent_id, row.hold, row.deadline) == ("SCHEDULED", box.id, "", stage.now + DEADLINES[S.SCHEDULED])
    assert await stage.ledger() == {(box.id, "cpu"): 2000, (box.id, "mem"): 3 * GIB}
    await stage.see(id, K.ACCEPTED)
    for said, shown in ((K.PREPARING, "PREPARING"), (K.STARTING, "STARTING"), (K.RUNNING, "RUNNING")):
        row = await stage.see(id, said, image="base@1")
        assert row.state == shown
    assert row.image == "base@1" and row.started_at == stage.now and row.deadline is None
    stage.now += 5.0
    row = await stage.see(id, K.EXITED, exit_code=0)
    assert (row.state, row.result, row.exit_code, row.ended_at) == ("TERMINATING", "success", 0, stage.now)
    assert await stage.ledger(), "what it uses is still being removed"
    ended, stage.now = stage.now, stage.now + 2.0
    row = await stage.see(id, K.GONE)
    assert (row.state, row.result, row.exit_code, row.reason, row.ended_at) == ("TERMINATED", "success", 0, "", ended)
    assert await stage.ledger() == {}
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "PREPARING", "STARTING", "RUNNING", "TERMINATING", "TERMINATED"]
    kernel = orders(box)[0].kernel
    assert box.kernels[kernel].dropped, "the agent may forget it"
    assert len(orders(box)) == 1, "what has exited is left alone"


async def test_states_that_were_not_heard_of_are_skipped(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.ask()
    await stage.look()
    row = await stage.see(id, K.GONE, exit_code=0, started_at=stage.now)
    assert (row.state, row.result) == ("TERMINATED", "success")
    assert await stage.told(id) == ["PENDING", "SCHEDULED", "TERMINATED"]


async def test_a_late_or_repeated_word_changes_nothing(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.running()
    row = await stage.row(id)
    for said in (K.PREPARING, K.RUNNING, K.ACCEPTED):
        assert await stage.see(id, said, started_at=row.started_at) == row
    stage.ran.clear()
    await stage.see(id, K.EXITED, exit_code=3)
    row = await stage.row(id)
    assert await stage.see(id, K.RUNNING, exit_code=None) == row
    stage.ran.clear()
    _, kernel = stage.on(id)
    row = await stage.see(id, K.GONE, exit_code=None)
    assert (row.state, row.exit_code, row.result) == ("TERMINATED", 3, "failure"), "an exit code that is known is not forgotten"
    box.see(kernel, K.GONE, exit_code=9)
    await stage.look()
    assert await stage.row(id) == row


async def test_a_command_that_fails_leaves_its_exit_code(stage: Stage) -> None:
    await stage.box("box")
    for code, why, says in ((7, "", "The command ended with 7."), (137, "out-of-memory", "ran out of memory (1g)"),
                            (126, "", "most likely its program cannot be run"), (127, "", "most likely there is no such program")):
        id = await stage.running()
        await stage.see(id, K.EXITED, exit_code=code, why=why)
        row = await stage.see(id, K.GONE)
        assert (row.state, row.result, row.exit_code) == ("TERMINATED", "failure", code) and says in row.reason


async def test_the_end_is_never_before_the_beginning(stage: Stage) -> None:
    """The two times come from two clocks of one machine, or of two."""
    await stage.box("box")
    id = await stage.running()
    begun = (await stage.row(id)).started_at
    row = await stage.see(id, K.EXITED, exit_code=0, ended_at=begun - 3.0)
    assert row.ended_at == begun
    id = await stage.running()
    begun = (await stage.row(id)).started_at
    assert (await stage.see(id, K.GONE, exit_code=0, ended_at=begun - 3.0)).ended_at == begun


async def test_a_time_limit_is_kept_by_the_agent_and_said(stage: Stage) -> None:
    box = await stage.box("box")
    batch, idle = await stage.running(time_limit_s=90.0), await stage.running(time_limit_s=90.0, **INTERACTIVE)
    assert [order.time_limit_s for order in orders(box)] == [90.0, 90.0]
    for id, result in ((batch, "failure"), (idle, "success")):
        row = await stage.see(id, K.GONE, exit_code=143, why="time-limit")
        assert (row.state, row.result, row.reason) == ("TERMINATED", result, "It reached its time limit of 1m30s.")


async def test_the_scheduler_is_told_when_sessions_must_have_ended(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.running(time_limit_s=90.0)
    lease = stage.orchestrator._settler.leases.by_session[id]
    assert lease.ends_by == stage.now + 90.0 and lease.started_at == stage.now


async def test_what_is_ordered_is_what_was_asked_for(stage: Stage) -> None:
    box = await stage.box("box")
    await stage.ask(cpu=1.5, mem="2g", name="mine", command=("echo", "hello"), env={"A": "b"}, grace_s=3.0, workdir="/tmp")
    await stage.look()
    order = orders(box)[0]
    assert (order.name, order.command, order.env, order.slots, order.want) == (
        "mine", ("echo", "hello"), {"A": "b"}, {"cpu": 1500, "mem": 2 * GIB}, Want.RUN)
    assert (order.grace_s, order.workdir, order.idle, order.user) == (3.0, "/tmp", False, (1000, 1000))
    assert order.prepare_s < DEADLINES[S.PREPARING] and order.start_s < DEADLINES[S.STARTING], "the agent gives up first, and says why"


@pytest.mark.parametrize(("reached", "ends", "result"), [
    ((), "CANCELLED", None),
    ((K.ACCEPTED,), "CANCELLED", None),
    ((K.PREPARING,), "CANCELLED", None),
    ((K.PREPARING, K.STARTING), "CANCELLED", None),
    ((K.RUNNING,), "TERMINATED", "success"),
])
async def test_a_stop_ends_as_far_as_it_came(stage: Stage, reached: tuple[K, ...], ends: str, result: str | None) -> None:
    box = await stage.box("box")
    id = await stage.ask(**INTERACTIVE)
    await stage.look()
    for said in reached:
        await stage.see(id, said)
    await stage.stop(id)
    await stage.look()
    row = await stage.row(id)
    assert row.state == "TERMINATING" and row.deadline == stage.now + DEADLINES[S.TERMINATING] + 10.0
    assert orders(box)[-1].want is Want.STOP
    while stage.boxes[0].kernels:
        for kernel in list(box.kernels):
            box.step(kernel)
        await stage.look()
    row = await stage.row(id)
    assert (row.state, row.result) == (ends, result) and row.reason.startswith("It was stopped by its owner")
    assert await stage.ledger() == {}


async def test_a_stop_in_the_queue_cancels(stage: Stage) -> None:
    id = await stage.ask()
    await stage.look()
    await stage.stop(id)
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.result, row.reason, row.hold) == ("CANCELLED", None, "It was stopped by its owner before it ran.", "")
    assert row.ended_at == stage.now and row.started_at is None


async def test_what_fails_to_begin_after_its_stop_was_cancelled_all_the_same(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.ask()
    await stage.look()
    await stage.see(id, K.PREPARING)
    await stage.stop(id)
    row = await stage.see(id, K.GONE, error="There is no image nonesuch:1.", code="no-such-image")
    assert (row.state, row.result, row.reason) == ("CANCELLED", None, "It was stopped by its owner before it ran.")


async def test_a_command_that_ends_before_its_stop_arrives_keeps_its_result(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.running()
    _, kernel = stage.on(id)
    await stage.stop(id)
    box.see(kernel, K.EXITED, exit_code=0)
    await stage.look()
    row = await stage.see(id, K.GONE)
    assert (row.state, row.result, row.exit_code, row.reason) == ("TERMINATED", "success", 0, "")


async def test_a_batch_session_that_is_stopped_has_failed(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.running()
    await stage.stop(id)
    await stage.look()
    await stage.see(id, K.EXITED, exit_code=143, why="stopped")
    row = await stage.see(id, K.GONE)
    assert (row.state, row.result, row.exit_code) == ("TERMINATED", "failure", 143)


async def test_what_the_agent_could_not_start_has_failed_with_its_reason(stage: Stage) -> None:
    await stage.box("box")
    id = await stage.ask()
    await stage.look()
    row = await stage.see(id, K.GONE, error="There is no image nonesuch:1.", code="no-such-image")
    assert (row.state, row.result, row.exit_code, row.reason) == ("FAILED", "failure", None, "There is no image nonesuch:1.")


async def test_a_container_that_is_lost_has_failed_with_the_reason(stage: Stage) -> None:
    box = await stage.box("box")
    for state in (K.EXITED, K.GONE):
        id = await stage.running()
        row = await stage.see(id, state, error="The container was removed by somebody else.", code="runtime-fault")
        if state is K.EXITED:
            assert (row.state, row.result) == ("TERMINATING", "failure")
            row = await stage.see(id, K.GONE)
        assert (row.state, row.result, row.reason) == ("FAILED", "failure", "The container was removed by somebody else.")
    assert all(played.dropped for played in box.kernels.values())


async def test_priority_then_patience(stage: Stage) -> None:
    low, high, early = await stage.ask(priority=1), await stage.ask(priority=50), await stage.ask(priority=50)
    await stage.box("box", cpu=1)
    await stage.look()
    for first in (high, early, low):
        assert await stage.state(first) == "SCHEDULED"
        await stage.see(first, K.GONE, exit_code=0)


async def test_more_than_any_agent_has_is_refused_at_once(stage: Stage) -> None:
    await stage.box("box", cpu=4)
    failure = await refused(lambda: stage.ask(cpu=5))
    assert failure.code == "impossible" and "the most that any has of each" in failure.message
    assert await stage.states() == {}


async def test_a_sick_agent_gets_nothing_new_and_loses_nothing(stage: Stage) -> None:
    box = await stage.box("box")
    runs = await stage.running()
    await box.beat(why="The engine does not answer.")
    id = await stage.ask()
    await stage.look()
    row = await stage.row(id)
    assert (row.state, row.hold) == ("PENDING", "No agent can take it: box: The engine does not answer.")
    assert await stage.state(runs) == "RUNNING"
    await box.beat(why="")
    await stage.look()
    assert await stage.state(id) == "SCHEDULED"


async def test_an_agent_that_shrinks_keeps_what_runs(stage: Stage) -> None:
    box = await stage.box("box", cpu=4)
    ids = [await stage.running(cpu=2) for _ in range(2)]
    await box.beat(capacity={"cpu": 1000, "mem": 16 * GIB})
    waits = await stage.ask(cpu=1)
    await stage.look()
    assert {await stage.state(id) for id in ids} == {"RUNNING"} and await stage.state(waits) == "PENDING"
    for id in ids:
        await stage.see(id, K.GONE, exit_code=0)
    await stage.look()
    assert await stage.state(waits) == "SCHEDULED" and await stage.ledger() == {(box.id, "cpu"): 1000, (box.id, "mem"): GIB}


async def test_a_hold_is_there_at_once_and_follows_what_changes(stage: Stage) -> None:
    await stage.box("box", cpu=4)
    first = await stage.running(cpu=3)
    id, behind = await stage.ask(cpu=2), await stage.ask(cpu=4)
    await stage.look()
    assert (await stage.row(id)).hold == "Waits for 2 cores: the most that one agent has free now is 1 (agent box)."
    assert (await stage.row(behind)).hold == "Waits for 4 cores: the most that one agent has free now is 1 (agent box)."
    await stage.see(first, K.GONE, exit_code=0)
    await stage.later(2.0)
    assert (await stage.row(id)).hold == "" and await stage.state(id) == "SCHEDULED"
    assert (await stage.row(behind)).hold == "Waits for 4 cores: the most that one agent has free now is 2 (agent box)."
