"""How the kernels of one session reach each other when they lie on several nodes.

The manager asks the plugin for a plan, keeps it with the session and gives it to every agent concerned; there the same plugin makes
the node's end: a bridge to which the runtime connects the session's containers. Where all kernels of a session lie on one node, no
plugin is asked: the runtime has a network of its own for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backendai.model.network import NetPlan
from backendai.spec import Arity, Spec, hook


@dataclass(frozen=True, slots=True)
class NetView:
    """What a plan depends on.

    network: its name, unique in the cluster. hosts: the host name of each kernel to the agent that has it, in order. nodes: for each of
    these agents the address by which the others reach its node. taken: the plans in force. outward: the kernels may reach the outside.
    """

    network: str
    hosts: Mapping[str, str]
    nodes: Mapping[str, str]
    taken: Sequence[NetPlan] = ()
    outward: bool = False


@dataclass(frozen=True, slots=True)
class NetEnd:
    """A node's end of a network. bridge: the interface to which containers are connected, empty for none. mtu: bytes, 0 for the usual."""

    bridge: str = ""
    mtu: int = 0


class SessionNetwork:
    """A way to join nodes for one session."""

    @hook(first=True, deadline_s=1.0)
    def plan(self, view: NetView) -> NetPlan:
        """Choose addresses, and whatever else keeps this network apart from those that are taken.

        A pure function, called on the manager. Raise ``Failure('unavailable')`` when nothing is left to choose from.
        """
        raise NotImplementedError

    @hook(first=True, deadline_s=30.0)
    async def attach(self, plan: NetPlan, agent: str) -> NetEnd:
        """Make the end of the node of *agent*, or find it made, and return it."""
        raise NotImplementedError

    @hook(first=True, deadline_s=30.0)
    async def detach(self, network: str, agent: str) -> None:
        """Remove the end that was made for *agent*; nothing happens when there is none."""
        raise NotImplementedError

    @hook(first=True, deadline_s=10.0)
    async def attached(self, agent: str) -> Sequence[str]:
        """Return the names of the networks of which an end was made for *agent* on this node, whoever made it.

        Raise ``Failure('unsupported')``, with what to do, where this node can have no end.
        """
        raise NotImplementedError


SPEC = Spec("network", 10, SessionNetwork, Arity.ONE)
