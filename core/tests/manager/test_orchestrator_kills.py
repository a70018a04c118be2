"""A manager that is killed loses nothing, wherever in the orchestrator and the store that happens."""

from __future__ import annotations

import asyncio
import linecache
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from backendai.manager import (
    dispatch,
    ending,
    leases,
    life,
    mirror,
    notices,
    orchestrator,
    placing,
    planning,
    reception,
    reports,
    settle,
)
from backendai.manager.operations.asking import AfterInput, PartInput, RetryInput
from backendai.manager.store import dependencies, engine, held, nodes, placement
from backendai.model.session import DEADLINES, SessionState, SessionType

from core.tests.manager.stage import Stage, staged

PARTS = (orchestrator, dispatch, ending, life, mirror, placing, planning, reception, reports, settle, leases, notices, dependencies, engine,
         held, placement, nodes)
FILES = {str(part.__file__): part.__name__ for part in PARTS}
LASTING = re.compile(r"await |async with|send\(|desire\(")
pytestmark = pytest.mark.system  # long: half a minute of restarts and storms
Line = tuple[str, int]
Trace = Callable[[FrameType, str, Any], Any]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass
class Story:
    """What was answered: sessions that were accepted, and stops that were noted. Whatever was not may be missing."""

    asked: dict[str, str] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    async def ask(self, stage: Stage, name: str, **what: Any) -> None:
        self.asked[name] = await stage.ask(name=name, **what)

    async def stop(self, stage: Stage, name: str) -> None:
        await stage.stop(self.asked[name])
        self.stopped.add(name)

    async def play(self, stage: Stage) -> None:
        """Have as much happen as fits: a whole life, a stop, a refusal, a link that breaks, one try too late, an agent that is lost."""
        box = await stage.box("box", cpu=6)
        await self.ask(stage, "first")
        await self.ask(stage, "gang", cluster=(PartInput(role="main"), PartInput(role="sub")), retry=RetryInput(count=1, backoff_s=0.0))
        await self.ask(stage, "follows", cpu=0.5, after=(AfterInput(session="gang"),))
        await self.ask(stage, "idle", type=SessionType.INTERACTIVE)
        await stage.look()
        for kernel in list(box.kernels):
            for _ in range(3):
                box.step(kernel)
                await stage.look()
        await self.ask(stage, "large", cpu=3)
        await stage.look()
        await self.stop(stage, "idle")
        await stage.look()
        await box.leave()
        await box.connect()
        for _ in range(2):
            everything(stage)
            await stage.look()
        await stage.later(DEADLINES[SessionState.SCHEDULED] + 1.0)
        everything(stage)
        await stage.look()
        await box.beat(why="sick")
        await stage.look()
        other = await stage.box("other", cpu=4)
        await self.ask(stage, "last")
        await stage.look()
        for kernel in list(other.kernels):
            box.step(kernel) if kernel in box.kernels else other.step(kernel)
        await stage.look()
        await other.leave()
        await stage.later(200.0)

    async def end(self, stage: Stage) -> None:
        """Go on with a new manager until everything has ended, and see that it has ended right."""
        for box in stage.boxes:
            box.why = ""
            await box.connect()
        for box in stage.boxes:
            box.hear()
        there = {row.name: row.id for row in [await stage.row(id) for id in await stage.states()]}  # some were accepted, but not answered
        assert self.asked.items() <= there.items(), "what was accepted is not lost"
        self.asked = there
        if "idle" in there and "idle" not in self.stopped:
            await stage.stop(there["idle"])
        for _ in range(30):
            await stage.look()
            if not everything(stage):
                break
        await stage.check()
        for name, id in self.asked.items():
            row = await stage.row(id)
            if name == "idle":
                assert (row.state, row.result) in {("TERMINATED", "success"), ("CANCELLED", None)}, row
            elif row.state == "FAILED":
                assert name == "last" and row.reason == "The agent other was lost.", row
            else:
                assert (row.state, row.result, row.exit_code) == ("TERMINATED", "success", 0), row
                assert {count for key, count in stage.ran.items() if key.startswith(id)} == {1}
        assert await stage.ledger() == {}
        assert not any(box.kernels for box in stage.boxes), "nothing is left on any agent"


