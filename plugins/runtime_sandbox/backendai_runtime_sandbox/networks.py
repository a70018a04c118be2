"""Networks of sessions: one namespace holds each together, and its containers hang on a bridge in it, each in a namespace of its own.

The namespace lives as long as a small process that holds it (``native/shim.c``, ``hold``), and everything in it goes with it: no interface,
no rule and no mount is ever made on the node itself. An ordinary user's is in a user namespace of its own, and his containers are made
inside that. Where there is no ``ip`` or no bridge can be made, the containers share the one namespace, and the names lead to
addresses of its loopback. Where a network plugin has made a bridge on the node, they hang on that one instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from backendai.model.errors import Failure
from backendai.model.network import spread, subnets
from backendai.spec.runtime_v10 import ContainerSpec, Network, NetworkSpec

from backendai_runtime_sandbox.box import lock_holder
from backendai_runtime_sandbox.build import Shim
from backendai_runtime_sandbox.mends import mend
from backendai_runtime_sandbox.process import run, wait_for_pid

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
BRIDGE = "session"
LOOPBACK = IPv4Network("127.64.0.0/10")  # away from 127.0.0.1, which every container has besides
NO_TOOLS = "it needs root and the programs ip and nsenter (`apt-get install iproute2 util-linux`)"
TRY = rf"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\nlink add try0 type veth peer name try1\nlink delete try0\n"
KILL_S = 10.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A network as it is written down. kind: ``bridge``, ``shared``, or ``node`` for a bridge of the node."""

    name: str
    kind: str
    subnet: str
    addresses: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    outward: bool = False
    bridge: str = BRIDGE
    mtu: int = 0

    def told(self) -> Network:
        return Network(self.name, self.name, dict(self.labels), dict(self.addresses))


@dataclass(frozen=True, slots=True)
class Way:
    """How a container comes into its network. net: what the shim is told (see ``native/shim.c``). own: in a namespace of its own."""

    net: str = ""
    own: bool = True


