"""``bai agents``: the nodes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.screen import age, amount, clock, connect, show_facts, show_json, show_table, slots
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("agent", nargs="?", help="one of them, by id or name, in full")


def run(options: Namespace) -> int:
    """Print the agents, or one in full."""
    if options.agent is None:
        return show_all(options.json)
    with connect() as client:
        agent = client.raw(calls.get_agent(options.agent))
    if not options.json:
        show_facts(facts(agent))
    return show_json(agent) if options.json else 0


def show_all(as_json: bool) -> int:
    """Print a table of the agents."""
    with connect() as client:
        page = client.raw(calls.list_agents())
    if as_json:
        return show_json(page)
    show_table(("NAME", "GROUP", "STATE", "RUNTIME", "ENGINE", "USED", "KERNELS", "LABELS", "SEEN", "WHY"), [
        (a["name"], a["group"], state(a), a["runtime"], a["engine"], used(a), str(a["kernels"]), labels(a), f"{age(a['last_seen'])} ago",
         a["why"]) for a in page["items"]])
    return 0


def state(agent: dict[str, Any]) -> str:
    """Say how an agent is, in a few words."""
    is_now = "away" if not agent["connected"] else "healthy" if agent["healthy"] else "unhealthy"
    return is_now + (", draining" if agent["draining"] else ", cordoned" if agent["cordoned"] else "")


def labels(agent: dict[str, Any]) -> str:
    """Write an agent's labels."""
    return ",".join(f"{name}={value}" for name, value in sorted(agent["labels"].items()))


def used(agent: dict[str, Any]) -> str:
    """Say how much of each slot is in use, of how much."""
    held = agent["used"]
    return ", ".join(f"{name} {amount(name, held.get(name, 0))}/{amount(name, total)}" for name, total in agent["capacity"].items())


def runs_on(runtime: str, engine: str) -> str:
    """Say what runs containers; most engines begin with their own name."""
    return engine if engine.lower().startswith(runtime) else f"{runtime} ({engine})"


def facts(agent: dict[str, Any]) -> dict[str, str]:
    """Return what to show of an agent, by name."""
    return {
        "name": agent["name"],
        "id": agent["id"],
        "group": agent["group"],
        "state": state(agent),
        "labels": labels(agent),
        "why": agent["why"],
        "version": agent["version"],
        "machine": agent["arch"],
        "runtime": runs_on(agent["runtime"], agent["engine"]),
        "default image": agent["default_image"],
        "can": ", ".join(agent["features"]),
        **{f"cannot {feature}": why for feature, why in agent["missing"].items()},
        **{f"limits {name}": how for name, how in agent["limits"].items()},
        "capacity": slots(agent["capacity"]),
        "free": slots(agent["free"]),
        "kernels": str(agent["kernels"]),
        "last seen": clock(agent["last_seen"]),
        "since": clock(agent["created_at"]),
    }
