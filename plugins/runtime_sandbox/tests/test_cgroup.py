"""Where limits go, for both versions of cgroups, in folders that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest
from backendai.spec.runtime_v10 import ContainerSpec, Limits
from backendai_runtime_sandbox.cgroup import Cgroups, find_cgroups, settings
from backendai_runtime_sandbox.engine import pick_cpus
from backendai_runtime_sandbox.plan import Ground, make_plan

LIMITS = Limits(cpu=1500, memory=512 << 20, pids=100)


def test_version_2_is_told_in_its_words() -> None:
    assert settings(2, LIMITS) == [
        ("memory", "memory.max", "536870912"), ("memory", "memory.swap.max", "0"), ("pids", "pids.max", "100"),
        ("cpu", "cpu.max", "150000 100000")]


def test_version_1_is_told_in_its_words() -> None:
    assert settings(1, LIMITS) == [
        ("memory", "memory.limit_in_bytes", "536870912"), ("memory", "memory.memsw.limit_in_bytes", "536870912"),
        ("pids", "pids.max", "100"), ("cpu", "cpu.cfs_period_us", "100000"), ("cpu", "cpu.cfs_quota_us", "150000")]


def test_no_limits_write_nothing() -> None:
    assert settings(2, Limits(pids=None)) == []


@pytest.mark.parametrize("version", [1, 2])
async def test_groups_are_made_and_read(tmp_path: Path, version: int) -> None:
    names = ("memory", "pids", "cpu", *(("io",) if version == 2 else ()))
    parents = {name: tmp_path / ("all" if version == 2 else name) for name in names}
    for parent in set(parents.values()):
        parent.mkdir()
        (parent / "cgroup.subtree_control").write_text("memory pids cpu io")
    groups = Cgroups(version, parents, {})
    made = groups.make("one", LIMITS)
    assert made == groups.of("one") and len(made) == (1 if version == 2 else 3)
    assert (parents["pids"] / "one" / "pids.max").read_text() == "100"
    (parents["memory"] / "one" / ("memory.current" if version == 2 else "memory.usage_in_bytes")).write_text("4096\n")
    (parents["cpu"] / "one" / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    if version == 2:
        (parents["io"] / "one" / "io.stat").write_text("254:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:0 rbytes=1 wbytes=2 rios=1\n")
    usage = groups.usage("one")
    assert (usage.io_read, usage.io_write) == ((11, 22) if version == 2 else (None, None))
    assert usage.memory == 4096 and usage.cpu_s == (1.5 if version == 2 else None)
    assert groups.events("one").endswith("memory.events" if version == 2 else "memory.oom_control")


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_killed_is_no_longer_held_back(tmp_path: Path, version: int) -> None:
    groups = Cgroups(version, {"cpu": tmp_path}, {})
    (tmp_path / "one").mkdir()
    groups.hurry("one")
    assert (tmp_path / "one" / ("cpu.max" if version == 2 else "cpu.cfs_quota_us")).read_text() == ("max" if version == 2 else "-1")
    groups.hurry("gone")


def test_the_start_itself_is_not_held_back_by_the_limits(tmp_path: Path) -> None:
    ground = Ground(None, tmp_path, tmp_path, privileged=True, uid=0, gid=0, groups=("/cgroup/cpu/one", "/cgroup/memory/one"))
    plan = make_plan(ContainerSpec("one", "host", ("true",)), ground)
    opened, entered = plan.index("/cgroup/memory/one/cgroup.procs"), plan.index("enter")
    last_mount = max(at for at, word in enumerate(plan) if word in ("bind", "mount", "pivot"))
    assert opened < last_mount < entered < plan.index("user"), "it enters when all is done, while it still may"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/user.slice\n")
    found = find_cgroups("test", base=tmp_path / "fs", proc=proc)
    assert (found.parents, set(found.why)) == ({}, {"memory", "pids", "cpu", "cpuacct"})
    assert found.why["memory"] == "No such file or directory"


def test_cores_are_whole_and_spread() -> None:
    assert pick_cpus(Limits(cpu=None), "a") is None
    assert pick_cpus(Limits(cpu=10**9), "a") is None