class Networks:
    """All networks below one folder. pool: where addresses come from; each network is for itself, so they may be used on the node, too."""

    def __init__(self, folder: Path, shim: Shim, privileged: bool, pool: str) -> None:
        self._folder = folder
        self._shim = shim
        self._privileged = privileged
        self._pool = pool
        self._turns: dict[str, asyncio.Lock] = {}
        self._ip, self._nsenter = (shutil.which(name) or "" for name in ("ip", "nsenter"))

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network, or find it and see to it that somebody holds it."""
        if not NAME.fullmatch(spec.name):
            raise Failure("bad-name", f"A network cannot be called {spec.name!r}; use lower-case letters, digits and '-'.")
        async with self._turns.setdefault(spec.name, asyncio.Lock()):
            kept = self._read(spec.name)
            if kept is not None and (kept.kind == "node" or self._holder(spec.name)):
                return kept.told()
            if kept is None:
                await self._discard(spec.name)  # what another process left half made
            try:
                kept = self._on_node(spec) if spec.bridge else await self._held(spec)
                self._write(kept)
            except BaseException:
                await self._discard(spec.name)
                raise
            return kept.told()

    async def remove(self, id: str) -> None:
        """Remove a network and all that is in it. The caller knows that no container is."""
        if not NAME.fullmatch(id) or not (self._folder / id).is_dir():
            return
        async with self._turns.setdefault(id, asyncio.Lock()):
            await self._discard(id)
        self._turns.pop(id, None)

    def find(self, labels: Mapping[str, str]) -> Sequence[Network]:
        """Return the networks that bear all *labels*."""
        return [kept.told() for kept in self._every() if labels.items() <= kept.labels.items()]

    def way(self, spec: ContainerSpec) -> Way:
        """Return how a container comes into the network that it asks for; raise ``Failure('not-found')`` without that network."""
        assert spec.net is not None  # the caller has looked
        kept = self._read(spec.net.network)
        if kept is None:
            raise Failure("not-found", f"There is no network {spec.net.network}; it was removed.")
        if kept.kind == "node":
            return Way(f"0 0 {self._script(kept, spec, f'bs{zlib.crc32(spec.name.encode()):08x}')}", True)
        if (holder := self._holder(kept.name)) is None:
            raise Failure("runtime-fault", "What held the network of this session was killed; ask for the session anew.")
        place = f"{holder} {Path(f'/proc/{holder}/ns/net').stat().st_ino} "
        if kept.kind == "shared":
            if spec.network == "outward":
                raise Failure("unsupported", f"Sessions of several kernels have no way out here: {NO_TOOLS}; ask for a private network.")
            return Way(place, False)
        number = list(kept.addresses.values()).index(spec.net.address) if spec.net.address in kept.addresses.values() else 0
        return Way(place + self._script(kept, spec, f"host{number}"), True)

    async def sweep(self) -> None:
        """Remove what was left half made."""
        for folder in self._folder.iterdir():
            if self._read(folder.name) is None:
                await self.remove(folder.name)

    async def _discard(self, name: str) -> None:
        """End who holds a network, and delete its folder."""
        if (holder := self._holder(name)) is not None:
            ended = wait_for_pid(holder)
            try:
                os.kill(holder, signal.SIGKILL)
                await asyncio.wait([ended], timeout=KILL_S)
            except ProcessLookupError:
                pass  # it has just ended
            finally:
                ended.cancel()
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _on_node(self, spec: NetworkSpec) -> Kept:
        if not (self._privileged and self._ip and self._nsenter):
            raise Failure("unsupported", f"The sandbox cannot connect containers to a bridge of the node: {NO_TOOLS}.")
        return Kept(spec.name, "node", spec.subnet, spec.addresses, spec.labels, spec.outward, spec.bridge, spec.mtu)

    async def _held(self, spec: NetworkSpec) -> Kept:
        folder = self._folder / spec.name
        folder.mkdir(mode=0o700, exist_ok=True)
        maps = ("", "") if self._privileged else (f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1")
        code, said = await run([*self._shim.argv, "hold", str(folder), *maps], self._shim.program)
        if code:
            raise Failure("runtime-fault", mend(said), detail=said)
        if not await self._bridged(spec.name):
            addresses = spread(LOOPBACK, spec.hosts, 1)
            return Kept(spec.name, "shared", str(LOOPBACK), addresses, spec.labels, spec.outward)
        subnet = next(subnets(self._pool, len(spec.hosts), spec.name), None)
        if subnet is None:
            raise Failure("unavailable", f"The pool {self._pool} is too small for {len(spec.hosts)} kernels; choose a larger one.")
        return Kept(spec.name, "bridge", str(subnet), spread(subnet, spec.hosts), spec.labels, spec.outward)

    async def _bridged(self, name: str) -> bool:
        """Make the bridge in a namespace that is held; tell whether that works here."""
        holder = self._holder(name)
        if not (self._ip and self._nsenter and holder):
            return False
        script = f"{self._ip} link show {BRIDGE} >/dev/null 2>&1 && exit; printf '{TRY}' | {self._ip} -batch -"
        code, _ = await run([*self._inside(holder), "/bin/sh", "-c", script])
        return code == 0

    def _inside(self, holder: int) -> list[str]:
        users = [] if self._privileged else ["--user", "--preserve-credentials"]
        return [self._nsenter, "--target", str(holder), *users, "--net", "--"]

    def _script(self, kept: Kept, spec: ContainerSpec, link: str) -> str:
        """Return what makes a pair of interfaces, one on the bridge and one in the container, whose first process is $1."""
        assert spec.net is not None  # as above
        prefix, mtu = IPv4Network(kept.subnet).prefixlen, f"mtu {kept.mtu} " if kept.mtu else ""
        inside = (f"{self._ip} address add {spec.net.address}/{prefix} dev eth0 && {self._ip} link set eth0 up")
        return (f"{self._ip} link delete {link} 2>/dev/null; "
                f"{self._ip} link add {link} {mtu}type veth peer name eth0 {mtu}netns $1 && "
                f"{self._ip} link set {link} master {kept.bridge} up && "
                f"{self._nsenter} --target $1 --net -- /bin/sh -c '{inside}'")

    def _holder(self, name: str) -> int | None:
        return lock_holder(self._folder / name / "lock")

    def _every(self) -> Iterator[Kept]:
        for folder in sorted(self._folder.iterdir()):
            if (kept := self._read(folder.name)) is not None:
                yield kept

    def _read(self, name: str) -> Kept | None:
        try:
            return Kept(**json.loads((self._folder / name / "network.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, kept: Kept) -> None:
        folder = self._folder / kept.name
        folder.mkdir(mode=0o700, exist_ok=True)
        fresh = folder / "network.json.tmp"
        fresh.write_text(json.dumps(asdict(kept)))
        fresh.rename(folder / "network.json")
