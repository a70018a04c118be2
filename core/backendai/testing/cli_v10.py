"""The laws of a source of commands."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from backendai.spec.cli_v10 import SPEC, Cli, Command
from backendai.testing.laws import Conformance, Violation, Weight, ensure, law

BUILT_IN = frozenset({
    "agent", "agents", "completion", "config", "cp", "decisions", "doctor", "domain", "events", "exec", "group", "help", "image", "info",
    "login", "logs", "plugin", "preset", "project", "ps", "queue", "quota", "reservation", "rm", "run", "serve", "simulate", "slots",
    "start", "stats", "stop", "token", "top", "up", "usage", "user", "whoami", "why"})
_NAME = re.compile(r"[a-z][a-z0-9-]*")


class CliConformance(Conformance[Cli]):
    """What a source of commands keeps to."""

    spec = SPEC

    @law()
    async def test_it_returns_commands(self, cli: Cli) -> None:
        """It returns commands, and each of them can be called."""
        for command in cli.commands():
            ensure(isinstance(command, Command), f"it returned {command!r}, which is no Command")
            ensure(callable(command.run), f"run of {command.name} is not a function")

    @law()
    async def test_names_are_words(self, cli: Cli) -> None:
        """The name of a command is one word of small letters, digits and dashes."""
        for command in _commands(cli):
            ensure(_NAME.fullmatch(command.name), f"{command.name!r} is not one word of a-z, 0-9 and -")

    @law()
    async def test_names_are_its_own(self, cli: Cli) -> None:
        """No two commands have one name, and none has a built-in command's."""
        names = [command.name for command in _commands(cli)]
        twice = sorted({name for name in names if names.count(name) > 1} | set(names) & BUILT_IN)
        ensure(not twice, f"{', '.join(twice)} is taken")

    @law()
    async def test_each_has_a_line_of_help(self, cli: Cli) -> None:
        """Each command says in one line what it does."""
        for command in _commands(cli):
            ensure(command.help.strip() and "\n" not in command.help, f"the help of {command.name} is {command.help!r}, not one line")

    @law()
    async def test_arguments_fit_a_parser(self, cli: Cli) -> None:
        """Each command's arguments can be added to a parser, next to --help and --json."""
        for command in _commands(cli):
            _parser(command)

    @law()
    async def test_help_can_be_printed(self, cli: Cli) -> None:
        """The help of each command can be printed (a lone % in a help text breaks it)."""
        for command in _commands(cli):
            try:
                parser = _parser(command)
            except Violation:
                continue  # the law before says so
            try:
                parser.format_help()
            except (ValueError, TypeError, KeyError) as error:
                raise Violation(f"the help of {command.name} cannot be printed: {error}; write %% for a %") from error

    @law()
    async def test_listing_is_silent(self, cli: Cli) -> None:
        """Listing the commands prints nothing."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
            _commands(cli)
        said = out.getvalue() + errors.getvalue()
        ensure(not said, f"it printed {said[:80]!r}")

    @law(Weight.RECOMMENDED)
    async def test_listing_imports_nothing_heavy(self, cli: Cli) -> None:
        """Listing the commands imports little (100 modules at most): ``bai --help`` lists them each time."""
        before = set(sys.modules)
        _commands(cli)
        fresh = len(set(sys.modules) - before)
        ensure(fresh <= 100, f"it imported {fresh} modules; import them in run()")

    @law()
    async def test_it_lists_the_same_again(self, cli: Cli) -> None:
        """It returns the same commands each time."""
        first, second = ([command.name for command in _commands(cli)] for _ in range(2))
        ensure(first == second, f"it returned {', '.join(first)}, then {', '.join(second)}")


def _commands(cli: Cli) -> Sequence[Command]:
    return [command for command in cli.commands() if isinstance(command, Command)]


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"bai {command.name}", exit_on_error=False)
    parser.add_argument("--json", action="store_true", help="as the platform adds it where it prints rows")
    try:
        command.arguments(parser)
    except Exception as error:
        raise Violation(f"the arguments of {command.name} cannot be added: {type(error).__name__}: {error}") from error
    return parser
