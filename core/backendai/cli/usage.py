"""``bai usage``: what was held, by whom and when."""

from __future__ import annotations

import csv
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.screen import connect, show_json, show_table
from backendai.client import calls

BY = ("day", "group", "domain", "project", "user", "slot")


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--by", default="project,user", metavar="WORDS", help=f"any of {','.join(BY)}")
    parser.add_argument("--from", dest="since", metavar="DAY", help="such as 2026-11-26 (UTC)")
    parser.add_argument("--until", metavar="DAY", help="this day included")
    parser.add_argument("--csv", action="store_true", help="for a spreadsheet")


def run(options: Namespace) -> int:
    """Print what was held."""
    with connect() as client:
        page = client.raw(calls.read_usage(options.by, options.since, options.until))
    if options.json:
        return show_json(page)
    words = [word for word in BY if word in options.by.split(",") and word != "slot"]
    if options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([*words, "slot", "hours"])
        writer.writerows([*(line[word] for word in words), line["slot"], f"{line['hours']:.6f}"] for line in page["items"])
        return 0
    show_table([*(word.upper() for word in words), "SLOT", "HOURS"],
               [[*(line[word] for word in words), line["slot"], _hours(line)] for line in page["items"]])
    return 0


def _hours(line: dict[str, Any]) -> str:
    if line["slot"] == "mem" or line["slot"].endswith(".mem"):
        return f"{line['hours'] / (1 << 30):.2f}g"
    return f"{line['hours']:.2f}"
