"""A network between nodes that carries nothing: for the null runtime, for benchmarks and for trials without rights."""

from __future__ import annotations

from collections.abc import Sequence

from backendai.model.errors import Failure
from backendai.model.network import NetPlan, free_number, spread, subnets
from backendai.spec import hookimpl
from backendai.spec.network_v10 import NetEnd, NetView

POOL = "10.64.0.0/10"
LAST = (1 << 24) - 1


class NullNetwork:
    """The network ``null``. What it has attached is remembered in memory only."""

    def __init__(self) -> None:
        self._ends: set[tuple[str, str]] = set()

    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        """Choose as a real one would."""
        subnet = next(subnets(POOL, len(view.hosts) + len(view.nodes), view.network, (plan.subnet for plan in view.taken)), None)
        vni = free_number(1, LAST, view.network, (plan.vni for plan in view.taken))
        if subnet is None or vni is None:
            raise Failure("unavailable", "Every address for networks of sessions is taken; wait until some have ended.")
        gateways = spread(subnet, list(view.nodes))
        return NetPlan("null", view.network, str(subnet), spread(subnet, list(view.hosts), len(gateways)), dict(view.nodes), gateways, vni,
                       view.outward)

    @hookimpl
    async def attach(self, plan: NetPlan, agent: str) -> NetEnd:
        """Remember it."""
        self._ends.add((plan.network, agent))
        return NetEnd()

    @hookimpl
    async def detach(self, network: str, agent: str) -> None:
        """Forget it."""
        self._ends.discard((network, agent))

    @hookimpl
    async def attached(self, agent: str) -> Sequence[str]:
        """Return what is remembered."""
        return sorted(network for network, of in self._ends if of == agent)
