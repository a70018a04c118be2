"""Races that are lost, and failures between two steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager import notices
from backendai.manager.store.nodes import set_capacity
from backendai.model.errors import Failure
from backendai.wire.link import KernelState as K
from backendai.wire.link import Report

from core.tests.manager.stage import GIB, Box, Stage, Wire, orders


async def lose_the_race(stage: Stage, monkeypatch: pytest.MonkeyPatch, between: Any) -> None:
    """Have something happen between the plan and its commit."""
    planner = stage.orchestrator._planners["default"]
    propose, todo = planner.propose, [between]

    async def slowly() -> Any:
        proposal = await propose()
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
    assert stage.orchestrator.pause <= 0.1, "who lost is tried again soon"


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


async def test_an_old_word_does_not_hide_a_newer_one_that_waits_to_be_written(stage: Stage) -> None:
    box = await stage.box("box")
    id = await stage.running()
    kernel = stage.on(id)[1]
    old = box.kernels[kernel].seen
    box.see(kernel, K.GONE, exit_code=0)
    box.speak()
    stage.orchestrator.reported(box.id, Report(1, (old,)))  # it was under way on a link that has ended
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
