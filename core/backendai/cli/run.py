"""``bai run``: a batch session, with its output and its exit code as if it ran here."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from backendai.cli.asking import add_options, new_session
from backendai.cli.follow import LOOK_S, exit_status, follow, until_final, until_running
from backendai.cli.screen import FINAL, Status, connect, say, show_json
from backendai.client import calls
from backendai.client.calls import NewSession
from backendai.client.sync import Client
from backendai.model.errors import Failure
from backendai.model.session import SessionType


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add_options(parser)
    parser.add_argument("--rm", action="store_true", help="forget it when it has ended")
    parser.add_argument("words", nargs="*", metavar="-- COMMAND", help="what to run, and its arguments; the image's own when left out")


def run(options: Namespace) -> int:
    """Ask for the session and stay with it to its end. Ctrl-C stops it; a second one leaves it to stop by itself."""
    if options.detach and options.rm:
        raise Failure("invalid-request", "--rm needs somebody who waits; leave it or --detach out.")
    new = new_session(options, SessionType.BATCH, options.command)
    if options.dry_run:
        return try_out(new, options.json)
    with connect() as client:
        session = client.raw(calls.create_session(new))
        if options.array is not None:
            return show_json(session) if options.json else print_array(session)
        if options.detach:
            return show_json(session) if options.json else print_id(session)
        session = stay(client, session, lambda: _watch(client, session, options.json))
        if options.rm:
            client.remove(session["id"])
    if options.json:
        show_json(session)
    return exit_status(session)


def try_out(new: NewSession, as_json: bool) -> int:
    """Say what would become of a session."""
    from backendai.cli.why import show

    with connect() as client:
        why = client.raw(calls.dry_run(new))
    return show_json(why) if as_json else show(why)


def print_id(session: dict[str, Any]) -> int:
    """Print a session's id alone; return the exit status of success."""
    sys.stdout.write(f"{session['id']}\n")
    return 0


def print_array(session: dict[str, Any]) -> int:
    """Print the id of the array that a session is the first of."""
    name = session["name"].rpartition("-")[0]
    say(f"{session['array']['size']} sessions wait. See `bai ps`; `bai stop {name}` stops them all.")
    sys.stdout.write(f"{session['array']['id']}\n")
    return 0


def _watch(client: Client, session: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Follow a session to its end, attempt by attempt where it may have several."""
    id, followed = session["id"], 0
    while True:
        with Status() as status:
            found: dict[str, Any] = until_running(client, id, status)
        if not quiet and found.get("attempt", 1) > followed:
            follow(client, id)
        followed = found.get("attempt", 1)
        if not found.get("evicted") and not (found.get("retry") or {}).get("count"):
            return until_final(client, id)
        found = client.raw(calls.get_session(id, "final", LOOK_S))
        if found["state"] in FINAL:
            if not quiet and found["attempt"] > followed:
                follow(client, id)
            return found


def stay(client: Client, session: dict[str, Any], watch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Watch a session; when that is interrupted, or nobody takes the output, stop it."""
    id, name = session["id"], session["name"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return watch()
    except BrokenPipeError:
        client.http.close()
        client.stop(id)
        raise
    except KeyboardInterrupt:
        client.http.close()  # whatever was asked last is not answered any more
        client.stop(id)
        say(f"bai: stopping {name}; press Ctrl-C again to leave it alone")
    except Failure as failure:
        if failure.code == "unreachable":
            raise Failure("unreachable", f"{failure.message} {name} goes on; `bai logs -f {name}` follows it.") from failure
        raise
    try:
        until_final(client, id)
    except KeyboardInterrupt:
        say(f"bai: {name} is stopping; see `bai ps -a`")
    raise KeyboardInterrupt
