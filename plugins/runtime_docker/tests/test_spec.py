"""From the neutral spec to the engine's JSON."""

from __future__ import annotations

from typing import Any

from backendai.spec.runtime_v10 import ContainerSpec, DeviceNode, Edits, Limits, Mount
from backendai_runtime_docker.spec import Dialect, to_engine


def host(spec: ContainerSpec, network: str = "none", dialect: Dialect | None = None) -> dict[str, Any]:
    config: dict[str, Any] = to_engine(spec, network, dialect or Dialect())["HostConfig"]
    return config


def test_the_defaults_are_safe() -> None:
    config = host(ContainerSpec("a", "image"))
    assert config["CapDrop"] == ["ALL"]
    assert config["CapAdd"] == []
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["NetworkMode"] == "none"
    assert config["PidsLimit"] == 4096
    assert config["IpcMode"] == "private"
    assert not {"Privileged", "PidMode", "PortBindings", "PublishAllPorts", "Binds", "UTSMode"} & config.keys()
    assert to_engine(ContainerSpec("a", "image"), "none", Dialect())["User"] == "1000:1000"


def test_a_command_replaces_entry_point_and_command_and_none_leaves_both() -> None:
    given = to_engine(ContainerSpec("a", "image", ("x", "y", "z")), "none", Dialect())
    assert (given["Entrypoint"], given["Cmd"]) == (["x"], ["y", "z"])
    assert not {"Entrypoint", "Cmd"} & to_engine(ContainerSpec("a", "image"), "none", Dialect()).keys()


def test_limits_are_exact_and_memory_includes_swap() -> None:
    config = host(ContainerSpec("a", "image", limits=Limits(cpu=1500, memory=1 << 30, pids=7, shm=1 << 20, nofile=99)))
    assert (config["NanoCpus"], config["PidsLimit"], config["ShmSize"]) == (1_500_000_000, 7, 1 << 20)
    assert config["Memory"] == config["MemorySwap"] == 1 << 30
    assert config["Ulimits"] == [{"Name": "nofile", "Soft": 99, "Hard": 99}]


def test_devices_get_what_they_need() -> None:
    edits = Edits(devices=(DeviceNode("/dev/a", "/dev/b", "rwm"),), env={"V": "d"}, mounts=(Mount("/lib/x", "/lib/y"),), gids=(44,),
                  caps=("SYS_NICE",), cdi=("vendor/class=1",))
    body = to_engine(ContainerSpec("a", "image", env={"V": "u", "W": "w"}, edits=edits), "none", Dialect())
    config = body["HostConfig"]
    assert body["Env"] == ["V=d", "W=w"]
    assert config["Devices"] == [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rwm"}]
    assert (config["GroupAdd"], config["CapAdd"]) == (["44"], ["SYS_NICE"])
    assert config["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["vendor/class=1"]}]
    assert config["Mounts"][0] == {"Type": "bind", "Source": "/lib/x", "Target": "/lib/y", "ReadOnly": True}


def targets(spec: ContainerSpec) -> dict[str, str]:
    return {mount["Target"]: mount["Type"] for mount in host(spec)["Mounts"]}


def test_there_is_always_a_home_and_a_place_for_temporary_files() -> None:
    assert targets(ContainerSpec("a", "image")) == {"/home/work": "volume"}
    assert targets(ContainerSpec("a", "image", mounts=(Mount("/x", "/home/work", False),))) == {"/home/work": "bind"}
    assert targets(ContainerSpec("a", "image", workdir="/srv")) == {}
    assert targets(ContainerSpec("a", "image", workdir="/srv", read_only_root=True)) == {"/tmp": "volume"}


def test_seccomp_is_off_only_when_asked() -> None:
    assert host(ContainerSpec("a", "image", seccomp=False))["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined"]


def test_what_the_engine_cannot_limit_is_not_asked_for() -> None:
    spec = ContainerSpec("a", "image", limits=Limits(cpu=1500, memory=1 << 30, pids=7))
    config = host(spec, dialect=Dialect(lacking=frozenset({"cpu", "memory", "pids"})))
    assert not {"NanoCpus", "Memory", "MemorySwap", "PidsLimit"} & config.keys()


def test_a_share_of_a_core_that_is_too_small_for_the_kernel_is_raised() -> None:
    assert [host(ContainerSpec("a", "image", limits=Limits(cpu=cpu)))["NanoCpus"] for cpu in (1, 9, 10, 11)] == [
        10_000_000, 10_000_000, 10_000_000, 11_000_000]
