"""``bai stop``: end sessions."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.asking import read_time
from backendai.cli.each import each
from backendai.cli.follow import until_final
from backendai.cli.screen import Status, connect, names_sessions, show_json
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--grace", metavar="TIME", help="from SIGTERM to SIGKILL, instead of the session's own")
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait for the end")
    names_sessions(parser, many=True)


def run(options: Namespace) -> int:
    """Ask all of them to end, then wait for each."""
    grace_s = read_time("--grace", options.grace)
    with connect() as client, Status() as status:
        asked, exit = each(options.sessions, lambda name: client.raw(calls.stop_session(name, grace_s)), options.json)
        ended = []
        for session in asked:
            ended.append(session if options.detach else until_final(client, session["id"], status))
            if not options.json:
                status.clear()
                print(session["name"], flush=True)
    return show_json({"items": ended}) or exit if options.json else exit
