"""The life of containers: created as a folder, started by a shim, ended by signals, removed with all that was theirs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import signal as signals
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState, Limits

from backendai_runtime_sandbox import seccomp
from backendai_runtime_sandbox.box import FRESH, GONE, Box, Record, boxes
from backendai_runtime_sandbox.build import Shim
from backendai_runtime_sandbox.cgroup import Cgroups
from backendai_runtime_sandbox.config import Config, Folders
from backendai_runtime_sandbox.mends import mend
from backendai_runtime_sandbox.networks import Networks, Way
from backendai_runtime_sandbox.plan import MADE, Ground, environment, files, make_plan, packed, prepare_layer, refuse
from backendai_runtime_sandbox.process import run, wait_for_pid

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
NO_WAY_OUT = "it needs slirp4netns (`apt-get install slirp4netns`) and access to /dev/net/tun (`chmod 666 /dev/net/tun`)"
STARTS = 20  # at once
TRIAL = {"ai.backendai.sandbox": "trial"}  # labels of the containers by which a node is tried
AGAIN_S = 0.5  # between two tries to kill
KILL_S = 30.0  # a killed container is gone within microseconds, unless it hangs in the kernel


@dataclass(frozen=True, slots=True)
class Node:
    """What this node offers. privileged: we are root. slirp: path of slirp4netns, empty without. overlay: overlays work here."""

    shim: Shim
    privileged: bool
    cgroups: Cgroups
    overlay: bool
    slirp: str


class Engine:
    """All containers below one folder."""

    def __init__(self, config: Config, folders: Folders, node: Node) -> None:
        self.config = config
        self.folders = folders
        self.node = node
        self.networks = Networks(folders.networks, node.shim, node.privileged, config.pool)
        self._starting = asyncio.Semaphore(STARTS)
        self._turn: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, Box] = {}
        self._lock: int | None = None

    def box(self, id: str) -> Box:
        """Return a container's folder; raise ``Failure('not-found')`` without one."""
        box = self._known.get(id) or Box(self.folders.containers / id)
        if not NAME.fullmatch(id) or not box.exists:
            self._known.pop(id, None)
            raise Failure("not-found", f"There is no container {id}.")
        return self._known.setdefault(id, box)

    def create(self, spec: ContainerSpec, rootfs: Path | None) -> str:
        """Put a container's folder there, with its plan."""
        if not NAME.fullmatch(spec.name):
            raise Failure("bad-name", f"A container cannot be called {spec.name!r}; use lower-case letters, digits and '-'.")
        box = Box(self.folders.containers / spec.name)
        if box.exists:
            return spec.name
        refuse(spec, self.node.privileged)
        if spec.network == "outward" and not self.node.slirp:
            raise Failure("unsupported", f"There is no way out of a sandbox here: {NO_WAY_OUT}; or ask for a private network.")
        if not spec.argv:
            raise Failure("bad-image", f"The image {spec.image} runs nothing by itself; say which command to run.")
        layer = Path(spec.scratch) if spec.scratch else box.folder / "layer"
        ground = self._ground(spec, rootfs, layer, box.folder)
        plan = packed(make_plan(spec, ground))
        fresh = box.begin(Record(
            name=spec.name, image=spec.image, user=spec.user, workdir=spec.workdir, layer=str(layer), filter=ground.filter,
            limits=spec.limits, enforced=tuple(ground.enforced), groups=ground.groups, made=MADE, gids=spec.edits.gids, cpus=ground.cpus,
            env=environment(spec), labels=spec.labels, network=spec.net.network if spec.net else ""))
        prepare_layer(ground, spec, layer if spec.scratch else fresh / "layer")
        box.finish(fresh, plan, files(spec, ground))
        return spec.name

    async def start(self, id: str) -> None:
        """Run it, unless it runs or has run."""
        async with self._turn[id], self._starting:
            box = self.box(id)
            if box.look().state is not ContainerState.CREATED:
                return
            try:
                self.node.cgroups.make(id, box.record.limits)
            except OSError as error:
                raise Failure("runtime-fault", f"The limits could not be set: {error.strerror}; ask your administrator to look at the "
                                               "cgroups of this node.", detail=str(error)) from error
            shim = self.node.shim
            code, said = await run([*shim.argv, "run", str(box.folder)], shim.program)
            if code:
                box.complain(mend(said))
                raise Failure("runtime-fault", mend(said), detail=said)

    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        """Signal, wait, kill."""
        try:
            box = self.box(id)
            shim = box.shim()
        except (Failure, OSError):
            return
        if shim is None:
            return
        ended = wait_for_pid(shim)
        try:
            if self._signal(box, number(signal)) and grace_s > 0:
                await asyncio.wait([ended], timeout=grace_s)
            if not ended.done():
                await self._kill(box, shim)
        finally:
            ended.cancel()

    async def remove(self, id: str) -> None:
        """Remove it and everything that was made for it."""
        if not NAME.fullmatch(id):
            return
        async with self._turn[id]:
            box = Box(self.folders.containers / id)
            gone = box.folder.with_name(GONE + id)
            if box.exists:
                if (shim := box.shim()) is not None:
                    await self._kill(box, shim)
                shutil.rmtree(gone, ignore_errors=True)
                box.folder.rename(gone)
            self._known.pop(id, None)
            if gone.is_dir():
                await self._clear(gone)
        if not self._turn[id].locked():
            self._turn.pop(id, None)

    def list(self, labels: Mapping[str, str]) -> list[Container]:
        """Return every container that bears all *labels*."""
        found = []
        for box in boxes(self.folders.containers):
            known = self._known.setdefault(box.name, box)
            try:
                if labels.items() <= known.record.labels.items():
                    found.append(known.look())
            except FileNotFoundError:  # removed in between
                self._known.pop(box.name, None)
        return found

    async def remove_network(self, id: str) -> None:
        """Remove a network of a session; raise ``Failure('unavailable')`` while containers are in it."""
        if any(box.record.network == id for box in boxes(self.folders.containers)):
            raise Failure("unavailable", f"Containers are in the network {id}; remove them first.")
        await self.networks.remove(id)

    def images_in_use(self) -> set[str]:
        """Return the images that containers were created from."""
        return {box.record.image for box in boxes(self.folders.containers)}

    async def sweep(self) -> None:
        """Finish what an earlier process left half made or half removed, unless such a process lives."""
        lock = os.open(self.folders.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return
        self._lock = lock
        for folder in self.folders.containers.iterdir():
            if folder.name.startswith((FRESH, GONE)):
                await self._clear(folder)
        for container in self.list(TRIAL):
            await self.remove(container.id)
        await self.networks.sweep()
        await delete([folder for folder in self.folders.images.glob(".new-*") if not _lives(folder.name.split("-")[1])])

    def close(self) -> None:
        """Let others sweep."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _clear(self, folder: Path) -> None:
        try:
            record = Box(folder).record
        except (OSError, ValueError):  # it was never whole
            record = None
        name = folder.name.removeprefix(GONE).removeprefix(FRESH)
        await self.node.cgroups.remove(name)
        if record is not None:
            layer = Path(record.layer)
            if not layer.is_relative_to(folder.with_name(name)):
                await delete([layer / part for part in record.made])
        await delete([folder])

    async def _kill(self, box: Box, shim: int) -> None:
        ended = wait_for_pid(shim)
        until = time.monotonic() + KILL_S
        self.node.cgroups.hurry(box.name)
        try:
            while not ended.done() and time.monotonic() < until:
                if not self._signal(box, signals.SIGKILL) and box.shim() == shim and not box.running:
                    os.kill(shim, signals.SIGKILL)  # it has not got as far as a container
                await asyncio.wait([ended], timeout=AGAIN_S)
            if ended.done():
                return
        finally:
            ended.cancel()
        raise Failure("runtime-fault", f"The container {box.name} does not end, though it was killed; its processes hang in the "
                                       "node's kernel. Ask your administrator to look at the node.")

    def _signal(self, box: Box, number: int) -> bool:
        """Send a signal to the first process; tell whether there is one. The number may have been given to another process since."""
        if (first := box.first()) is None:
            return False
        try:
            pidfd = os.pidfd_open(first[0])
        except ProcessLookupError:
            return True  # it has ended; the shim is about to say so
        try:
            if parent_of(first[0]) == first[1]:
                signals.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass  # as above
        finally:
            os.close(pidfd)
        return True

    def _ground(self, spec: ContainerSpec, rootfs: Path | None, layer: Path, box: Path) -> Ground:
        node, cgroups = self.node, self.node.cgroups
        cpus = None if "cpu" in cgroups.parents else pick_cpus(spec.limits, spec.name)
        way = self.networks.way(spec) if spec.net is not None else Way()
        return Ground(
            rootfs=rootfs, layer=layer, box=box, privileged=node.privileged, uid=os.geteuid(), gid=os.getegid(),
            groups=tuple(map(str, cgroups.of(spec.name))), oom=cgroups.events(spec.name), enforced=frozenset(cgroups.parents),
            filter=self._filter(cpus is not None) if spec.seccomp else "", slirp=node.slirp, overlay=node.overlay,
            log_limit=self.config.log_limit, share=self.config.share, hide=(str(self.folders.root), *self.config.hide), cpus=cpus,
            net=way.net, own_net=way.own)

    def _filter(self, pinned: bool) -> str:
        """Return the file with the seccomp program."""
        program = seccomp.program(seccomp.MACHINES[os.uname().machine], pinned)
        path = self.folders.programs / f"filter-{zlib.crc32(program):08x}"
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            fresh.write_bytes(program)
            fresh.rename(path)
        return str(path)


def _lives(pid: str) -> bool:
    return Path("/proc", pid).exists()


def pick_cpus(limits: Limits, name: str) -> tuple[int, ...] | None:
    """Choose whole cores for a container that no cgroup limits; None where it may have all. Names spread containers over cores."""
    every = sorted(os.sched_getaffinity(0))
    count = 0 if limits.cpu is None else max(1, -(-limits.cpu // 1000))
    if not 0 < count < len(every):
        return None
    first = zlib.crc32(name.encode()) % len(every)
    return tuple(sorted((every * 2)[first:first + count]))


def parent_of(pid: int) -> int | None:
    """Return a process's parent."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def number(signal: str) -> int:
    """Return a signal's number by its name."""
    try:
        return signals.Signals[signal if signal.startswith("SIG") else f"SIG{signal}"]
    except KeyError:
        raise Failure("invalid-request", f"There is no signal {signal}; try SIGTERM.") from None


async def delete(paths: list[Path]) -> None:
    """Delete folders whatever their users have left in them; rm follows no link and minds no depth."""
    there = [str(path) for path in paths if path.is_symlink() or path.exists()]
    if not there:
        return
    rm = shutil.which("rm") or "/bin/rm"
    code, said = await run([rm, "-rf", "--one-file-system", "--", *there])
    if code and os.geteuid():  # folders that their owner has locked
        await run([shutil.which("chmod") or "/bin/chmod", "-R", "u+rwX", "--", *there])
        code, said = await run([rm, "-rf", "--one-file-system", "--", *there])
    if code:
        raise Failure("runtime-fault", "The container's files could not be deleted; ask your administrator to look at them.", detail=said)
