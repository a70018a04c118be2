"""``bai ps``: sessions in a table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.screen import age, connect, outcome, say, show_json, show_table, slots
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

MOST = 50


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-a", "--all", action="store_true", help=f"ended ones, too: the newest {MOST}, or -n of them")
    parser.add_argument("-n", "--number", type=int, metavar="N", help="at most so many, newest first")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def run(options: Namespace) -> int:
    """Print the sessions."""
    most = options.number if options.number is not None else MOST if options.all else None
    if most is not None and most < 1:
        raise Failure("invalid-request", "-n must be at least 1.")
    with connect() as client:
        page = collect(client, options.all, most)
    if options.json:
        return show_json(page)
    if options.quiet:
        for session in page["items"]:
            print(session["id"])
        return 0
    several = len({session["owner"] for session in page["items"]}) > 1
    heads = ["NAME", *(["OWNER"] if several else []), "ID", "TYPE", "STATE", "EXIT", "IMAGE", "AGENT", "SLOTS", "AGE", "WHY"]
    show_table(heads, [_row(session, several) for session in page["items"]])
    if page["next"]:
        say(f"The newest {len(page['items'])} are shown; -n N shows more.")
    return 0


def collect(client: Client, all: bool, most: int | None) -> dict[str, Any]:
    """Return one page with so many sessions, or every one."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        limit = calls.PAGE if most is None else min(calls.PAGE, most - len(items))
        page = client.raw(calls.list_sessions(all, None, cursor, limit))
        items += page["items"]
        cursor = page["next"]
        if cursor is None or (most is not None and len(items) >= most):
            return {"items": items, "next": cursor}


def _row(session: dict[str, Any], several: bool) -> list[str]:
    code = session["exit_code"]
    return [session["name"], *([session["owner"]] if several else []), session["id"], session["type"], session["state"],
            "" if code is None else str(code), session["image"] or "", session["agent"] or "", slots(session["slots"]),
            age(session["created_at"]), outcome(session)]
