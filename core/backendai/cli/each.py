"""Do the same to several things: one that fails is said, and keeps nothing from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from backendai.cli.main import complain
from backendai.model.errors import Failure

T = TypeVar("T")


def each(names: Iterable[str], do: Callable[[str], T], as_json: bool) -> tuple[list[T], int]:
    """Return what came of those that went well, and the exit status of the first that did not."""
    done, exit = [], 0
    for name in names:
        try:
            done.append(do(name))
        except Failure as failure:
            said = failure.message if name in failure.message else f"{name}: {failure.message}"
            status = complain(Failure(failure.code, said), as_json)
            exit = exit or status
    return done, exit


def forget(names: Iterable[str], do: Callable[[str], object], as_json: bool) -> int:
    """Remove each of several things and print its name; with *as_json* print them all at the end."""
    from backendai.cli.screen import show_json

    def one(name: str) -> str:
        do(name)
        if not as_json:
            print(name, flush=True)
        return name

    removed, exit = each(names, one, as_json)
    if as_json:
        show_json({"removed": removed})
    return exit
