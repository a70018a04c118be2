"""``bai start``: an interactive session, which idles until it is stopped."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import add_options, new_session
from backendai.cli.follow import FAILED_EXIT, until_running
from backendai.cli.run import print_id, stay, try_out
from backendai.cli.screen import FINAL, Status, connect, say, show_json
from backendai.client import calls
from backendai.model.session import SessionType


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add_options(parser)


def run(options: Namespace) -> int:
    """Ask for the session, wait until it runs, and print its id. Ctrl-C stops it."""
    new = new_session(options, SessionType.INTERACTIVE)
    if options.dry_run:
        return try_out(new, options.json)
    with connect() as client:
        session = client.raw(calls.create_session(new))

        def watch() -> dict[str, Any]:
            with Status() as status:
                return until_running(client, session["id"], status)

        found = session if options.detach else stay(client, session, watch)
    if options.json:
        show_json(found)
    if found["state"] in FINAL:
        if not options.json:
            say(f"bai: {found['name']}: {found['reason'] or found['state'].lower()}")
        return FAILED_EXIT
    if options.json:
        return 0
    if not options.detach:
        say(f"{found['name']} runs on {found['agent']}. Get in with `bai exec -it {found['name']} -- sh`.")
    return print_id(found)
