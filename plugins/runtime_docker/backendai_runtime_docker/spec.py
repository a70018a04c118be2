"""From the neutral container spec to the engine's JSON: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backendai.spec.runtime_v10 import ContainerSpec, Limits

HOME = "/home/work"
NANO = 1_000_000  # of a core, in a thousandth of one
LEAST_CPU = 10  # thousandths of a core: the kernel's least quota, 1 ms in Docker's period of 100 ms
LONG_AGO = "9000000000g"  # a log of that size is never rotated, so nothing is lost before it was read
LOCAL_LOG = {"Type": "local", "Config": {"max-size": LONG_AGO, "max-file": "1", "compress": "false"}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between engines. log: the driver, which must keep every byte. lacking: limits that the engine would refuse to set."""

    log: Mapping[str, Any] = field(default_factory=lambda: LOCAL_LOG)
    lacking: frozenset[str] = frozenset()


def to_engine(spec: ContainerSpec, network: str, dialect: Dialect) -> dict[str, Any]:
    """Return the body that creates *spec*. network: the engine's network mode."""
    uid, gid = spec.user
    body: dict[str, Any] = {
        "Image": spec.image,
        "Hostname": spec.hostname,
        "User": f"{uid}:{gid}",
        "WorkingDir": spec.workdir,
        "Env": [f"{name}={value}" for name, value in {**spec.env, **spec.edits.env}.items()],
        "Labels": dict(spec.labels),
        "HostConfig": _host_config(spec, network, dialect),
    }
    if spec.net is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": {spec.net.network: {"IPAMConfig": {"IPv4Address": spec.net.address}}}}
    if spec.argv:
        body["Entrypoint"], body["Cmd"] = [spec.argv[0]], list(spec.argv[1:])
    return body


def _host_config(spec: ContainerSpec, network: str, dialect: Dialect) -> dict[str, Any]:
    edits = spec.edits
    config: dict[str, Any] = {
        "NetworkMode": network,
        "IpcMode": "private",
        "CapDrop": ["ALL"],
        "CapAdd": list(edits.caps),
        "SecurityOpt": ["no-new-privileges", *([] if spec.seccomp else ["seccomp=unconfined"])],
        "ReadonlyRootfs": spec.read_only_root,
        "Mounts": _mounts(spec),
        "Devices": [{"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions} for d in edits.devices],
        "GroupAdd": [str(gid) for gid in edits.gids],
        "LogConfig": dict(dialect.log),
        "RestartPolicy": {"Name": "no"},
        **_limits(spec.limits, dialect.lacking),
    }
    if spec.hosts:
        config["ExtraHosts"] = [f"{name}:{address}" for name, address in spec.hosts.items()]
    if spec.net is not None and spec.network == "private":
        config["Dns"] = ["127.0.0.1"]  # or the engine would ask outside about names that it does not know
    if edits.cdi:
        config["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": list(edits.cdi)}]
    return config


def _limits(limits: Limits, lacking: frozenset[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if limits.cpu is not None and "cpu" not in lacking:
        config["NanoCpus"] = max(LEAST_CPU, limits.cpu) * NANO
    if limits.memory is not None and "memory" not in lacking:
        config["Memory"] = config["MemorySwap"] = limits.memory  # the same value means: no swap beside it
    if limits.pids is not None and "pids" not in lacking:
        config["PidsLimit"] = limits.pids
    if limits.shm is not None:
        config["ShmSize"] = limits.shm
    if limits.nofile is not None:
        config["Ulimits"] = [{"Name": "nofile", "Soft": limits.nofile, "Hard": limits.nofile}]
    return config


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Return what the spec mounts, and writable folders where the user needs one and the image may have none."""
    wanted = [*spec.mounts, *spec.edits.mounts]
    mounts = [{"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.readonly} for mount in wanted]
    taken = {mount.target.rstrip("/") for mount in wanted}
    uid, gid = spec.user
    if spec.workdir == HOME and HOME not in taken:
        mounts.append(_scratch(HOME, f"uid={uid},gid={gid},mode=0700"))
    if spec.read_only_root and "/tmp" not in taken:
        mounts.append(_scratch("/tmp", "mode=1777"))
    return mounts


def _scratch(target: str, options: str) -> dict[str, Any]:
    """Return a volume in memory that goes with the container. A plain tmpfs would be out of reach of the archive calls."""
    driver = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": options}}
    return {"Type": "volume", "Target": target, "VolumeOptions": {"NoCopy": True, "DriverConfig": driver}}
