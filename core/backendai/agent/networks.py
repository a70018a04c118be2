"""The networks of sessions that have several kernels: made before the first of them starts here, gone after the last.

Nothing is remembered but what the journal says of the kernels: whatever the runtime or a network plugin has, and no kernel here needs, is
removed. Names are made of the session and its attempt, so that two lives of a session never meet.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from backendai.agent.container import AGENT, CLUSTER, NETWORK, SESSION
from backendai.model.errors import Failure
from backendai.model.session import Network as Reach
from backendai.plugin.errors import PluginFault
from backendai.spec.network_v10 import NetEnd, SessionNetwork
from backendai.spec.runtime_v10 import Endpoint, Network, NetworkSpec, Runtime
from backendai.wire.link import KernelOrder

log = logging.getLogger(__name__)
TURNS = 64  # locks for all networks; two that share one wait for each other now and then


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is among the others of its session. hosts: addresses by name."""

    endpoint: Endpoint
    hosts: Mapping[str, str]


def network_of(order: KernelOrder) -> str:
    """Return the name of the network that a kernel is in, empty for none."""
    if order.net is not None:
        return order.net.network
    return f"{order.session.lower()}-{order.attempt}" if order.peers else ""


@dataclass(slots=True)
class Networks:
    """Every session network of this node.

    drivers: the network plugins by name. agent: our id. held: by network the kernels that need it. lacking: for each plugin that
    cannot make ends on this node, why.
    """

    runtime: Runtime
    drivers: Mapping[str, SessionNetwork]
    agent: str
    held: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    lacking: dict[str, str] = field(default_factory=dict)
    _turns: list[asyncio.Lock] = field(default_factory=lambda: [asyncio.Lock() for _ in range(TURNS)])

    async def look(self) -> None:
        """Find out which plugins can make ends on this node."""
        for plugin, driver in self.drivers.items():
            try:
                await driver.attached(self.agent)
            except (Failure, PluginFault) as error:
                self.lacking[plugin] = str(error)

    def hold(self, order: KernelOrder) -> None:
        """Note that a kernel needs its network, whether that exists or not."""
        if name := network_of(order):
            self.held[name].add(order.kernel)

    async def join(self, order: KernelOrder, cluster: str) -> Place | None:
        """Make the network of *order* unless it is there; return the container's place in it, None without one."""
        if not (name := network_of(order)):
            return None
        create = getattr(self.runtime, "create_network", None)
        if create is None:
            raise Failure("unsupported", "This agent's runtime cannot join containers by a network; use another runtime for this session.")
        async with self._turn(name):
            self.hold(order)
            made: Network = await create(self._spec(order, name, cluster, await self._attach(order)))
        hosts = dict(order.net.addresses) if order.net else dict(made.addresses)
        if order.hostname not in hosts:
            raise Failure("internal", f"The network of this session has no place for {order.hostname}; ask your administrator.")
        return Place(Endpoint(made.id, hosts[order.hostname]), hosts)

    async def leave(self, order: KernelOrder) -> None:
        """Note that a kernel's container is gone; after the last one the network goes, too. To be called again when it fails."""
        if not (name := network_of(order)):
            return
        async with self._turn(name):
            self.held[name].discard(order.kernel)
            if not self.held[name]:
                await self._remove(name, order.net.plugin if order.net else "")
                if not self.held[name]:  # nobody has come meanwhile
                    del self.held[name]

    async def sweep(self) -> None:
        """Remove what no kernel needs. To be called once every kernel is known."""
        found = {network.labels.get(NETWORK, ""): "" for network in await self._list({AGENT: self.agent})}
        for plugin, driver in self._usable().items():
            found |= dict.fromkeys(await driver.attached(self.agent), plugin)
        for name, plugin in found.items():
            async with self._turn(name):
                if not self.held.get(name):
                    log.warning("removing the network %s, which nobody needs", name)
                    await self._remove(name, plugin)

    def _spec(self, order: KernelOrder, name: str, cluster: str, end: NetEnd) -> NetworkSpec:
        labels = {AGENT: self.agent, SESSION: order.session, CLUSTER: cluster, NETWORK: name}
        ours = f"bai-{name}-{self.agent[-6:].lower()}"  # two agents may share an engine
        if (plan := order.net) is None:
            return NetworkSpec(ours, tuple(peer.host for peer in order.peers), labels, order.network is Reach.OUTWARD)
        return NetworkSpec(ours, tuple(plan.addresses), labels, plan.outward, end.bridge, plan.subnet, plan.gateways.get(self.agent, ""),
                           end.mtu, plan.addresses)

    async def _attach(self, order: KernelOrder) -> NetEnd:
        if (plan := order.net) is None:
            return NetEnd()
        if (driver := self._usable().get(plan.plugin)) is None:
            why = self.lacking.get(plan.plugin, "`bai plugin ls` there says why.")
            raise Failure("unsupported", f"The network plugin {plan.plugin} does not work on this agent: {why}")
        return await driver.attach(plan, self.agent)

    async def _remove(self, name: str, plugin: str) -> None:
        for network in await self._list({AGENT: self.agent, NETWORK: name}):
            await self.runtime.remove_network(network.id)
        if plugin and (driver := self._usable().get(plugin)) is not None:
            await driver.detach(name, self.agent)

    def _turn(self, name: str) -> asyncio.Lock:
        """Return the lock under which a network is made and removed."""
        return self._turns[zlib.crc32(name.encode()) % TURNS]

    def _usable(self) -> dict[str, SessionNetwork]:
        return {name: driver for name, driver in self.drivers.items() if name not in self.lacking}

    async def _list(self, labels: Mapping[str, str]) -> list[Network]:
        there = getattr(self.runtime, "list_networks", None)
        return [] if there is None else list(await there(labels))
