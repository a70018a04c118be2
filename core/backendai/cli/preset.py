"""``bai preset``: named bundles of slots."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import name_group, read_slots
from backendai.cli.each import forget
from backendai.cli.screen import connect, names_at, show_json, show_table, slots
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list them")
    create = commands.add_parser("create", help="make one")
    create.add_argument("name", help="lower case")
    create.add_argument("-r", "--resources", required=True, metavar="SLOTS", help="such as cpu=4,mem=16g")
    name_group(create)
    create.add_argument("--about", default="", help="for people")
    remove = commands.add_parser("rm", help="remove some")
    action = remove.add_argument("names", nargs="+", metavar="PRESET")
    action.completer = lambda **_: names_at("/v1/presets")  # type: ignore[attr-defined]  # argcomplete looks for it


def run(options: Namespace) -> int:
    """Make, list or remove presets."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_preset(name)), options.json)
        if options.verb == "ls":
            page = client.raw(calls.list_presets())
            return show_json(page) if options.json else _table(page["items"])
        preset = client.raw(calls.create_preset(options.name, read_slots(options.resources), options.group, options.about))
    return show_json(preset) if options.json else _table([preset])


def _table(presets: list[dict[str, Any]]) -> int:
    show_table(("NAME", "SLOTS", "GROUP", "ABOUT"), [(p["name"], slots(p["slots"]), p["group"] or "any", p["about"]) for p in presets])
    return 0