def everything(stage: Stage) -> bool:
    """Have every kernel take a step; tell whether there was any."""
    steps = [box.step(kernel) for box in stage.boxes for kernel in list(box.kernels)]
    return any(steps)


@contextmanager
def traced(local: Trace) -> Iterator[None]:
    def enter(frame: FrameType, event: str, _: Any) -> Trace | None:
        return local if frame.f_code.co_filename in FILES else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


async def lines_that_matter(folder: Path) -> list[Line]:
    """Play the story through, and return the lines that wait or send, and those that come next; between them nothing lasting happens."""
    seen: dict[Line, None] = {}
    last = ""

    def note(frame: FrameType, event: str, _: Any) -> Trace:
        nonlocal last
        if event == "line":
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if LASTING.search(last) or LASTING.search(text):
                seen.setdefault((frame.f_code.co_filename, frame.f_lineno))
            last = text
        return note

    async with staged(folder) as stage:
        with traced(note):
            await Story().play(stage)
    return list(seen)


async def killed_at(stage: Stage, story: Story, line: Line, skip: int) -> bool:
    """Play until *line* is about to be run for the time number *skip*, from 0, and die there; False when it never came to that."""
    left, fired = skip, asyncio.Event()

    def strike(frame: FrameType, event: str, _: Any) -> Trace:
        nonlocal left
        if event == "line" and (frame.f_code.co_filename, frame.f_lineno) == line:
            left -= 1
            if left < 0 and not fired.is_set():
                fired.set()
                raise Killed
        return strike

    with traced(strike):
        play, death = asyncio.create_task(story.play(stage)), asyncio.create_task(fired.wait())
        await asyncio.wait([play, death], return_when=asyncio.FIRST_COMPLETED)
        if fired.is_set():  # whoever waits for what has died waits no longer
            play.cancel()
        died, _ = await asyncio.gather(play, death, return_exceptions=True) if fired.is_set() else (None, death.cancel())
    if died is not None:
        assert isinstance(died, Killed | asyncio.CancelledError), died
    else:
        play.result()
    return fired.is_set()


@pytest.mark.parametrize(("skip", "stride"), [(0, 2), (2, 6)])
async def test_a_manager_that_is_killed_loses_nothing(tmp_path: Path, skip: int, stride: int) -> None:
    lines = (await lines_that_matter(tmp_path / "all"))[::stride]
    assert len(lines) > 120 // stride, "the story visits every part"
    empty = tmp_path / "all.db"
    async with staged(tmp_path / "new", f"sqlite:///{empty}") as new:
        for number, line in enumerate(lines):
            base = tmp_path / f"{number}.db"
            shutil.copy(empty, base)
            async with staged(tmp_path, f"sqlite:///{base}", new.host) as stage:
                await die_and_go_on(stage, line, skip)


async def die_and_go_on(stage: Stage, line: Line, skip: int) -> None:
    story = Story()
    fired = await killed_at(stage, story, line, skip)
    assert fired or skip
    try:
        await stage.kill()
        await stage.start()
        await story.end(stage)
    except AssertionError as error:
        raise AssertionError(f"killed at {FILES[line[0]]}:{line[1]}: {error}") from error


async def test_the_story_ends_well_without_a_kill(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        story = Story()
        await story.play(stage)
        assert {name: await stage.state(id) for name, id in story.asked.items()} == {
            "first": "TERMINATED", "gang": "TERMINATED", "follows": "SCHEDULED",
            "idle": "TERMINATED", "large": "SCHEDULED", "last": "FAILED"}
        large = await stage.told(story.asked["large"])
        assert large.count("SCHEDULED") == 2, "one try was called back"
