"""States that last too long, one by one, and when the orchestrator wakes up for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager import serve
from backendai.manager.store.placement import look
from backendai.model.errors import Failure
from backendai.model.session import DEADLINES, SessionState, SessionType
from backendai.wire.link import KernelState as K
from backendai.wire.link import Want

from core.tests.manager.stage import Box, Stage, orders

S = SessionState
INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


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


async def test_it_sleeps_until_the_nearest_deadline_and_ten_seconds_at_most(stage: Stage) -> None:
    box = await stage.box("box")
    await stage.ask()
    await stage.look()
    assert stage.orchestrator.pause == 10.0
    await stage.later(DEADLINES[S.SCHEDULED] - 3.0)
    assert stage.orchestrator.pause == pytest.approx(3.0, abs=0.1)
    await box.leave()
    stage.now += 174.0
    for _ in range(2):  # the first one acts on what is due
        await stage.orchestrator.look_once()
    assert stage.orchestrator.pause == pytest.approx(6.0, abs=0.1), "when its agent is lost"


async def test_a_loop_that_fails_begins_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loop, woken by what happens, with a database that is away for a moment."""
    box = await stage.box("box")
    failures = [1, 2]

    async def shaky(*given: Any) -> Any:
        if failures:
            failures.pop()
            raise Failure("unavailable", "The database does not answer.")
        return await look(*given)

    monkeypatch.setattr(serve, "RESTART_S", 0.0)
    monkeypatch.setattr("backendai.manager.orchestrator.look", shaky)
    loop = asyncio.create_task(serve._supervise(stage.context, "orchestrator", stage.orchestrator.run))
    try:
        id = await stage.ask()
        async with asyncio.timeout(20.0):
            await stage.context.bus.until(id, lambda: reached(stage, id, "SCHEDULED"))
            assert not failures
            await box.connect()
            box.hear()
            box.see(orders(box)[0].kernel, K.GONE, exit_code=0)
            box.speak()
            await stage.context.bus.until(id, lambda: reached(stage, id, "TERMINATED"))
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def reached(stage: Stage, id: str, state: str) -> bool | None:
    return True if await stage.state(id) == state else None
