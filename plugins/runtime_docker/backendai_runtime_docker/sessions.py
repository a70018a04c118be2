"""Networks of sessions: a bridge network of the engine for each, with addresses that are fixed before any container exists.

Docker accepts a container's address only in a subnet that was asked for, so the subnet is chosen here, at a place that the network's name
decides, and the next is tried where the engine or the node's routes have it already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path
from typing import Any

from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.model.network import spread, subnets
from backendai.spec.runtime_v10 import Network, NetworkSpec

from backendai_runtime_docker.engine import Engine, refused

CHANGE_S, ASK_S = 25.0, 10.0
TRIES = 100
ADDRESSES = "ai.backendai.addresses"  # a label: host=address, joined by commas
BRIDGE = "com.docker.network.bridge."
OVERLAPS = ("overlap", "already used", "already being used")
IN_USE = ("active endpoints", "in use", "being used")


class SessionNetworks:
    """The networks of sessions on the engine. pool: where their addresses come from."""

    def __init__(self, engine: Engine, pool: str) -> None:
        self._engine = engine
        self._pool = pool

    async def create(self, spec: NetworkSpec) -> Network:
        """Create a network, or return the one of that name."""
        if (found := await self._find(spec.name)) is not None:
            return found
        try:
            candidates = [IPv4Network(spec.subnet)] if spec.subnet else islice(self._free(spec), TRIES)
            for subnet in candidates:
                if (made := await self._make(spec, subnet)) is not None:
                    return made
        except DockerError as error:
            raise refused(error, "make the session's network") from error
        where = spec.subnet or self._pool
        raise Failure("unavailable", f"No addresses are free in {where} for the network of this session; choose another pool for it.")

    async def remove(self, id: str) -> None:
        """Remove a network; raise ``Failure('unavailable')`` while containers are in it."""
        try:
            await self._engine.ask("DELETE", f"networks/{id}", within_s=CHANGE_S)
        except DockerError as error:
            if error.status == 404:
                return
            if error.status in (403, 409, 500) and any(word in error.message for word in IN_USE):
                raise Failure("unavailable", f"Containers are still in the network {id}.", detail=str(error)) from error
            raise refused(error, "remove the session's network") from error

    async def list(self, labels: Mapping[str, str]) -> Sequence[Network]:
        """Return the networks of sessions that bear all *labels*."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        try:
            rows = await self._engine.get("networks", params={"filters": filters}, within_s=ASK_S)
        except DockerError as error:
            raise refused(error, "list networks") from error
        return [to_network(row) for row in rows if ADDRESSES in (row.get("Labels") or {})]

    async def _find(self, name: str) -> Network | None:
        try:
            found = await self._engine.get(f"networks/{name}", within_s=ASK_S)
        except DockerError as error:
            if error.status == 404:
                return None
            raise refused(error, "look at the session's network") from error
        return to_network(found)

    async def _make(self, spec: NetworkSpec, subnet: IPv4Network) -> Network | None:
        """Make it in *subnet*; return None when somebody has those addresses."""
        body = to_engine(spec, subnet)
        try:
            await self._engine.ask("POST", "networks/create", data=body, within_s=CHANGE_S)
        except DockerError as error:
            if any(word in error.message for word in OVERLAPS) and not spec.subnet:
                return None
            if error.status == 409 and (found := await self._find(spec.name)) is not None:  # someone else has just made it
                return found
            raise
        return to_network(body)

    def _free(self, spec: NetworkSpec) -> Iterable[IPv4Network]:
        return subnets(self._pool, len(spec.hosts) + 1, spec.name, map(str, routes()))


def to_engine(spec: NetworkSpec, subnet: IPv4Network) -> dict[str, Any]:
    """Return the body that makes *spec*. The first address is the node's own, which only a network that leads outward needs."""
    addresses = dict(spec.addresses) or spread(subnet, spec.hosts, 1)
    options = {f"{BRIDGE}enable_icc": "true"}
    if spec.bridge:
        options[f"{BRIDGE}name"] = spec.bridge
    if spec.mtu:
        options["com.docker.network.driver.mtu"] = str(spec.mtu)
    if not spec.outward:
        options[f"{BRIDGE}inhibit_ipv4"] = "true"  # the node itself is no member
    place = {"Subnet": str(subnet), "Gateway": spec.gateway or str(subnet[1])}
    told = ",".join(f"{host}={address}" for host, address in addresses.items())
    return {"Name": spec.name, "Driver": "bridge", "CheckDuplicate": True, "Internal": not spec.outward, "Options": options,
            "Labels": {**spec.labels, ADDRESSES: told}, "IPAM": {"Driver": "default", "Config": [place]}}


def to_network(found: Mapping[str, Any]) -> Network:
    """Return what an inspection, or the body of a creation, says; its name is its id."""
    labels = dict(found.get("Labels") or {})
    pairs = (pair.partition("=") for pair in labels.pop(ADDRESSES, "").split(",") if pair)
    return Network(str(found["Name"]), str(found["Name"]), labels, {host: address for host, _, address in pairs})


def routes(table: Path = Path("/proc/net/route")) -> list[IPv4Network]:
    """Return the networks to which the node has a route, but for the default one: addresses that are not ours to give."""
    found = []
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return []
    for line in lines:
        words = line.split()
        address, mask = (IPv4Address(int(words[at], 16).to_bytes(4, "little")) for at in (1, 7))
        if int(mask):
            found.append(IPv4Network(f"{address}/{mask}", strict=False))
    return found
