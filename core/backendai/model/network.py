"""The private network of a session that lies on several nodes, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NetPlan:
    """What every node needs to make its end; the same for all kernels of the session.

    plugin: the ``network_v10`` plugin that planned it and makes it. network: its name, unique in the cluster, ``[a-z0-9-]+``.
    subnet: in CIDR notation. addresses: of each kernel, by host name. nodes: by which address the other nodes reach the node of each
    agent. gateways: the address of each agent's node in this network, by agent. vni: the number that keeps networks apart on the
    wire, 0 where the plugin needs none. outward: the kernels may reach the outside. options: whatever else the plugin needs.
    """

    plugin: str
    network: str
    subnet: str
    addresses: Mapping[str, str]
    nodes: Mapping[str, str]
    gateways: Mapping[str, str] = field(default_factory=dict)
    vni: int = 0
    outward: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
