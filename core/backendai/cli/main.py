"""Where ``bai`` begins: find the command, read its arguments, run it, and turn what goes wrong into words and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    from backendai.model.errors import Failure
    from backendai.spec.cli_v10 import Command

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Platform": {
        "up": "Start the platform on this machine, all in one process.",
        "serve": "Start one role as a process of its own: manager or agent.",
        "login": "Use a platform somewhere else.",
        "config": "List, choose and forget platforms that you are logged in at.",
        "whoami": "Show who you are, and where.",
    },
    "Sessions": {
        "run": "Run a command in a container, as if it ran here.",
        "start": "Start a session that stays until you stop it.",
        "exec": "Run a command in a running session, on a terminal if you like.",
        "ps": "List sessions.",
        "info": "Show everything about a session, and why it waits.",
        "why": "Say why a session waits, what would help, and when it will start.",
        "queue": "Show who waits, in which order, and when they will start.",
        "logs": "Show the output of a session.",
        "cp": "Copy files into and out of a session.",
        "stats": "Show what sessions use.",
        "stop": "End sessions.",
        "rm": "Forget sessions that have ended.",
    },
    "Cluster": {
        "top": "Watch groups, agents, sessions and queues live.",
        "agents": "List the nodes, what they have and how they are.",
        "agent": "Move, label, cordon and drain nodes.",
        "group": "Make, list, change and remove resource groups.",
        "slots": "List what nodes lend.",
        "preset": "Make, list and remove named bundles of slots.",
        "quota": "Set, list and remove what domains, projects and users may hold.",
        "decisions": "List what was decided, by which plugins.",
        "doctor": "Say what is wrong with the platform, and mend it.",
        "reservation": "Make, list and give up advance reservations.",
        "usage": "Show what was held, by whom and when.",
        "image": "List, pull, build and remove images.",
        "events": "Show what happened, and follow what happens.",
        "domain": "Make, list, change and close domains.",
        "project": "Make, list, change and close projects, and say who is in them.",
        "user": "Make, list, change and deactivate accounts.",
        "token": "Make, list and revoke tokens.",
    },
    "Extensions": {
        "simulate": "Try schedulers on a trace, or on the platform's own history.",
        "plugin": "List, check, write and diagnose plugins.",
        "completion": "Print what makes your shell complete bai.",
    },
}
NAMES = [name for group in COMMANDS.values() for name in group]
INTERRUPTED, PIPE_BROKE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bai`` and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        complete()
    try:
        try:
            return start(words)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone can still be told from a success
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush has somewhere to go
        return PIPE_BROKE


def start(words: list[str]) -> int:
    """Show help or the version, or run the command that is named."""
    if words[:1] == ["--json"] and len(words) > 1:
        words[:2] = [words[1], "--json"]
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1:
            return start([*words[1:], "--help"])
        sys.stdout.write(overview())
        return 0 if words else 2
    if words[0] == "--version":
        import backendai

        sys.stdout.write(f"bai {backendai.__version__}\n")
        return 0
    return run(words[0], words[1:])


def run(name: str, rest: list[str]) -> int:
    """Run one command; a ``Failure`` becomes a sentence on standard error and the exit status of its kind."""
    from backendai.model.errors import Failure

    as_json = "--json" in (rest[: rest.index("--")] if "--" in rest else rest)
    try:
        runner = find(name)
        options = read(name, runner, rest)
        return int(runner.run(options))
    except Failure as failure:
        return complain(failure, as_json)
    except OSError as error:
        if error.filename is None:
            raise
        return complain(Failure("invalid-request", f"{error.filename} cannot be used: {error.strerror}."), as_json)


def complain(failure: Failure, as_json: bool = False) -> int:
    """Say what went wrong on standard error and return the exit status."""
    if as_json:
        import json

        sys.stderr.write(json.dumps(failure.problem()) + "\n")
    else:
        from backendai.cli.screen import say

        say(f"bai: {failure.message}")
    return failure.kind.exit


def find(name: str) -> ModuleType | Command:
    """Return the module of a command, or a plugin's command; raise ``Failure('invalid-request')`` when there is none."""
    if name in NAMES:
        from importlib import import_module

        return import_module(f"backendai.cli.{name}")
    from backendai.cli.extra import find_extra

    return find_extra(name, NAMES)


def read(name: str, runner: Any, rest: list[str]) -> Namespace:
    """Read the arguments of a command. What stands behind ``--`` is the option ``command``, untouched."""
    from backendai.cli.parser import Parser

    parser = Parser(prog=f"bai {name}", allow_abbrev=False)
    prepare(parser, name, runner)
    before, behind = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, [])
    options = parser.parse_args(before)
    if behind and not hasattr(options, "words"):
        parser.error("it takes no command behind `--`")
    options.command = [*getattr(options, "words", ()), *behind]
    return options


def prepare(parser: ArgumentParser, name: str, runner: Any) -> None:
    """Add a command's arguments, and those that every command has."""
    from argparse import SUPPRESS

    parser.description = next((group[name] for group in COMMANDS.values() if name in group), getattr(runner, "help", None))
    runner.arguments(parser)
    said = "print what the API returns, as JSON"
    parser.add_argument("--json", action="store_true", help=said)
    for leaf, about in _leaves(parser):
        leaf.description = leaf.description or f"{about[:1].upper()}{about[1:]}."
        leaf.add_argument("--json", action="store_true", help=said, default=SUPPRESS)  # else it would undo the one before it


def _leaves(parser: ArgumentParser) -> list[tuple[ArgumentParser, str]]:
    """Return the parsers of a command's own commands, each with its line of help."""
    import argparse

    groups: list[_SubParsersAction[ArgumentParser]] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    lines = {choice.dest: choice.help or "" for group in groups for choice in group._choices_actions}
    return [(leaf, lines.get(name, "")) for group in groups for name, leaf in group.choices.items()
            if "--json" not in leaf._option_string_actions]


def overview() -> str:
    """Return the help for the whole command."""
    lines = ["usage: bai COMMAND ...", "", "Run code in containers, on this machine or on a cluster.", ""]
    for title, group in COMMANDS.items():
        lines += [f"{title}:", *(f"  {name:12}{text}" for name, text in group.items()), ""]
    lines += ["`bai COMMAND --help` tells more. Plugins may add commands; see `bai plugin ls`.",
              "Begin with `bai up`, then `bai run -- echo hello` in another terminal.", ""]
    return "\n".join(lines)


def complete() -> None:
    """Answer the shell's question for what may follow, and exit."""
    from argparse import ArgumentParser
    from importlib import import_module

    import argcomplete

    parser = ArgumentParser(prog="bai")
    commands = parser.add_subparsers()
    for name in NAMES:
        module = import_module(f"backendai.cli.{name}")
        prepare(commands.add_parser(name, help=""), name, module)
    argcomplete.autocomplete(parser)
