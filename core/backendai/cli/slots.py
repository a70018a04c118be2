"""``bai slots``: what agents lend."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.screen import amount, connect, show_json, show_table
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments: there are none."""


def run(options: Namespace) -> int:
    """Print the slots."""
    with connect() as client:
        page = client.raw(calls.list_slots())
    if options.json:
        return show_json(page)
    show_table(("SLOT", "KIND", "STEP", "USED", "OF", "TITLE"), [
        (s["name"], s["kind"], amount(s["name"], s["quantum"]), amount(s["name"], s["used"]), amount(s["name"], s["capacity"]),
         s["title"]) for s in page["items"]])
    return 0
