"""``bai reservation``: room that is kept for somebody from one moment to another."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from datetime import datetime
from typing import Any

from backendai.cli.asking import name_group, read_slots
from backendai.cli.each import forget
from backendai.cli.screen import clock, connect, names_at, show_json, show_table, slots
from backendai.client import calls
from backendai.model.errors import Failure
from backendai.model.units import parse_seconds


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list them, the next first")
    create = commands.add_parser("create", help="make one; `bai run --reservation NAME` uses it")
    add = create.add_argument
    add("name", help="lower case")
    add("--for", dest="scope", required=True, metavar="WHO", help="whose sessions may use it: project:D/P, domain:D or user:U")
    add("--from", dest="begins", default="now", metavar="WHEN", help="2026-11-27T09:00 on your clock, or +2h from now; now when left out")
    add("--until", dest="ends", required=True, metavar="WHEN", help="the same, or +4h from its beginning")
    name_group(create)
    add("--agents", metavar="NAMES", help="on these, such as box1,box2")
    add("--count", type=int, metavar="N", help="on so many instead")
    add("--label", action="append", default=[], metavar="NAME=VALUE", help="of those with this label")
    add("-r", "--resources", metavar="SLOTS", help="of each agent, such as cpu=8,mem=32g; the whole agent when left out")
    remove = commands.add_parser("rm", help="give some up; what runs in them goes on")
    action = remove.add_argument("names", nargs="+", metavar="RESERVATION")
    action.completer = lambda **_: names_at("/v1/reservations")  # type: ignore[attr-defined]  # argcomplete looks for it


def run(options: Namespace) -> int:
    """Make, list or give up reservations."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_booking(name)), options.json)
        if options.verb == "ls":
            page = client.raw(calls.list_bookings())
            return show_json(page) if options.json else _table(page["items"])
        booking = client.raw(_call(options))
    return show_json(booking) if options.json else _table([booking])


def _call(options: Namespace) -> calls.Call[Any]:
    begins = read_moment("--from", options.begins, time.time())
    labels = dict(label.partition("=")[::2] for label in options.label)
    given = {"group": options.group, "count": options.count, "labels": labels or None,
             "agents": [name for name in (options.agents or "").split(",") if name] or None,
             "slots": None if options.resources is None else read_slots(options.resources)}
    return calls.create_booking(options.name, options.scope, begins, read_moment("--until", options.ends, begins), **given)


def read_moment(option: str, text: str, base: float) -> float:
    """Read a moment on the user's clock, or how long after *base*; return seconds since the epoch."""
    try:
        if text == "now":
            return base
        return base + parse_seconds(text[1:]) if text.startswith("+") else datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Failure("invalid-request", f"{option} {text}: write 2026-11-27T09:00, or +2h.") from None


def _table(bookings: list[dict[str, Any]]) -> int:
    show_table(("NAME", "STATE", "FOR", "GROUP", "FROM", "UNTIL", "KEEPS"), [
        (b["name"], b["state"], b["scope"], b["group"], clock(b["begins"]), clock(b["ends"]),
         "; ".join(f"{agent} {slots(amounts)}" for agent, amounts in b["agents"].items())) for b in bookings])
    return 0
