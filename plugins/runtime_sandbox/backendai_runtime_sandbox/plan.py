"""From a container spec to the shim's plan: what to mount where, and in which order the doors are closed. Pure, but for looking."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import ContainerSpec, Limits

READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8  # MOUNT_ATTR_*
SAFE = NO_SUID | NO_DEV
NEW_NS, NEW_CGROUP, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
SHARED = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/gnu/store")
SECRET = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private",
          "/etc/docker", "/etc/kubernetes", "/etc/wireguard", "/etc/krb5.keytab", "/etc/munge", "/etc/NetworkManager")
EMPTY = ("home", "media", "mnt", "root", "run", "srv", "var/cache", "var/lib", "var/log", "var/run")
OPEN = ("tmp", "var/tmp")
MADE = ("root", "work", "empty", "home", "tmp", "var", "nothing")  # in a layer
OURS = ("dev", "home", "proc", "run", "sys", "tmp")  # what we put there ourselves, also over an image without overlay
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_FACTS = ("/sys/bus", "/sys/class", "/sys/dev", "/sys/devices")
TELLTALE = ("/proc/keys", "/proc/key-users")  # keys of whoever has the same uid on the node
SHM = 64 * 1024 * 1024
HOME = "/home/work"
DNS = "10.0.2.3"  # slirp4netns's own


@dataclass(frozen=True, slots=True)
class Ground:
    """What a plan depends on besides its container. rootfs: of the image, None for the node's own. layer: the container's own files.

    box: its folder. privileged: we are root; else (uid, gid) are mapped. groups: cgroup folders. oom: the file that counts OOM kills.
    enforced: limits that cgroups take care of. filter: the seccomp program, empty for none. slirp: the program for outward networks.
    overlay: overlays work here. hide: folders of the platform. cpus: those that it may use, None for all.
    log_limit: bytes of output that are kept. net: how it comes into its session's network, empty for none. own_net: its network
    namespace is its own.
    """

    rootfs: Path | None
    layer: Path
    box: Path
    privileged: bool
    uid: int
    gid: int
    groups: tuple[str, ...] = ()
    oom: str = ""
    enforced: frozenset[str] = frozenset()
    filter: str = ""
    slirp: str = ""
    overlay: bool = False
    share: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    cpus: tuple[int, ...] | None = None
    log_limit: int = 1 << 30
    net: str = ""
    own_net: bool = True


def make_plan(spec: ContainerSpec, ground: Ground) -> list[str]:
    """Return the shim's words for *spec*."""
    flags = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | (NEW_NET if ground.own_net else 0) | (0 if ground.privileged else NEW_USER)
    outer = (0, 0) if ground.net else (ground.uid, ground.gid)  # the network's user namespace has us as root
    maps = ("", "") if ground.privileged else (f"{spec.user[0]} {outer[0]} 1", f"{spec.user[1]} {outer[1]} 1")
    words = [f"{flags} {ground.net}" if ground.net else str(flags)]
    words += [str(ground.log_limit), *maps, ground.oom, ground.slirp if spec.network == "outward" else ""]
    for operation in (*_enclose(spec, ground), *_root(spec, ground), *_mounts(spec, ground), *_close(spec, ground)):
        words += operation
    return words


def environment(spec: ContainerSpec) -> dict[str, str]:
    """Return what the container's processes find in their environment."""
    return {"PATH": PATH, "HOME": HOME, "HOSTNAME": spec.hostname, **spec.env, **spec.edits.env}


def _enclose(spec: ContainerSpec, ground: Ground) -> Iterator[Sequence[str]]:
    yield from doors(ground.groups)
    yield from rlimits(spec.limits, ground.cpus, ground.enforced, ground.privileged)


def doors(groups: Iterable[str]) -> Iterator[Sequence[str]]:
    """Open the way into the cgroups. It is gone at the end, or a tiny share of a core would make the start itself take long."""
    for group in groups:
        yield "group", f"{group}/cgroup.procs"


