"""``bai rm``: forget sessions."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.each import forget
from backendai.cli.screen import Status, connect, names_sessions
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-f", "--force", action="store_true", help="stop them first")
    names_sessions(parser, many=True)


def run(options: Namespace) -> int:
    """Forget them, their output included."""
    with connect() as client, Status() as status:

        def remove(name: str) -> None:
            status.show(f"removing {name}")
            client.raw(calls.remove_session(name, options.force))
            status.clear()

        return forget(options.sessions, remove, options.json)
