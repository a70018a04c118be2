"""A real sandbox in a folder of its own, and the proof that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai_runtime_sandbox import build
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox

sys.path.insert(0, str(Path(__file__).parent))  # for sandbox_inside: pytest's importlib mode adds nothing itself


def traces(root: Path) -> list[str]:
    """Return what is left on this node of a sandbox at *root*: processes, mounts, cgroups, containers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(root) in command:
            found.append(f"process {process.name}: {command}")
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    found += [f"{path.parent.name} {path}" for folder in ("containers", "networks") for path in (root / folder).iterdir()]
    return found


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the shim, which is built once for all tests."""
    folder = tmp_path_factory.mktemp("programs")
    if os.environ.get("SANDBOX_SHIM") == "python":
        build.COMPILERS = ()
    asyncio.run(build.build_shim(folder))
    return folder


@pytest.fixture
def root(programs: Path) -> Iterator[Path]:
    """Give a folder that others may walk through, as pytest's own may not be, and that ends up empty but for programs and images."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-", dir="/tmp"))
    folder.chmod(0o711)
    shutil.copytree(programs, folder / "programs")
    yield folder
    left = traces(folder) if (folder / "containers").exists() else []
    left += [f"cgroup {group}" for state in (folder, folder / "shared" / "state") for group in groups(state)]
    shutil.rmtree(folder)
    assert not left, left


def groups(state: Path) -> list[Path]:
    """Return the cgroups of a sandbox."""
    label = f"backendai-{zlib.crc32(str(state).encode()):08x}"
    return [path for pattern in (label, f"*/{label}") for path in Path("/sys/fs/cgroup").glob(pattern)]


@pytest.fixture
async def sandbox(root: Path) -> AsyncIterator[Sandbox]:
    """Give a sandbox that works, or skip with the reason why none can."""
    sandbox = Sandbox(Config(state_dir=str(root)))
    try:
        engine = (await sandbox.probe()).engine
    except Failure as failure:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(failure.message)  # this node cannot isolate, and the message says why
    assert ("without a C compiler" in engine) is (os.environ.get("SANDBOX_SHIM") == "python" or not any(map(shutil.which, build.COMPILERS)))
    yield sandbox
    for container in await sandbox.list({}):
        await sandbox.remove(container.id)
    for network in await sandbox.list_networks({}):
        await sandbox.remove_network(network.id)
    await sandbox.teardown()
