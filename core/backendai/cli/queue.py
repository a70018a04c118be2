"""``bai queue``: who waits in each resource group, in the order in which they go, and when they will start."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import name_group
from backendai.cli.screen import age, connect, show_json, show_table, slots
from backendai.cli.when import brief
from backendai.cli.why import write
from backendai.client import calls

HEADS = ("#", "NAME", "OWNER", "PRIORITY", "SLOTS", "SINCE", "STARTS", "WHY")


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    name_group(parser)
    parser.add_argument("-n", "--number", type=int, metavar="N", help="at most so many of each group; 200 when left out")


def run(options: Namespace) -> int:
    """Print the queues."""
    with connect() as client:
        page = client.raw(calls.get_queue(options.group, None, options.number))
    if options.json:
        return show_json(page)
    shown = [queue for queue in page["items"] if queue["waiting"]]
    if not shown:
        write("Nobody waits.")
    for number, queue in enumerate(shown):
        if number:
            write("")
        show(queue)
    return 0


def show(queue: dict[str, Any]) -> None:
    """Print the queue of one group."""
    write(title(queue))
    if queue["items"]:
        show_table(HEADS, [row(entry) for entry in queue["items"]])
        write(queue["text"])


def title(queue: dict[str, Any]) -> str:
    """Say how many wait in a group, and how many of them one does not see."""
    by = f", ordered by {queue['scheduler']}" if queue["scheduler"] else ""
    hidden = f"; {queue['hidden']} of them {'is' if queue['hidden'] == 1 else 'are'} not yours to see" if queue["hidden"] else ""
    return f"{queue['group']}: {queue['waiting']} {'waits' if queue['waiting'] == 1 else 'wait'}{by}{hidden}"


def row(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return a session's line."""
    position = "-" if entry["position"] is None else str(entry["position"])
    return (position, entry["name"], entry["owner"], str(entry["priority"]), slots(entry["slots"]), age(entry["since"]),
            brief(entry["earliest"], entry["latest"]), entry["hold"])
