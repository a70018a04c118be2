"""``bai events``: what happened, and what happens."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.follow import patiently
from backendai.cli.screen import clock, connect, plain
from backendai.client.sync import Client


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens from now on")
    parser.add_argument("--since", type=int, metavar="ID", help="begin after the event with this id")


def run(options: Namespace) -> int:
    """Print an event on each line; with --json as the API writes them."""
    last = options.since if options.since is not None else None if options.follow else 0
    with connect() as client:
        try:
            _watch(client, options.follow, last, options.json)
        except KeyboardInterrupt:
            return 0
    return 0


def _watch(client: Client, follow: bool, last: int | None, as_json: bool) -> None:
    """Print events; after a broken connection go on behind the last one."""

    def once() -> None:
        nonlocal last
        for data in client.raw_events(follow, last):
            event = json.loads(data)
            last = event["id"]
            sys.stdout.write((data.decode() if as_json else _line(event)) + "\n")
            sys.stdout.flush()

    if not follow:
        once()
        return
    while True:
        patiently(once, lambda: last or 0)
        time.sleep(1)  # the server ends a stream when it stops


def _line(event: dict[str, Any]) -> str:
    data = event["data"]
    by = f" by {data['by']}" if data.get("by") else ""
    why = f": {data['reason']}" if data.get("reason") else ""
    return plain(f"{event['id']:>6}  {clock(event['at'])}  {event['type']:22} {data.get('name') or event['subject']}{by}{why}")
