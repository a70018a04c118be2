"""docs/explain.md against the platform: what it shows is what somebody sees who is in that situation."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backendai.cli import picture, queue, why
from backendai.manager.operations import explain as operations
from backendai.manager.operations.explain import DryRun, GetOverview, GetQueue, WhySession
from backendai.model.session import SessionType
from backendai.wire.link import KernelState as K

from core.tests.manager.stage import CORE, GIB, Stage, staged

PAGE = Path(__file__).parents[3] / "docs" / "explain.md"
INTERACTIVE: dict[str, Any] = {"type": SessionType.INTERACTIVE}


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Two nodes with four GPUs each, a lab that nobody has used for three hours, and a training that may run for six."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    async with staged(tmp_path) as stage:
        stage.now = 1_800_000_000.0 + 1 * 3600
        monkeypatch.setattr(time, "time", lambda: stage.now)
        for name in ("node1", "node2"):
            box = await stage.box(name, cpu=32, mem=256)
            await box.beat(capacity={"cpu": 32 * CORE, "mem": 256 * GIB, "cuda.device": 4 * CORE})
        for _ in range(10):
            id = await stage.running(slots=gpus(1), time_limit_s=3600.0)
            stage.now += 900
            await stage.see(id, K.EXITED, exit_code=0)
            await stage.see(id, K.GONE)
        await stage.running(name="lab", slots=gpus(2), **INTERACTIVE)
        stage.now += 3600
        await stage.running(name="training", slots=gpus(3), time_limit_s=6 * 3600.0)
        stage.now += 2 * 3600
        yield stage
    monkeypatch.undo()
    time.tzset()


def gpus(count: int) -> dict[str, Any]:
    return {"cpu": 4 * count, "mem": f"{16 * count}g", "cuda.device": count}


def plain(value: Any) -> Any:
    """Return an answer as a client reads it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def shown(command: str) -> str:
    """Return what the page shows below a command."""
    found = re.search(rf"^\$ {re.escape(command)}\n(.*?)(?=^\$ |^```)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, command
    return found[1].strip()


async def test_the_page_s_examples_are_true(scene: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, str] = {}

    def note(command: str) -> None:
        said[command] = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())

    async def ask(command: str, id: str, replay: bool = False) -> None:
        why.show(plain(await operations.why(scene.context, scene.caller, WhySession(id=id, replay=replay))))
        note(command)

    await scene.ask(name="big", slots=gpus(4), time_limit_s=7200.0)
    await scene.ask(name="next", slots=gpus(3), time_limit_s=3600.0)
    await scene.look()
    scene.now += 60
    await ask("bai why big", "big")
    await ask("bai why training", "training")
    await ask("bai why --replay lab", "lab", True)
    dry = DryRun(type=SessionType.BATCH, command=("true",), slots=gpus(3), time_limit_s=1800.0)
    why.show(plain(await operations.dry_run(scene.context, scene.caller, dry)))
    note("bai run --dry-run -r cpu=12,mem=48g,cuda.device=3 --timeout 30m -- ./train.sh")
    for one in plain(await operations.queue(scene.context, scene.caller, GetQueue())).get("items"):
        queue.show(one)
    note("bai queue")
    view = plain(await operations.overview(scene.context, scene.caller, GetOverview()))
    said["bai top --once"] = "\n".join(picture.draw(view)).strip()
    volatile = re.compile(r"moment [0-9a-f]{16}|\(backendai-\w+ [\d.]+\)")
    for command, text in said.items():
        assert volatile.sub("", shown(command)) == volatile.sub("", text), f"$ {command}\n{text}"
