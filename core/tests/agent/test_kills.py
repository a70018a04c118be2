"""The agent dies between any two lines: the command runs at most once, and nothing is lost, stuck or left behind."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from backendai.agent import journal as module
from backendai.model.errors import Failure
from backendai.wire.link import KernelState, Peer

WRITES = ("_append", "replace")  # the journal's two ways to write


class Killed(BaseException):
    """The process is no more."""


class Fate:
    """Count the points at which the agent could die, and let it die at the n-th: from then on every point is death."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.points = 0

    def point(self) -> None:
        self.points += 1
        if self.at is not None and self.points > self.at:
            raise Killed


def arrange(world: Any, monkeypatch: pytest.MonkeyPatch, fate: Callable[[], Fate]) -> None:
    """Put a point before and after every call of the engine, and before and after every entry of the journal."""
    call = world.engine.enter

    def mortal(write: Callable[..., None]) -> Callable[..., None]:
        def writing(path: Any, data: bytes, fsync: bool = False) -> None:
            if path.parent.name == "kernels":
                fate().point()
            write(path, data, fsync)
            if path.parent.name == "kernels":
                fate().point()

        return writing

    async def enter(hook: str) -> None:
        if hook not in ("list", "probe", "stats", "events"):
            fate().point()
        elif fate().at is not None and fate().points > (fate().at or 0):
            raise Killed
        await call(hook)

    for name in WRITES:
        monkeypatch.setattr(module, name, mortal(getattr(module, name)))
    monkeypatch.setattr(world.engine, "enter", enter)
    for hook in ("create", "start", "stop", "remove", "create_network", "remove_network"):
        monkeypatch.setattr(world.runtime, hook, after(getattr(world.runtime, hook), lambda: fate().point()))


def after(hook: Any, point: Callable[[], None]) -> Any:
    """Return *hook* with a point once its work is done and before its answer is heard, with its own signature."""
    @functools.wraps(hook)
    async def call(*arguments: Any) -> Any:
        answer = await hook(*arguments)
        point()
        return answer

    return call


async def live(world: Any, orders: list[Any], stops: bool) -> None:
    """Run one agent until the kernels are gone and forgotten, or it dies."""
    async with world.agent(resync_s=0.05) as handle:
        await handle.joined()
        while True:
            for order in orders:
                seen = world.manager.observed.get(order.kernel)
                if stops and seen is not None and seen.state is KernelState.RUNNING:
                    await world.manager.stop(order)
                if seen is not None and seen.state is KernelState.GONE and order.kernel in world.manager.orders:
                    world.ended = seen
                    await world.manager.drop(order.kernel)
            if not world.manager.orders and not world.left():
                return
            await asyncio.sleep(0.005)


def gang(world: Any, number: int) -> list[Any]:
    """Return orders for two kernels of one session."""
    one, two = world.order(2 * number, "exit", "7"), world.order(2 * number + 1, "exit", "7")
    peers = (Peer("main1", one.kernel, "a", "main", 1), Peer("sub1", two.kernel, "a", "sub", 1))
    return [msgspec.structs.replace(order, session=one.session, peers=peers, hostname=peer.host)
            for order, peer in zip((one, two), peers, strict=True)]


async def test_a_gang_survives_a_death_at_any_point_and_leaves_no_network(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fates: list[Fate] = [Fate(None)]
    arrange(world, monkeypatch, lambda: fates[-1])
    number, died = 0, True
    while died:
        number += 1
        orders = gang(world, number)
        world.manager.orders = {order.kernel: order for order in orders}
        world.manager.observed.clear()
        starts = world.engine.calls.count("start")
        fates.append(Fate(number - 1))
        async with asyncio.timeout(20):
            try:
                await live(world, orders, False)
                died = False
            except BaseExceptionGroup as group:
                assert group.subgroup(Killed), group
                fates.append(Fate(None))
                await live(world, orders, False)
        assert (world.ended.exit_code, world.ended.error) == (7, ""), number
        assert world.engine.calls.count("start") - starts <= 4
        assert not world.left(), "its network, too"
    assert number > 30


@pytest.mark.parametrize("stops", [False, True])
async def test_a_death_at_any_point_is_survived(world: Any, monkeypatch: pytest.MonkeyPatch, stops: bool) -> None:
    fates: list[Fate] = [Fate(None)]
    arrange(world, monkeypatch, lambda: fates[-1])
    number, deaths = 0, 0
    while True:
        number += 1
        order = world.order(number) if stops else world.order(number, "say", "whole", "exit", "7")
        world.manager.orders = {order.kernel: order}
        world.manager.observed.clear()
        starts = world.engine.calls.count("start")
        fates.append(Fate(number - 1))
        async with asyncio.timeout(20):
            try:
                await live(world, [order], stops)
                died = False
            except BaseExceptionGroup as group:
                assert group.subgroup(Killed), group
                died = True
                deaths += 1
                fates.append(Fate(None))
                await live(world, [order], stops)
        assert world.ended.kernel == order.kernel and (world.ended.exit_code, world.ended.error) == (143 if stops else 7, ""), number
        assert world.engine.calls.count("start") - starts <= 2
        assert not world.left()
        if not stops:
            assert b"whole" in (world.data / "logs" / f"{order.kernel}.log").read_bytes()
        if not died:
            break
    assert deaths > 15


async def test_a_failure_of_its_own_disk_is_not_the_end(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order = world.order(1, "say", "x", "exit", "0")
    full = True

    def bounded(write: Callable[..., None]) -> Callable[..., None]:
        def writing(path: Any, data: bytes, fsync: bool = False) -> None:
            if full and path.parent.name == "kernels":
                raise OSError(28, "No space left on device")
            write(path, data, fsync)

        return writing

    for name in WRITES:
        monkeypatch.setattr(module, name, bounded(getattr(module, name)))
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until(lambda: any("No space left" in hello.why for hello in world.manager.hellos)
                                  or any("No space left" in beat.why for beat in world.manager.beats))
        full = False
        assert (await world.manager.until_state(KernelState.GONE, order)).exit_code == 0


async def test_a_death_of_the_engine_in_the_middle_of_a_call_is_survived(world: Any) -> None:
    orders = [world.order(n, "say", "x", "exit", "0") for n in range(1, 6)]
    async with world.agent() as handle:
        await handle.joined()
        for hook in ("ensure_image", "create", "start", "logs", "remove"):
            world.engine.broken[hook] = Failure("unavailable", "The engine went away.")
        await world.manager.put(*orders)
        for hook in list(world.engine.broken):
            calls = world.engine.calls.count(hook)
            await world.poll(lambda hook=hook, calls=calls: world.engine.calls.count(hook) > calls)
            del world.engine.broken[hook]
        await world.manager.until_state(KernelState.GONE, *orders)
        assert {world.manager.observed[order.kernel].exit_code for order in orders} == {0}
