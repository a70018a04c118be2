"""``bai decisions``: the record of what was decided, for operators."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import name_group
from backendai.cli.screen import clock, connect, say, show_json, show_table
from backendai.client import calls
from backendai.model.errors import Failure


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    name_group(parser)
    parser.add_argument("-n", "--number", type=int, default=20, metavar="N", help="the newest so many; 20 when left out")
    parser.add_argument("--session", metavar="ID", help="only those that placed this session")


def run(options: Namespace) -> int:
    """Print the newest decisions."""
    if options.number < 1:
        raise Failure("invalid-request", "-n must be at least 1.")
    with connect() as client:
        page = client.raw(calls.list_decisions(options.group, options.session, None, options.number))
        names = {agent["id"]: agent["name"] for agent in client.raw(calls.list_agents())["items"]} if not options.json else {}
    if options.json:
        return show_json(page)
    show_table(("ID", "AT", "GROUP", "MOMENT", "KEPT", "SCHEDULER", "SELECTOR", "PLACED"),
               [row(decision, names) for decision in page["items"]])
    if page["next"]:
        say(f"The newest {len(page['items'])} are shown; -n N shows more.")
    return 0


def row(decision: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    """Return a decision's line. names: of agents, by id."""
    placed = [f"{session} on {', '.join(dict.fromkeys(names.get(agent, agent) for agent in agents))}"
              for session, agents in decision["placed"].items()]
    more = f" and {len(placed) - 3} more" if len(placed) > 3 else ""
    return (str(decision["id"]), clock(decision["at"]), decision["group"], decision["snapshot"][:16], "yes" if decision["kept"] else "no",
            decision["scheduler"].partition(" (")[0], decision["selector"].partition(" (")[0], "; ".join(placed[:3]) + more)
