"""Runtimes that misbehave, devices that are taken, and what the agent makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from backendai.agent import health, life, pump, reconcile, serve
from backendai.agent.output import Output
from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.spec.runtime_v10 import ContainerState
from backendai.wire.link import KernelOrder, KernelState


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses; what is tested is what comes after them."""
    for module, name, seconds in ((pump, "PAUSE_S", 0.02), (life, "PAUSE_S", 0.02), (life, "DRAIN_S", 0.1), (reconcile, "PAUSE_S", 0.02),
                                  (health, "AWAY_S", 0.05), (health, "HUNG_S", 0.1)):
        monkeypatch.setattr(module, name, seconds)


async def text_of(world: Any, order: KernelOrder) -> bytes:
    output = Output(world.data / "logs" / f"{order.kernel}.log", 1 << 20)
    output.done = True
    return b"".join([data async for _, data in output.read(False, None)])


async def test_output_that_cannot_be_had_ends_with_a_word_about_it(world: Any) -> None:
    order = world.order(1, "say", "some", "exit", "3")
    world.engine.broken["logs"] = Failure("runtime-fault", "The log is torn.")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.exit_code == 3 and b"The rest of the output could not be had: The log is torn." in await text_of(world, order)


async def test_output_is_followed_anew_after_the_stream_broke(world: Any) -> None:
    order = world.order(1, "say", "one")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        box = world.engine.of(order.kernel)
        world.engine.broken["logs"] = Failure("unavailable", "Not now.")
        box.cut = True
        box.tell()
        await world.poll(lambda: world.engine.calls.count("logs") > 2)
        box.cut = False
        box.say(b" two")
        world.engine.broken.clear()
        await world.poll(lambda: handle.reconciler.kernels[order.kernel].output.next == 2)
        world.engine.end(box, 0)
        await world.manager.until_state(KernelState.GONE, order)
    assert await text_of(world, order) == b"one two"


async def test_a_follower_that_does_not_notice_the_end_is_replaced(world: Any) -> None:
    order = world.order(1, "say", "one")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.poll(lambda: order.kernel in handle.reconciler.kernels and handle.reconciler.kernels[order.kernel].output.next == 1)
        box = world.engine.of(order.kernel)
        box.output.append((1, b" last"))
        box.container = replace(box.container, state=ContainerState.EXITED, exit_code=0)  # and nobody is told
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.exit_code == 0 and await text_of(world, order) == b"one last"


async def test_a_stop_that_does_not_stop_is_repeated(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        box = world.engine.of(order.kernel)
        world.engine.broken["stop"] = Failure("runtime-fault", "The process does not listen.")
        await world.manager.stop(order)
        await world.poll(lambda: world.engine.calls.count("stop") >= 3)
        assert box.container.state is ContainerState.RUNNING
        world.engine.broken.clear()
        assert (await world.manager.until_state(KernelState.GONE, order)).why == "stopped"


async def test_a_start_that_never_succeeds_fails_at_its_deadline(world: Any) -> None:
    world.engine.broken["start"] = Failure("unavailable", "The engine is busy.")
    order = world.order(1, "exit", "0", start_s=0.3)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.error == "The engine is busy." and not world.engine.boxes and world.engine.calls.count("start") > 1


async def test_a_call_that_does_not_come_back_makes_the_agent_unhealthy(world: Any) -> None:
    fault = PluginFault("runtime_v10.toy", "toys", "list", "no answer within 30 s")
    fault.__cause__ = TimeoutError()
    async with world.agent() as handle:
        await handle.joined()
        world.engine.broken["list"] = fault
        await world.manager.until(lambda: world.manager.beats and "failed (list)" in world.manager.beats[-1].why)
        world.engine.broken.clear()
        await world.manager.until(lambda: not world.manager.beats[-1].why)


async def test_a_registry_that_does_not_answer_fails_the_session_and_not_the_agent(world: Any) -> None:
    world.engine.broken["ensure_image"] = Failure("unavailable", "The registry does not answer.")
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.error == "The registry does not answer." and world.engine.calls.count("ensure_image") == life.TRIES
    assert not any(beat.why for beat in world.manager.beats)


async def test_a_defect_of_the_runtime_is_not_shown_to_the_user(world: Any) -> None:
    world.engine.broken["create"] = ValueError("secret")
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
    assert gone.code == "runtime-fault" and "secret" not in gone.error and "create" in gone.error


async def test_who_finds_devices_taken_waits_until_they_are_free(world: Any) -> None:
    async with world.agent() as handle:
        await handle.joined()
        capacity = world.manager.hellos[0].capacity
        first, second = (world.order(n, "forever", slots={"cpu": capacity["cpu"]}) for n in (1, 2))
        await world.manager.put(first)
        await world.manager.until_state(KernelState.RUNNING, first)
        await world.manager.put(second)
        await world.poll(lambda: any(kernel.failures > 1 for kernel in handle.reconciler.kernels.values()))
        await world.manager.stop(first)
        await world.manager.until_state(KernelState.RUNNING, second)


async def test_without_events_the_slow_look_finds_out(world: Any) -> None:
    order = world.order(1, "forever")
    async with world.agent() as handle:
        await handle.joined()
        world.engine.listeners.clear()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        world.engine.listeners.clear()
        world.engine.end(world.engine.of(order.kernel), 4)
        assert (await world.manager.until_state(KernelState.GONE, order)).exit_code == 4


async def test_a_leftover_that_resists_is_gone_before_its_kernel_is_ordered_again(world: Any) -> None:
    order = world.order(1, "say", "old", "forever")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
    for path in (world.data / "kernels").iterdir():
        path.unlink()
    world.manager.orders.clear()
    world.engine.broken["remove"] = Failure("runtime-fault", "Busy.")
    async with world.agent() as handle:
        await handle.joined()
        await world.poll(lambda: world.engine.calls.count("remove") >= 2)
        await world.manager.put(order)
        await world.manager.until_state(KernelState.ACCEPTED, order)
        world.engine.broken.clear()
        await world.manager.until_state(KernelState.RUNNING, order)
        assert world.engine.calls.count("create") == 2


async def test_ending_the_agent_waits_for_nobody(world: Any) -> None:
    world.engine.slow["ensure_image"] = asyncio.Event()
    order = world.order(1, "exit", "0")
    async with asyncio.timeout(10):
        async with world.agent() as handle:
            await handle.joined()
            await world.manager.put(order)
            await world.manager.until_state(KernelState.PREPARING, order)
    assert not world.engine.boxes


@pytest.mark.parametrize("turns", range(8))
async def test_a_failure_while_the_agent_is_left_is_told_as_what_it_is(world: Any, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    fail, me = asyncio.Event(), asyncio.current_task()

    async def failing(*_: Any) -> None:
        await fail.wait()
        raise ArithmeticError("the clock is wrong")

    monkeypatch.setattr(serve, "_refresh", failing)
    told = False
    try:
        async with world.agent():
            fail.set()
            for _ in range(turns):
                await asyncio.sleep(0)
    except ExceptionGroup as group:
        told = group.subgroup(ArithmeticError) is not None
    assert told or turns < 2  # before that the block may be over first
    assert me is not None and not me.cancelling()
    await asyncio.sleep(0)  # nothing comes after it


async def test_who_ends_the_caller_is_obeyed_even_when_the_agent_fails_too(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = asyncio.Event()

    async def failing(*_: Any) -> None:
        await fail.wait()
        raise ArithmeticError("the clock is wrong")

    async def caller() -> None:
        async with world.agent():
            fail.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(serve, "_refresh", failing)
    task = asyncio.create_task(caller())
    await asyncio.wait_for(fail.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
