"""Which sessions need a network between nodes, and what it shall be: pure functions. The plan is kept with the session as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.spec.network_v10 import NetView, SessionNetwork
from backendai.wire.link import Hello, Peer


def reachable(hello: Hello, plugin: str) -> Hello:
    """Return *hello* without the address of a node where the network plugin does not work: no session may lie there and elsewhere."""
    return hello if plugin in hello.networks else msgspec.structs.replace(hello, address="")


def spans(kernels: Sequence[Peer]) -> bool:
    """Tell whether *kernels* lie on more than one agent, so that they need a network between nodes."""
    return len({kernel.agent for kernel in kernels}) > 1


def plan_for(driver: SessionNetwork, plugin: str, network: str, kernels: Sequence[Peer], addresses: Mapping[str, str],
             taken: Sequence[NetPlan], outward: bool = False, titles: Mapping[str, str] | None = None) -> NetPlan | None:
    """Return the plan of a session's network, None where its kernels lie on one agent.

    driver, plugin: the network plugin and its name. network: unique, such as ``network_name`` makes it. kernels: in order. addresses: by
    agent, as it said in its hello. taken: every plan in force; one of the same name is returned if it is still right, so that asking
    again changes nothing. titles: the agents' names, for people. Raise ``Failure('impossible')`` for an agent without an address.
    """
    if not spans(kernels):
        return None
    hosts = {kernel.host: kernel.agent for kernel in kernels}
    agents = list(dict.fromkeys(hosts.values()))
    if lacking := [agent for agent in agents if not addresses.get(agent)]:
        named = ", ".join((titles or {}).get(agent, agent) for agent in lacking)
        raise Failure("impossible", f"No other node can reach {named}: an agent needs an address (`--address`), and what the network "
                                    f"plugin {plugin} asks for (`bai agents` says what is missing).")
    nodes = {agent: addresses[agent] for agent in agents}
    before = next((plan for plan in taken if plan.network == network), None)
    if before is not None and before.nodes == nodes and before.addresses.keys() == hosts.keys() and before.outward == outward:
        return before
    others = [plan for plan in taken if plan.network != network]
    return replace(driver.plan(NetView(network, hosts, nodes, others, outward)), plugin=plugin)


def network_name(session: str, attempt: int = 1) -> str:
    """Return the name of a session's network; another attempt lies on other agents and is another network."""
    return f"{session.lower()}-{attempt}"


def with_addresses(kernels: Sequence[Peer], plan: NetPlan | None) -> tuple[Peer, ...]:
    """Return *kernels* as their orders tell them: with their addresses where a plan fixes them."""
    return tuple(msgspec.structs.replace(kernel, address=plan.addresses[kernel.host]) if plan else kernel for kernel in kernels)


def to_text(plan: NetPlan) -> str:
    """Write a plan as JSON, to be kept with its session."""
    return msgspec.json.encode(plan).decode()


def from_text(text: str) -> NetPlan:
    """Read what ``to_text`` wrote; raise ``msgspec.DecodeError`` on anything else."""
    return msgspec.json.decode(text, type=NetPlan)
