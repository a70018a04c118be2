"""The laws of a network between nodes.

Its plans are tried on sessions of all shapes. Its ends are tried on this machine, with a session whose only node it is; where the
plugin says that it cannot make one here (``Failure('unsupported')``), those laws are not tried.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

from backendai.model.network import NetPlan
from backendai.spec.network_v10 import SPEC, NetEnd, NetView, SessionNetwork
from backendai.testing.examples import for_all
from backendai.testing.laws import Conformance, ensure, law
from backendai.testing.watch import watching

AGENT, OTHER = "bai-kit-agent", "bai-kit-other"
HERE = "127.0.0.1"
MANY = 200


class NetworkConformance(Conformance[SessionNetwork]):
    """What a network between nodes keeps to."""

    spec = SPEC

    @law()
    async def test_a_plan_has_an_address_for_everyone(self, network: SessionNetwork) -> None:
        """A plan gives every kernel, and every node that has one, an address of its own within the subnet."""

        def holds(view: NetView) -> None:
            plan: Any = network.plan(view)
            ensure(isinstance(plan, NetPlan), f"it returned {type(plan).__name__} and no plan")
            ensure(plan.addresses.keys() == view.hosts.keys(), f"asked for {', '.join(view.hosts)} it planned {', '.join(plan.addresses)}")
            subnet = IPv4Network(plan.subnet)
            given = [IPv4Address(address) for address in (*plan.addresses.values(), *plan.gateways.values())]
            ensure(len(set(given)) == len(given), "two of them have one address")
            outside = [str(one) for one in given if one not in subnet or one in (subnet[0], subnet[-1])]
            ensure(not outside, f"{', '.join(outside)} cannot be had in {subnet}")

        for_all(make_view, holds)

    @law()
    async def test_a_plan_is_of_its_view(self, network: SessionNetwork) -> None:
        """A plan bears the network's name and tells the nodes and the way out as they were asked for."""

        def holds(view: NetView) -> None:
            plan = network.plan(view)
            ensure((plan.network, dict(plan.nodes), plan.outward) == (view.network, dict(view.nodes), view.outward),
                   f"asked for {view.network} on {dict(view.nodes)} it planned {plan.network} on {dict(plan.nodes)}")

        for_all(make_view, holds)

    @law()
    async def test_networks_are_apart(self, network: SessionNetwork) -> None:
        """No two networks in force share an address or a number on the wire."""
        random, taken = Random(4), list[NetPlan]()
        for _ in range(MANY):
            view = replace(make_view(random), taken=tuple(taken))
            plan = network.plan(view)
            for other in taken:
                ensure(not IPv4Network(plan.subnet).overlaps(IPv4Network(other.subnet)), f"{plan.subnet} and {other.subnet} overlap")
                ensure(not plan.vni or plan.vni != other.vni, f"two have the number {plan.vni}")
            taken.append(plan)

    @law()
    async def test_same_view_same_plan(self, network: SessionNetwork) -> None:
        """The same view gives the same plan."""

        def holds(view: NetView) -> None:
            first, second = network.plan(view), network.plan(view)
            ensure(first == second, f"it planned {first}, then {second}")

        for_all(make_view, holds)

    @law()
    async def test_planning_is_pure(self, network: SessionNetwork) -> None:
        """Planning looks at no clock, no file, no connection and no unseeded dice."""

        def holds(view: NetView) -> None:
            with watching() as seen:
                network.plan(view)
            ensure(not seen, f"it called {seen[0] if seen else ''}")

        for_all(make_view, holds)

    @law()
    async def test_attaching_again_changes_nothing(self, network: SessionNetwork) -> None:
        """Attaching a node that is attached gives the same end."""
        async with _attached(network) as (plan, first):
            again = await network.attach(plan, AGENT)
            ensure(isinstance(again, NetEnd) and again == first, f"attached it gave {first}, and again {again}")

    @law()
    async def test_what_is_attached_is_told(self, network: SessionNetwork) -> None:
        """What was made for an agent is told to that agent and to no other."""
        async with _attached(network) as (plan, _):
            ensure(plan.network in await network.attached(AGENT), "a network that is attached is not told")
            ensure(plan.network not in await network.attached(OTHER), "it told an agent of what was made for another")

    @law()
    async def test_detaching_leaves_nothing(self, network: SessionNetwork) -> None:
        """What is detached is no longer told, and detaching it again, or what never was there, does nothing."""
        async with _attached(network) as (plan, _):
            for _ in range(2):
                await network.detach(plan.network, AGENT)
                ensure(plan.network not in await network.attached(AGENT), "a network that was detached is told")


@asynccontextmanager
async def _attached(network: SessionNetwork) -> AsyncIterator[tuple[NetPlan, NetEnd]]:
    """Give a network of this node alone, and take it down in any case."""
    plan = network.plan(NetView(f"bai-kit-{secrets.token_hex(6)}", {"main1": AGENT, "sub1": AGENT}, {AGENT: HERE}))
    try:
        yield plan, await network.attach(plan, AGENT)
    finally:
        await network.detach(plan.network, AGENT)


def make_view(random: Random) -> NetView:
    """Make a session of some kernels on some agents."""
    agents = [f"agent{number}" for number in range(random.randint(1, 5))]
    hosts = {f"{'main' if number == 0 else 'sub'}{number or 1}": random.choice(agents) for number in range(random.randint(1, 40))}
    used = [agent for agent in agents if agent in hosts.values()]
    nodes = {agent: f"192.0.2.{int(agent.removeprefix('agent')) + 1}" for agent in used}
    return NetView(f"net-{random.getrandbits(40):010x}", hosts, nodes, (), random.random() < 0.5)