def rlimits(limits: Limits, cpus: Sequence[int] | None, enforced: Container[str], privileged: bool) -> Iterator[Sequence[str]]:
    """Give the limits that no cgroup takes care of, and those that none could."""
    def limit(number: int, value: int) -> Sequence[str]:
        return "rlimit", str(number), str(value), str(value)

    yield limit(4, 0)  # RLIMIT_CORE
    if limits.nofile is not None:
        yield limit(7, limits.nofile)
    if limits.memory is not None and "memory" not in enforced:
        yield limit(2, limits.memory)  # RLIMIT_DATA, of each process
    if limits.pids is not None and "pids" not in enforced and not privileged:
        yield limit(6, limits.pids)  # RLIMIT_NPROC, of the user namespace
    if cpus is not None:  # whole cores, for want of a cgroup
        yield "cpus", ",".join(map(str, cpus))


def _root(spec: ContainerSpec, ground: Ground) -> Iterator[Sequence[str]]:
    top = str(ground.box / "root")
    if ground.rootfs is None:
        yield "root", str(ground.layer / "root"), "", "", top, str(SAFE)
        yield from _open(ground)  # first, so that a shared folder may lie below
        yield from _host(ground)
    elif ground.overlay:
        options = ",".join((f"lowerdir={_escape(ground.rootfs)}", f"upperdir={_escape(ground.layer / 'root')}",
                            f"workdir={_escape(ground.layer / 'work')}", *(() if ground.privileged else ("userxattr",))))
        yield "root", "overlay", "overlay", options, top, str(SAFE)
        yield from _open(ground)
    else:
        yield "root", str(ground.layer / "root"), "", "", top, str(SAFE)
        yield from _show((str(entry), f"/{entry.name}") for entry in sorted(ground.rootfs.iterdir()) if entry.name not in OURS)
        yield from _open(ground)


def _open(ground: Ground) -> Iterator[Sequence[str]]:
    """Give the folders where everybody may write."""
    for folder in OPEN:
        if _fits(f"/{folder}", ground):
            yield "bind", str(ground.layer / folder), f"/{folder}", str(SAFE)


def _host(ground: Ground) -> Iterator[Sequence[str]]:
    """Show the node's own programs, and hide what is none of a session's business."""
    shared = (*SHARED, *ground.share)
    yield from _show((path, path) for path in shared)
    for path in SECRET:
        if Path(path).exists() and not Path(path).is_symlink():
            empty = ground.layer / ("empty" if Path(path).is_dir() else "nothing")
            yield "bind", str(empty), path, str(SAFE | READ_ONLY)
    for path in ground.hide:
        if any(Path(path).is_relative_to(share) for share in shared) and Path(path).is_dir():
            yield "bind", str(ground.layer / "empty"), path, str(SAFE | READ_ONLY)


def _show(entries: Iterable[tuple[str, str]]) -> Iterator[Sequence[str]]:
    """Show paths of the node in the container, read-only; links as links."""
    for source, target in entries:
        if Path(source).is_symlink():
            yield "symlink", str(Path(source).readlink()), target
        elif Path(source).exists():
            yield "bind", source, target, str(SAFE | READ_ONLY)


def _mounts(spec: ContainerSpec, ground: Ground) -> Iterator[Sequence[str]]:
    yield "mount", "proc", "/proc", "", str(SAFE)
    for path in TELLTALE:
        if Path(path).exists():
            yield "bind", str(ground.layer / "nothing"), path, str(SAFE | READ_ONLY)
    yield "mount", "tmpfs", "/dev", "mode=755,size=64k", "0"
    for name in DEVICES:
        yield "bind", f"/dev/{name}", f"/dev/{name}", str(NO_SUID | NO_EXEC)
    yield "mount", "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620", str(NO_SUID | NO_EXEC)
    yield "mount", "tmpfs", "/dev/shm", f"mode=1777,size={spec.limits.shm or SHM}", str(SAFE)
    for text, link in (("pts/ptmx", "/dev/ptmx"), ("/proc/self/fd", "/dev/fd"), ("/proc/self/fd/0", "/dev/stdin"),
                       ("/proc/self/fd/1", "/dev/stdout"), ("/proc/self/fd/2", "/dev/stderr")):
        yield "symlink", text, link
    yield "bind", str(ground.layer / "home"), HOME, str(SAFE)
    for name in files(spec, ground):
        if not _fits(f"/etc/{name}", ground):
            continue
        yield "bind", str(ground.box / name), _real(f"/etc/{name}", ground), str(SAFE | READ_ONLY)
    for mount in (*spec.mounts, *spec.edits.mounts):
        yield "bind", mount.source, mount.target, str(SAFE | (READ_ONLY if mount.readonly else 0))
    for device in spec.edits.devices:
        yield "bind", device.source, device.target, str(NO_SUID | NO_EXEC | (0 if "w" in device.permissions else READ_ONLY))
    for path in DEVICE_FACTS if spec.edits.devices else ():  # drivers' libraries look there for what they drive
        yield "bind", path, path, str(SAFE | READ_ONLY)
    yield "folder", spec.workdir


