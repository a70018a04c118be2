"""Extra ``bai`` commands."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backendai.spec import Arity, Spec, hook


@dataclass(frozen=True, slots=True)
class Command:
    """One command. name: one word. help: one line. arguments: adds its arguments to a parser. run: does it, returns the exit status."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


class Cli:
    """A source of commands."""

    @hook()
    def commands(self) -> Sequence[Command]:
        """Return the commands. Built-in names cannot be replaced."""
        raise NotImplementedError


SPEC = Spec("cli", 10, Cli, Arity.MANY)
