"""Do the same to several things: one that fails is said, and keeps nothing from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from backendai.cli.screen import say
from backendai.model.errors import Failure

T = TypeVar("T")


def each(names: Iterable[str], do: Callable[[str], T]) -> tuple[list[T], int]:
    """Return what came of those that went well, and the exit status of the first that did not."""
    done, exit = [], 0
    for name in names:
        try:
            done.append(do(name))
        except Failure as failure:
            say(f"bai: {name}: {failure.message}")
            exit = exit or failure.kind.exit
    return done, exit