def _close(spec: ContainerSpec, ground: Ground) -> Iterator[Sequence[str]]:
    yield "hostname", spec.hostname
    if ground.own_net:
        yield ("loopback",)
    if ground.filter:
        yield "seccomp", ground.filter
    if spec.read_only_root:
        yield "readonly", "/"
    yield ("pivot",)
    yield ("enter",)
    yield "unshare", str(NEW_CGROUP)
    if ground.privileged:
        yield "groups", ",".join(map(str, spec.edits.gids))
    yield "user", str(spec.user[0]), str(spec.user[1])
    yield ("bound",)
    for name, value in environment(spec).items():
        yield "env", f"{name}={value}"
    yield "workdir", spec.workdir
    yield "exec", *spec.argv


def files(spec: ContainerSpec, ground: Ground) -> dict[str, str]:
    """Return the files of /etc that each container has of its own."""
    uid, gid = spec.user
    users, groups = (_text(ground, name) for name in ("passwd", "group"))
    if not any(line.split(":")[2:3] == [str(uid)] for line in users.splitlines()):
        users += f"work:x:{uid}:{gid}::{HOME}:/bin/sh\n"
    if not any(line.split(":")[2:3] == [str(gid)] for line in groups.splitlines()):
        groups += f"work:x:{gid}:\n"
    name = spec.hostname
    return {"passwd": users, "group": groups, "hostname": f"{name}\n",
            "hosts": hosts(spec),
            "resolv.conf": f"nameserver {DNS}\n" if spec.network == "outward" else "# There is no way out of this container.\n"}


def hosts(spec: ContainerSpec) -> str:
    """Return what names lead to which addresses, the container's own among them."""
    own = "" if spec.hostname in spec.hosts else f" {spec.hostname}"
    others = "".join(f"{address} {name}\n" for name, address in spec.hosts.items())
    return f"127.0.0.1 localhost{own}\n::1 localhost ip6-localhost ip6-loopback\n{others}"


