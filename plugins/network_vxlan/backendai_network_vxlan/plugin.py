"""The wiring of the network ``vxlan``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from backendai.model.network import NetPlan
from backendai.spec import hookimpl
from backendai.spec.network_v10 import NetEnd, NetView

from backendai_network_vxlan.ends import Ends
from backendai_network_vxlan.plan import make_plan


class Vxlan:
    """One VXLAN for each session that lies on several nodes."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        pool: addresses for networks of sessions; must be free on every node. vni_first, vni_last: the numbers that may be used on the
        wire. port: UDP; the nodes must let it through to one another. mtu: inside the networks; 0 for what fits through this node's.
        """

        pool: str = "10.224.0.0/13"
        vni_first: int = 4096
        vni_last: int = (1 << 24) - 1
        port: int = 4789
        mtu: int = 0

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()
        self._ends = Ends(self._config.port, self._config.mtu)

    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        return make_plan(view, self._config.pool, self._config.vni_first, self._config.vni_last)

    @hookimpl
    async def attach(self, plan: NetPlan, agent: str) -> NetEnd:
        return await asyncio.to_thread(self._ends.attach, plan, agent)

    @hookimpl
    async def detach(self, network: str, agent: str) -> None:
        await asyncio.to_thread(self._ends.detach, network, agent)

    @hookimpl
    async def attached(self, agent: str) -> Sequence[str]:
        return await asyncio.to_thread(self._ends.attached, agent)
