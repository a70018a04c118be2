"""Starts and ends of containers, as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from backendai.spec.runtime_v10 import ContainerState, Event

from backendai_runtime_sandbox.box import Box, boxes
from backendai_runtime_sandbox.notices import FOLDER, Notices

_LOOK_S = 5.0  # a shim that was killed tells nobody


async def read_events(containers: Path, labels: Mapping[str, str], notices: Notices) -> AsyncIterator[Event]:
    """Tell of each change of state of the containers that bear *labels*."""
    dirty: set[str] = set()
    changed = asyncio.Event()
    states: dict[str, ContainerState] = {}
    watched: dict[str, ExitStack] = {}

    def tell(name: str) -> None:
        dirty.add(name)
        changed.set()

    with ExitStack() as stack:
        stack.enter_context(notices.watch(containers, FOLDER, tell))
        stack.callback(_let_go, watched)
        dirty |= {box.name for box in boxes(containers)}
        first = True
        while True:
            names, news = set(dirty), []
            dirty.clear()
            changed.clear()
            for name in sorted(names):
                if not name.startswith("."):
                    news += _look(containers / name, labels, states, watched, notices, tell)
            for event in () if first else news:
                yield event
            first = False
            try:
                async with asyncio.timeout(_LOOK_S):
                    await changed.wait()
            except TimeoutError:
                dirty |= states.keys()


def _let_go(watched: Mapping[str, ExitStack]) -> None:
    for one in watched.values():
        one.close()


def _look(folder: Path, labels: Mapping[str, str], states: dict[str, ContainerState], watched: dict[str, ExitStack], notices: Notices,
          tell: Callable[[str], None]) -> list[Event]:
    """Return the event that *folder* is worth, if it is; watch a new one."""
    name = folder.name
    try:
        if name not in watched:
            watched[name] = ExitStack()
            watched[name].enter_context(notices.watch(folder, FOLDER, lambda _: tell(name)))
        seen = Box(folder).look()
    except OSError:
        states.pop(name, None)
        if name in watched:
            watched.pop(name).close()
        return []
    before = states.get(name)
    if not labels.items() <= seen.labels.items() or seen.state is before:
        return []
    states[name] = seen.state
    return [] if seen.state is ContainerState.CREATED else [Event(name, seen.state)]