def prepare_layer(ground: Ground, spec: ContainerSpec, layer: Path) -> None:
    """Make the container's own folders in *layer*; they are those of ``MADE``."""
    bare = ground.rootfs is None or not ground.overlay
    layer.mkdir(mode=0o711, parents=True, exist_ok=True)
    for name in ("root", "work", "empty", "home", *OPEN, *(f"root/{name}" for name in (*EMPTY, *OPEN) if bare)):
        (layer / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    (layer / "nothing").touch(mode=0o644)
    for name in () if bare else files(spec, ground):
        if (ground.rootfs or Path()).joinpath("etc", name).is_symlink():  # our file is mounted over it, so it must not lead elsewhere
            (layer / "root" / "etc").mkdir(mode=0o755, exist_ok=True)
            (layer / "root" / "etc" / name).touch(mode=0o644)
    for name in OPEN:
        (layer / name).chmod(0o1777)
    if ground.privileged:
        os.chown(layer / "home", *spec.user)


def refuse(spec: ContainerSpec, privileged: bool) -> None:
    """Raise ``Failure`` for what this runtime cannot do."""
    if spec.edits.caps or spec.edits.cdi:
        raise Failure("unsupported", "The sandbox grants no capabilities and knows no CDI devices; use an agent with a container engine.")
    if privileged and 0 in spec.user:
        raise Failure("unsupported", "The sandbox runs nothing as the node's root; ask for another user.")
    if spec.edits.gids and not privileged and not set(spec.edits.gids) <= set(os.getgroups()):
        raise Failure("unsupported", "The sandbox of an ordinary user cannot add groups; run the agent as root.")
    if spec.network not in ("private", "outward"):
        raise Failure("unsupported", f"The sandbox knows no network {spec.network!r}; ask for private or outward.")
    if not spec.workdir.startswith("/") or not all(device.target.startswith("/") for device in spec.edits.devices):
        raise Failure("invalid-request", "The working folder and the places of devices must be absolute paths.")
    for mount in (*spec.mounts, *spec.edits.mounts):
        if not mount.target.startswith("/") or ".." in Path(mount.target).parts:
            raise Failure("bad-mount", f"{mount.target} is not an absolute path; say where to mount.")
        if not _is_there(mount.source):
            raise Failure("bad-mount", f"{mount.source} is not there on this agent; make it, or mount something else.")


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a folder on the way is closed to us
        return False


def _fits(path: str, ground: Ground) -> bool:
    """Tell whether there is a place to mount *path*, or one can be made."""
    if ground.rootfs is not None and ground.overlay:
        return True
    rootfs, top = ground.rootfs or Path("/"), path.split("/")[1]
    place = rootfs / path[1:]
    if ground.rootfs is not None and place.is_symlink():
        return False
    return top in OURS or place.exists() or not (rootfs / top).exists()


def _real(path: str, ground: Ground) -> str:
    """Return where a file of /etc really is; on many nodes resolv.conf is a link into /run."""
    return os.path.realpath(path) if ground.rootfs is None else path


def _text(ground: Ground, name: str) -> str:
    """Return a file of the image's /etc, empty where there is none or a link leads out of the image."""
    top = Path("/") if ground.rootfs is None else ground.rootfs.resolve()
    path = (top / "etc" / name).resolve()
    try:
        text = path.read_text(errors="replace") if path.is_relative_to(top) else ""
    except OSError:
        return ""
    return text if not text or text.endswith("\n") else text + "\n"


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def packed(words: Iterable[str]) -> bytes:
    """Return a plan as the shim reads it. No word may smuggle in another."""
    try:
        every = [os.fsencode(word) for word in words]
    except UnicodeEncodeError:
        raise Failure("invalid-request", "A command, a variable or a path holds a character that cannot be passed on.") from None
    if any(b"\0" in word for word in every):
        raise Failure("invalid-request", "A command, a variable or a path holds a zero byte; remove it.")
    return b"".join(word + b"\0" for word in every)


def joining(first: tuple[int, int], privileged: bool, namespaces: int, stay: bool) -> Sequence[str]:
    """Return the operation by which a process joins a container. first: pids of its first process and of that one's parent, the shim.

    stay: as a process of it, and not only for a call.
    """
    pid, shim = first
    return "join", str(pid), str(shim), str(namespaces | (0 if privileged else NEW_USER)), str(int(stay))


EVERYWHERE = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET | NEW_CGROUP


def make_exec(first: tuple[int, int], argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int], workdir: str, *, privileged: bool,
              groups: Sequence[str], gids: Sequence[int], filter: str, terminal: bool, limits: Iterable[Sequence[str]]) -> list[str]:
    """Return the shim's words for one more process in a container, behind the same walls as the first."""
    words: list[str] = []
    operations: list[Sequence[str]] = [*doors(groups), *limits]
    if filter:
        operations.append(("seccomp", filter))
    operations += [joining(first, privileged, EVERYWHERE, stay=True), ("enter",)]
    if privileged:
        operations.append(("groups", ",".join(map(str, gids))))
    operations += [("user", str(user[0]), str(user[1])), ("bound",)]
    operations += [("env", f"{name}={value}") for name, value in env.items()]
    if terminal:
        operations.append(("terminal", "24", "80"))
    operations += [("workdir", workdir), ("exec", *argv)]
    for operation in operations:
        words += operation
    return words
