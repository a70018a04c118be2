"""Choosing addresses and a number: pure."""

from __future__ import annotations

from backendai.model.errors import Failure
from backendai.model.network import NetPlan, free_number, spread, subnets
from backendai.spec.network_v10 import NetView


def make_plan(view: NetView, pool: str, first: int, last: int) -> NetPlan:
    """Return a plan with a subnet of *pool* and a number from *first* to *last* that no plan in force has.

    Every node gets an address, too: an engine lays its own network over the node's bridge and wants one for it.
    """
    subnet = next(subnets(pool, len(view.hosts) + len(view.nodes), view.network, (plan.subnet for plan in view.taken)), None)
    if subnet is None:
        raise Failure("unavailable", f"No subnet of {pool} is free for {len(view.hosts)} kernels; wait until sessions end, or enlarge the "
                                     "pool of network_v10.vxlan.")
    vni = free_number(first, last, view.network, (plan.vni for plan in view.taken))
    if vni is None:
        raise Failure("unavailable", f"All VXLAN numbers from {first} to {last} are taken; wait until sessions end, or allow more.")
    gateways = spread(subnet, list(view.nodes))
    return NetPlan("vxlan", view.network, str(subnet), spread(subnet, list(view.hosts), len(gateways)), dict(view.nodes), gateways, vni,
                   view.outward)
