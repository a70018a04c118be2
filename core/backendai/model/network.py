"""The private network of a session that lies on several nodes, as plain data, and the arithmetic of choosing one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network


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


def subnets(pool: str, count: int, seed: str, taken: Iterable[str] = ()) -> Iterator[IPv4Network]:
    """Give the subnets of *pool* that hold *count* addresses and touch none of *taken*, beginning at one that *seed* decides.

    Names are spread over the pool so that what one session leaves behind, on a node that was cut off, meets no other one soon.
    """
    whole = IPv4Network(pool)
    prefix = 32 - max(3, (count + 1).bit_length())  # the first and the last address belong to nobody
    if prefix < whole.prefixlen:
        return
    blocks, size = 1 << (prefix - whole.prefixlen), 1 << (32 - prefix)
    others = [_reach(subnet) for subnet in taken]
    first, base = zlib.crc32(seed.encode()) % blocks, int(whole.network_address)
    for number in range(blocks):
        start = base + (first + number) % blocks * size
        if not any(start < end and begin < start + size for begin, end in others):
            yield IPv4Network((start, prefix))


def _reach(subnet: str) -> tuple[int, int]:
    """Return the first address of a subnet and the first one after it, as numbers; ``ipaddress`` takes ten times as long."""
    address, _, prefix = subnet.partition("/")
    start = 0
    for part in address.split("."):
        start = start << 8 | int(part)
    return start, start + (1 << (32 - int(prefix)))


def spread(subnet: IPv4Network, names: Sequence[str], skip: int = 0) -> dict[str, str]:
    """Give each of *names* an address of *subnet*, in order; skip: so many at the beginning."""
    return {name: str(subnet[1 + skip + number]) for number, name in enumerate(names)}


def free_number(first: int, last: int, seed: str, taken: Iterable[int]) -> int | None:
    """Return a number from *first* to *last* that is not *taken*, near one that *seed* decides; None when there is none."""
    used, count = set(taken), last - first + 1
    start = zlib.crc32(seed.encode()) % count
    return next((first + (start + step) % count for step in range(count) if first + (start + step) % count not in used), None)
