"""From a manager's order to a runtime's container: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backendai.agent import boot, init
from backendai.agent.scratch import LAYER, WORK
from backendai.model.errors import Failure
from backendai.model.session import Mount as Wanted
from backendai.model.slots import SCALE
from backendai.spec.runtime_v10 import ContainerSpec, Edits, Endpoint, Limits, Mount
from backendai.wire.link import KernelOrder, Peer

HOME = "/home/work"
LABEL = "ai.backendai."
AGENT, KERNEL, SESSION, CLUSTER, NETWORK = (LABEL + word for word in ("agent", "kernel", "session", "cluster", "session-network"))
IDLE = ("sleep", "infinity")  # where there is no static init
CORE_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NPROC", "JULIA_CPU_THREADS",
               "RAYON_NUM_THREADS", "GOMAXPROCS", "PYTHON_CPU_COUNT")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container's shape depends on besides its order. init: the static init on this node, None where it could not be built."""

    agent: str
    cluster: str
    scratch: Path
    init: Path | None
    mount_roots: tuple[str, ...] = ()
    allow_caps: frozenset[str] = frozenset()


def container_spec(order: KernelOrder, image: str, edits: Edits, around: Surroundings, resolve: Callable[[str], str],
                   net: Endpoint | None = None, hosts: Mapping[str, str] | None = None) -> ContainerSpec:
    """Say what to create for *order*; raise ``Failure`` when this node may not.

    resolve: the real path of an existing path. net, hosts: its place among the kernels of its session.
    """
    if refused := sorted(set(edits.caps) - around.allow_caps):
        raise Failure("rejected", f"A device needs {', '.join(refused)}, which this agent does not allow; ask your administrator.")
    folder = around.scratch / order.kernel
    mounts = [Mount(str(folder / WORK), HOME, readonly=False)]
    if around.init is not None:
        mounts.append(Mount(str(around.init), init.TARGET))
    if order.bootstrap:
        mounts.append(Mount(str(folder / boot.FOLDER), boot.TARGET, readonly=False))
    mounts += [check_mount(mount, around.mount_roots, resolve) for mount in order.mounts]
    return ContainerSpec(
        name=container_name(order.kernel), image=image, argv=argv(order, around.init is not None), env=environment(order, edits.env),
        user=order.user, workdir=order.workdir or HOME, hostname=order.hostname, labels=labels(order, around),
        mounts=tuple(mounts), limits=Limits(cpu=order.slots.get("cpu"), memory=order.slots.get("mem")), edits=edits,
        network=order.network.value, scratch=str(folder / LAYER), net=net, hosts=hosts or {})


def container_name(kernel: str) -> str:
    """Return the name by which the kernel's container is unique on its engine."""
    return f"bai-{kernel}"


def labels(order: KernelOrder, around: Surroundings) -> dict[str, str]:
    """Return what the container remembers for us."""
    return {AGENT: around.agent, KERNEL: order.kernel, SESSION: order.session, CLUSTER: around.cluster}


def argv(order: KernelOrder, has_init: bool) -> tuple[str, ...]:
    """Return the first process: the init around the command where there is one; empty for what the image runs by itself.

    Raise ``Failure('invalid-request')`` for a bootstrap script before a command that only the image knows.
    """
    if order.bootstrap:
        if not order.idle and not order.command:
            raise Failure("invalid-request", "A bootstrap script needs a command to run after it; give one.")
        after = order.command if not order.idle else (init.TARGET,) if has_init else IDLE
        return (init.TARGET, "--", *boot.wrap(after)) if has_init else boot.wrap(after)
    if order.idle:
        return (init.TARGET,) if has_init else IDLE
    if not order.command:
        return ()
    return (init.TARGET, "--", *order.command) if has_init else order.command


def environment(order: KernelOrder, of_devices: Mapping[str, str]) -> dict[str, str]:
    """Return the container's environment. What the user set wins over ours, and what devices need wins over the user."""
    cores = str(max(1, -(-order.slots.get("cpu", SCALE) // SCALE)))
    ours = {
        "HOME": HOME,
        "BACKENDAI_SESSION_ID": order.session, "BACKENDAI_SESSION_NAME": order.name, "BACKENDAI_KERNEL_ID": order.kernel,
        "BACKENDAI_ATTEMPT": str(order.attempt), **cluster_variables(order),
    }
    return {**ours, **dict.fromkeys(CORE_COUNTS, cores), **order.env, **of_devices}


def cluster_variables(order: KernelOrder) -> dict[str, str]:
    """Return what a kernel is told about itself and the others of its session."""
    peers = order.peers or (Peer(order.hostname, order.kernel, "", order.role, order.idx),)
    rank = next((at for at, peer in enumerate(peers) if peer.kernel == order.kernel), 0)
    replicas: dict[str, int] = {}
    for peer in peers:
        replicas[peer.role] = replicas.get(peer.role, 0) + 1
    return {
        "BACKENDAI_CLUSTER_SIZE": str(len(peers)),
        "BACKENDAI_CLUSTER_REPLICAS": ",".join(f"{role}:{count}" for role, count in replicas.items()),
        "BACKENDAI_CLUSTER_HOSTS": ",".join(peer.host for peer in peers), "BACKENDAI_CLUSTER_HOST": order.hostname,
        "BACKENDAI_CLUSTER_ROLE": order.role, "BACKENDAI_CLUSTER_IDX": str(order.idx), "BACKENDAI_CLUSTER_RANK": str(rank),
        "BACKENDAI_CLUSTER_LOCAL_RANK": str(sum(peer.agent == peers[rank].agent for peer in peers[:rank])),
    }


def check_mount(mount: Wanted, roots: Sequence[str], resolve: Callable[[str], str]) -> Mount:
    """Return the mount of the real path behind *mount*; raise ``Failure('bad-mount')`` unless it is below one of *roots*."""
    try:
        source = Path(resolve(mount.source))
    except OSError:
        raise Failure("bad-mount", f"{mount.source} is not there on this agent; make it, or mount something else.") from None
    if not any(source.is_relative_to(_resolved(root, resolve)) for root in roots):
        allowed = ", ".join(roots) or "nothing"
        raise Failure("bad-mount", f"{mount.source} may not be mounted; this agent allows what is below: {allowed}.")
    return Mount(str(source), mount.target, mount.readonly)


def _resolved(root: str, resolve: Callable[[str], str]) -> str:
    try:
        return resolve(root)
    except OSError:  # a root that is not there allows nothing
        return "/nonexistent/" + root


def merge(several: Iterable[Edits]) -> Edits:
    """Put together what several devices need; raise ``Failure('plugin-fault')`` when two want one variable to differ."""
    every = list(several)
    env: dict[str, str] = {}
    for edits in every:
        for name, value in edits.env.items():
            if env.setdefault(name, value) != value:
                raise Failure("plugin-fault", f"Two accelerator plugins disagree about {name}; ask your administrator to look at them.")
    return Edits(
        devices=tuple(device for edits in every for device in edits.devices), env=env,
        mounts=tuple(mount for edits in every for mount in edits.mounts), gids=tuple(gid for edits in every for gid in edits.gids),
        caps=tuple(cap for edits in every for cap in edits.caps), cdi=tuple(name for edits in every for name in edits.cdi))
