"""``bai quota``: what domains, projects and users may hold."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import name_group, read_slots
from backendai.cli.screen import amount, connect, say, show_json, show_table
from backendai.client import calls
from backendai.model.units import format_seconds


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    show = commands.add_parser("ls", help="list them, with what is used")
    show.add_argument("scope", nargs="?", help="only of domain:D, project:D/P or user:U")
    change = commands.add_parser("set", help="set some; those that are not named stay")
    change.add_argument("scope", help="domain:D, project:D/P or user:U")
    change.add_argument("limits", nargs="+", metavar="NAME=LIMIT", help="such as cpu=64 sessions=20 waiting=100 kernels=8 lifetime=7d")
    remove = commands.add_parser("rm", help="take some away")
    remove.add_argument("scope", help="domain:D, project:D/P or user:U")
    remove.add_argument("what", nargs="*", help="which; all of this scope and group when left out")
    for one in (show, change, remove):
        name_group(one)


def run(options: Namespace) -> int:
    """List, set or remove quotas."""
    with connect() as client:
        if options.verb == "rm":
            for what in options.what or [None]:
                client.raw(calls.remove_quotas(options.scope, options.group, what))
            gone = options.what or ["every quota"]
            return show_json({"removed": options.what}) if options.json else _said(options.scope, gone)
        if options.verb == "set":
            page = client.raw(calls.set_quotas(options.scope, read_slots(",".join(options.limits)), options.group))
        else:
            page = client.raw(calls.list_quotas(options.scope, options.group))
    return show_json(page) if options.json else _table(page["items"])


def _said(scope: str, gone: list[str]) -> int:
    say(f"{scope} is not limited any more in {', '.join(gone)}.")
    return 0


def _table(quotas: list[dict[str, Any]]) -> int:
    show_table(("WHOSE", "GROUP", "WHAT", "USED", "LIMIT", ""), [
        (q["scope"], q["group"] or "all", q["what"], "-" if q["used"] is None else _of(q["what"], q["used"]), _of(q["what"], q["limit"]),
         "may borrow" if q["borrow"] else "") for q in quotas])
    return 0


def _of(what: str, value: float) -> str:
    return format_seconds(value) if what == "lifetime" else amount(what, value)
