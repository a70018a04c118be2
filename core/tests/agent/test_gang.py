"""Several kernels of one session on one agent: their network, their names, their scripts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.model.network import NetPlan
from backendai.model.session import Network
from backendai.spec import hookimpl
from backendai.testing.null_network import NullNetwork
from backendai.wire.link import KernelOrder, KernelState, Peer

SESSION = make_id(7, 7)


def gang(world: Any, size: int = 2, agents: str = "", **more: Any) -> list[KernelOrder]:
    """Return orders for the kernels of one session that are on this agent; agents: one letter for each kernel, a for this one."""
    roles = [("main", 1), *(("sub", number) for number in range(1, size))]
    where = agents or "a" * size
    peers = tuple(Peer(f"{role}{idx}", make_id(at + 1, at + 1), where[at], role, idx) for at, (role, idx) in enumerate(roles))
    orders = [world.order(at + 1, hostname=peer.host, role=peer.role, idx=peer.idx, peers=peers, **more) for at, peer in enumerate(peers)]
    return [msgspec.structs.replace(order, session=SESSION) for order, peer in zip(orders, peers, strict=True) if peer.agent == "a"]


async def test_kernels_of_a_session_share_a_network_that_goes_with_the_last(world: Any) -> None:
    one, two = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one, two)
        await world.manager.until_state(KernelState.RUNNING, one, two)
        ((spec, made),) = world.engine.networks.values()
        assert spec.hosts == ("main1", "sub1") and not spec.outward and not spec.bridge
        for order in (one, two):
            container = world.engine.of(order.kernel).spec
            assert container.net is not None
            assert container.net.network == made.id and container.net.address == made.addresses[order.hostname]
            assert container.hosts == {"main1": "10.0.0.2", "sub1": "10.0.0.3"}
        await world.manager.stop(one)
        await world.manager.until_state(KernelState.GONE, one)
        assert world.engine.networks, "the other still needs it"
        await world.manager.stop(two)
        await world.manager.until_state(KernelState.GONE, two)
        assert not world.engine.networks


async def test_a_kernel_alone_has_no_network_and_nobody_is_asked_for_one(world: Any) -> None:
    order = world.order(1, "exit", "0")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.GONE, order)
    assert "create_network" not in world.engine.calls and "remove_network" not in world.engine.calls


async def test_a_network_that_reaches_out_is_asked_for_as_such(world: Any) -> None:
    one, two = gang(world, network=Network.OUTWARD)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one, two)
        await world.manager.until_state(KernelState.RUNNING, one, two)
        ((spec, _),) = world.engine.networks.values()
        assert spec.outward


async def test_a_network_outlives_the_agent_and_is_removed_by_the_next(world: Any) -> None:
    one, two = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one, two)
        await world.manager.until_state(KernelState.RUNNING, one, two)
    assert len(world.engine.networks) == 1
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.stop(one)
        await world.manager.until_state(KernelState.GONE, one)
        assert len(world.engine.networks) == 1, "what the journal says is remembered"
        await world.manager.stop(two)
        await world.manager.until_state(KernelState.GONE, two)
        assert not world.engine.networks


async def test_a_network_of_a_lost_journal_is_swept_and_a_foreign_one_is_left_alone(world: Any) -> None:
    one, two = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one, two)
        await world.manager.until_state(KernelState.RUNNING, one, two)
    ((spec, made),) = world.engine.networks.values()
    other = type(made)("id-other", "other", {**made.labels, "ai.backendai.agent": "somebody"})
    world.engine.networks["id-other"] = (spec, other)
    for path in (world.data / "kernels").iterdir():
        path.unlink()
    world.manager.orders.clear()
    async with world.agent() as handle:
        await handle.joined()
        await world.poll(lambda: list(world.engine.networks) == ["id-other"])
    del world.engine.networks["id-other"]


async def test_a_network_that_cannot_be_removed_now_is_removed_later(world: Any) -> None:
    one, two = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one, two)
        await world.manager.until_state(KernelState.RUNNING, one, two)
        world.engine.broken["remove_network"] = Failure("unavailable", "It is busy.")
        await world.manager.stop(one)
        await world.manager.stop(two)
        await world.poll(lambda: world.engine.calls.count("remove_network") >= 2)
        del world.engine.broken["remove_network"]
        await world.manager.until_state(KernelState.GONE, one, two)
    assert not world.engine.networks


async def test_a_kernel_that_comes_while_the_network_is_being_removed_gets_one(world: Any) -> None:
    one, two = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one)
        await world.manager.until_state(KernelState.RUNNING, one)
        world.engine.slow["remove_network"] = asyncio.Event()
        await world.manager.stop(one)
        await world.poll(lambda: "remove_network" in world.engine.calls)
        await world.manager.put(two)
        await world.poll(lambda: two.kernel in handle.reconciler.kernels)
        world.engine.slow["remove_network"].set()
        await world.manager.until_state(KernelState.RUNNING, two)
        held = handle.reconciler._node.networks.held
        assert list(held.values()) == [{two.kernel}] and len(world.engine.networks) == 1
        await world.manager.stop(two)
        await world.manager.until_state(KernelState.GONE, two)
        assert not held and not world.engine.networks


async def test_a_runtime_without_networks_refuses_a_session_of_several(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("create_network", "remove_network", "list_networks"):
        monkeypatch.delattr(type(world.runtime), name)
    one, _ = gang(world)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(one)
        gone = await world.manager.until_state(KernelState.GONE, one)
        assert gone.code == "unsupported" and "cannot join containers" in gone.error


def planned(agent: str, plugin: str = "null", size: int = 2) -> NetPlan:
    hosts = {"main1": "10.1.0.4", **{f"sub{number}": f"10.1.0.{4 + number}" for number in range(1, size)}}
    nodes, gateways = {agent: "192.0.2.1", "other": "192.0.2.2"}, {agent: "10.1.0.1", "other": "10.1.0.2"}
    return NetPlan(plugin, "net-1", "10.1.0.0/24", hosts, nodes, gateways)


async def test_a_session_on_several_agents_gets_its_end_of_the_network(world: Any) -> None:
    async with world.agent() as handle:
        network = handle.reconciler._node.networks.drivers["null"]
        await handle.joined()
        (order,) = gang(world, agents="ab", net=planned(handle.id))
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
        ((spec, _),) = world.engine.networks.values()
        assert (spec.subnet, spec.gateway) == ("10.1.0.0/24", "10.1.0.1")
        container = world.engine.of(order.kernel).spec
        assert container.net is not None and container.net.address == "10.1.0.4"
        assert container.hosts == {"main1": "10.1.0.4", "sub1": "10.1.0.5"}, "those on other nodes, too"
        assert await network.attached(handle.id) == ["net-1"]
        await world.manager.stop(order)
        await world.manager.until_state(KernelState.GONE, order)
        assert not world.engine.networks and await network.attached(handle.id) == []


async def test_a_network_plugin_that_does_not_work_here_is_named(world: Any) -> None:
    async with world.agent() as handle:
        await handle.joined()
        (order,) = gang(world, agents="ab", net=planned(handle.id, "toy"))
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.code == "unsupported" and "network plugin toy" in gone.error


async def test_a_plugin_that_cannot_take_part_here_says_why_and_is_not_told(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    async def attached(self: Any, agent: str) -> Sequence[str]:
        raise Failure("unsupported", "This node cannot take part: it needs root.")

    monkeypatch.setattr(NullNetwork, "attached", attached)
    async with world.agent() as handle:
        await handle.joined()
        hello = world.manager.hellos[-1]
        assert hello.networks == () and hello.missing["network-null"] == "This node cannot take part: it needs root."
        (order,) = gang(world, agents="ab", net=planned(handle.id))
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.code == "unsupported" and "it needs root" in gone.error


async def test_an_end_that_nobody_needs_is_taken_away(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: set[tuple[str, str]] = set()
    first = NullNetwork.__init__

    def remembered(self: Any) -> None:
        first(self)
        self._ends = ends  # as a node remembers what was made on it

    monkeypatch.setattr(NullNetwork, "__init__", remembered)
    async with world.agent() as handle:
        ends |= {("left-over", handle.id), ("left-over", "somebody")}
        await handle.joined()
        (order,) = gang(world, agents="ab", net=planned(handle.id))
        await world.manager.put(order)
        await world.manager.until_state(KernelState.RUNNING, order)
    async with world.agent() as handle:
        await handle.joined()
        await world.poll(lambda: ends == {("net-1", handle.id), ("left-over", "somebody")})
        await world.manager.stop(order)
        await world.manager.until_state(KernelState.GONE, order)
    assert ends == {("left-over", "somebody")}


async def test_an_agent_says_how_it_is_reached_what_it_lends_and_what_it_is_called(world: Any) -> None:
    async with world.agent(labels={"zone": "r1"}) as handle:
        await handle.joined()
        hello = world.manager.hellos[-1]
    assert hello.address == "127.0.0.1", "its end of the connection to the manager"
    assert hello.labels == {"zone": "r1"} and "null" in hello.networks
    assert {declared.name for declared in hello.slots} >= {"cpu", "mem"}
    async with world.agent(address="192.0.2.7") as handle:
        await handle.joined()
        assert world.manager.hellos[-1].address == "192.0.2.7"


def boot_folder(world: Any, order: KernelOrder) -> Path:
    (mount,) = (mount for mount in world.engine.of(order.kernel).spec.mounts if mount.target == "/.bai/boot")
    return Path(mount.source)


async def test_a_session_runs_only_once_its_bootstrap_script_has_ended(world: Any) -> None:
    order = world.order(1, bootstrap="echo ready", user=(os.getuid() or 1000, os.getgid() or 1000))
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.STARTING, order)
        await world.poll(lambda: order.kernel in world.manager.observed and f"id-bai-{order.kernel}" in world.engine.boxes)
        folder = boot_folder(world, order)
        await world.poll(lambda: (folder / "script").exists())
        assert (folder / "script").read_text() == "echo ready\n"
        assert world.manager.observed[order.kernel].state is KernelState.STARTING
    async with world.agent() as handle:  # it goes on where another has left off
        await handle.joined()
        (folder / "ended").write_text("0\n")
        seen = await world.manager.until_state(KernelState.RUNNING, order)
        assert seen.started_at is not None


async def test_a_bootstrap_script_that_fails_fails_the_kernel_and_says_so(world: Any) -> None:
    order = world.order(1, bootstrap="false")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.poll(lambda: f"id-bai-{order.kernel}" in world.engine.boxes and boot_folder(world, order).exists())
        await world.poll(lambda: world.engine.of(order.kernel).container.state == "running")
        (boot_folder(world, order) / "ended").write_text("3\n")
        world.engine.end(world.engine.of(order.kernel), 3)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert (gone.code, gone.exit_code) == ("bad-bootstrap", 3) and "failed with status 3" in gone.error
    assert not any(seen.state is KernelState.RUNNING for seen in world.manager.history)


async def test_a_bootstrap_script_that_hangs_is_ended(world: Any) -> None:
    order = world.order(1, bootstrap="sleep 1000", bootstrap_s=0.1)
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.code == "bad-bootstrap" and "did not end within 0.1 s" in gone.error


async def test_stopping_during_the_script_is_no_fault_of_the_script(world: Any) -> None:
    order = world.order(1, bootstrap="sleep 1000")
    async with world.agent() as handle:
        await handle.joined()
        await world.manager.put(order)
        await world.manager.until_state(KernelState.STARTING, order)
        await world.poll(lambda: f"id-bai-{order.kernel}" in world.engine.boxes)
        await world.manager.stop(order)
        gone = await world.manager.until_state(KernelState.GONE, order)
        assert gone.error == ""
