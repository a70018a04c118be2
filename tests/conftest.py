"""The assembled system: what its tests may leave behind is nothing, and this is where it is looked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts import processes


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the run when a process, mount, network or file of ours outlives it. Platforms look for the rest when they are removed."""
    yield
    mark = f"/tmp/{processes.MARK}{os.getpid()}-"
    assert [str(path) for path in Path("/tmp").glob(f"{processes.MARK}{os.getpid()}-*")] == []
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line] == []
    assert processes.mentioning(mark) == {}
    assert [line for line in links() if f"baitest{os.getpid()}" in line] == []


def links() -> list[str]:
    try:
        return subprocess.run(["ip", "-o", "link"], check=False, capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        return []
