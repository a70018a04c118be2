"""The assembled system: what its tests may leave behind is nothing, and this is where it is looked for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts import processes

OURS = ("/tmp/bai-test-", "/tmp/bai-demo.")


def left_over() -> set[str]:
    """Return what of ours is on this machine now: files, mounts, cgroups, network links."""
    files = {str(path) for prefix in OURS for path in Path("/tmp").glob(Path(prefix).name + "*")}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(prefix in line for prefix in OURS)}
    cgroups = {str(path) for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")) for path in top.glob("backendai-*/bai-*")}
    links = {line.split(":")[1].split("@")[0].strip() for line in _links() if "baitest" in line}
    return files | mounts | cgroups | links


def _links() -> list[str]:
    try:
        return subprocess.run(["ip", "-o", "link"], check=False, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return []


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the run when a process, mount, cgroup, network or file of ours outlives it."""
    before = left_over()
    running = {pid for prefix in OURS for pid in processes.mentioning(prefix)}
    yield
    assert left_over() - before == set()
    after = {pid: argv for prefix in OURS for pid, argv in processes.mentioning(prefix).items() if pid not in running}
    assert after == {}
