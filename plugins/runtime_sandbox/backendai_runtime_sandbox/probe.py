"""What this node can do, found out by doing it."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Capabilities, ContainerSpec, Limits

from backendai_runtime_sandbox import seccomp
from backendai_runtime_sandbox.build import find_shim
from backendai_runtime_sandbox.cgroup import Cgroups, find_cgroups
from backendai_runtime_sandbox.config import Config, Folders
from backendai_runtime_sandbox.engine import NO_WAY_OUT, STARTS, TRIAL, Engine, Node
from backendai_runtime_sandbox.images import HOST

_SYS_ADMIN = 1 << 21
_TUN = "/dev/net/tun"
_ORDINARY = "cgroups may not be written here ({why}); run the agent as root, or in a service to which a cgroup is delegated"


async def look_around(config: Config, folders: Folders) -> Node:
    """Find out what is here; raise ``Failure('unavailable')`` where containers cannot be isolated."""
    if os.uname().sysname != "Linux" or os.uname().machine not in seccomp.MACHINES:
        raise Failure("unavailable", "The sandbox runs on Linux on x86_64 and aarch64 only; use a container engine here.")
    privileged = os.geteuid() == 0 and _maps_everybody()  # the root of a user namespace is an ordinary user
    if privileged and not _capabilities() & _SYS_ADMIN:
        raise Failure("unavailable", "This is root without the right to mount, as in most containers; run the agent as an ordinary user, "
                                     "or in a privileged container.")
    shim = await find_shim(folders.programs)
    cgroups = find_cgroups(f"{zlib.crc32(str(folders.root).encode()):08x}", config.cgroup)
    slirp = shutil.which("slirp4netns") if os.access(_TUN, os.R_OK | os.W_OK) else None
    return Node(shim, privileged, cgroups, overlay=True, slirp=slirp or "")


async def has_overlay(engine: Engine) -> bool:
    """Tell whether overlays work here: an empty image must come as far as to lack the command."""
    name = f"overlay-{os.getpid()}"
    empty = engine.folders.root / "empty"
    empty.mkdir(exist_ok=True)
    empty.chmod(0o755)
    try:
        engine.create(ContainerSpec(name, "empty", ("/nothing",), labels=TRIAL), empty)
        await engine.start(name)
    except Failure as failure:
        return failure.detail.startswith("exec ")
    finally:
        await engine.remove(name)
    return True


async def try_out(engine: Engine) -> None:
    """Run a container to the end; raise ``Failure`` when that does not work."""
    name = f"probe-{os.getpid()}"
    await engine.remove(name)
    try:
        engine.create(ContainerSpec(name, HOST, ("true",), user=(1000, 1000), limits=Limits(memory=1 << 28), labels=TRIAL), None)
        await engine.start(name)
    except Failure as failure:
        raise Failure("unavailable", failure.message, detail=failure.detail) from failure
    except OSError as error:
        raise Failure("unavailable", f"The sandbox cannot use its folder {engine.folders.root}: {error}; give it another.") from error
    finally:
        await engine.remove(name)


def capabilities(node: Node) -> Capabilities:
    """Say what *node* offers, and how to mend what it lacks."""
    features = {"network-private", "network-session", "user", "read-only-root", "survives"}
    missing = {"pull": "the sandbox has no registry client; register a folder or a tarball as an image",
               "build": "the sandbox builds nothing; give it a root filesystem as a tarball"}
    if node.slirp:
        features.add("network-outward")
    else:
        missing["network-outward"] = NO_WAY_OUT
    features |= {name for name in ("memory", "cpu", "pids") if name in node.cgroups.parents}
    missing |= {name: _ORDINARY.format(why=why) for name, why in node.cgroups.why.items() if name in ("memory", "cpu", "pids")}
    if not node.privileged and "pids" not in features:
        features.add("pids")
        missing.pop("pids")
    kind = "root" if node.privileged else "ordinary user"
    slow = "" if node.shim.native else ", without a C compiler"
    return Capabilities(
        engine=f"sandbox on Linux {os.uname().release.split('-')[0]} ({kind}{slow})", default_image=HOST, features=frozenset(features),
        missing=missing, limits=_limits(node.cgroups, node.privileged), parallel_starts=STARTS)


def _limits(cgroups: Cgroups, privileged: bool) -> Mapping[str, str]:
    otherwise = {"mem": "rlimit, of each process", "cpu": "affinity, whole cores", "pids": "none" if privileged else "rlimit"}
    names = {"mem": "memory", "cpu": "cpu", "pids": "pids"}
    return {name: f"cgroup v{cgroups.version}" if names[name] in cgroups.parents else other for name, other in otherwise.items()}


def _maps_everybody() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", str((1 << 32) - 1)]


def _capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
