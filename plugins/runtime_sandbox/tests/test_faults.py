"""A process that uses the sandbox is killed at any moment; what it leaves is found by the next one, and nothing leaks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from backendai.spec.runtime_v10 import ContainerState
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
from sandbox_inside import PATIENCE_S, output, until

pytestmark = pytest.mark.system
ROUNDS = 12
USER = """
import asyncio, sys
from backendai.spec.runtime_v10 import ContainerSpec, Limits
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox

async def life(sandbox, name, scratch):
    script = "for i in 1 2 3; do echo line $i; sleep 0.02; done; exit 3"
    id = await sandbox.create(ContainerSpec(name, "host", ("sh", "-c", script), limits=Limits(memory=1 << 28), scratch=scratch))
    await sandbox.start(id)
    async for _ in sandbox.logs(id, 0, True):
        pass
    if name.endswith("0"):
        await sandbox.stop(id, "SIGTERM", 0.1)
        await sandbox.remove(id)

async def main(root, prefix):
    sandbox = Sandbox(Config(state_dir=root))
    await sandbox.list({})
    print("ready", flush=True)
    await asyncio.gather(*(life(sandbox, f"{prefix}-{n}", f"{root}/scratch/{prefix}-{n}" if n % 2 else None) for n in range(12)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", [1])
async def test_kills_at_random_moments(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(ROUNDS):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", USER, str(root), f"round-{number}", stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n"
            await asyncio.sleep(rng.uniform(0, 0.25))
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    await _settle(root)


PROBING = """
import asyncio, sys
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox

async def main(root):
    print("ready", flush=True)
    while True:
        sandbox = Sandbox(Config(state_dir=root))
        await sandbox.probe()
        await sandbox.teardown()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_who_is_killed_while_it_probes_leaves_nothing_for_ever(root: Path) -> None:
    rng, left = random.Random(1), 0
    for _ in range(ROUNDS):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROBING, str(root), stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        async with asyncio.timeout(PATIENCE_S):
            assert await process.stdout.readline() == b"ready\n"
            await asyncio.sleep(rng.uniform(0.05, 0.15))
            process.kill()
            await process.wait()
        left += len(list((root / "containers").iterdir()))
        (root / "images" / f".new-{process.pid}-1" / "rootfs").mkdir(parents=True, exist_ok=True)  # as of an image that it unpacked
    assert left, "it was never killed at a bad moment, so this proves nothing"
    sandbox = Sandbox(Config(state_dir=str(root)))
    await sandbox.probe()
    await sandbox.teardown()
    found = await asyncio.to_thread(lambda: {str(path.relative_to(root)) for path in root.rglob("*")})
    assert not [name for name in found if name.startswith(("containers/", "images/"))]
    assert {name for name in found if "/" not in name} == {"containers", "images", "networks", "programs", "lock", "empty"}


async def _settle(root: Path) -> None:
    """Let what runs end, and see that nothing of its output is missing."""
    sandbox = Sandbox(Config(state_dir=str(root)))
    seen = await sandbox.list({})
    assert len(seen) > ROUNDS
    for container in seen:
        if container.state is ContainerState.CREATED:
            await sandbox.start(container.id)
        ended = await until(sandbox, container.id, ContainerState.EXITED)
        assert (ended.exit_code, (await output(sandbox, container.id))[0]) == (3, b"line 1\nline 2\nline 3\n")
        await sandbox.remove(container.id)
    left = await asyncio.to_thread(lambda: list((root / "scratch").glob("*/*")))
    assert not left
    await sandbox.teardown()
