"""``bai agent``: what the operator wants of a node."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli import agents
from backendai.cli.asking import name_group
from backendai.cli.each import each
from backendai.cli.screen import Status, connect, names_at, say, show_facts, show_json
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

LOOK_S = 2.0  # between two looks at an agent that is being drained


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list them, as `bai agents` does")
    _named(commands.add_parser("show", help="show one in full"), many=False)
    change = commands.add_parser("set", help="move one to another group, or label it; what runs there goes on")
    _named(change, many=False)
    name_group(change)
    change.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="NAME= takes one away")
    change.add_argument("--zone", help="its failure domain, the label zone")
    _named(commands.add_parser("cordon", help="place nothing new on some"))
    _named(commands.add_parser("uncordon", help="place sessions on some again"))
    drain = commands.add_parser("drain", help="place nothing new on some, and move what may be moved")
    _named(drain)
    drain.add_argument("--wait", action="store_true", help="until nothing runs there any more")


def _named(parser: ArgumentParser, many: bool = True) -> None:
    action = parser.add_argument("names" if many else "name", nargs="+" if many else None, metavar="AGENT", help="its id or its name")
    action.completer = complete_agents  # type: ignore[attr-defined]  # argcomplete looks for it


def complete_agents(**_: object) -> list[str]:
    """Return the names that the shell may complete an agent to."""
    return names_at("/v1/agents")


def run(options: Namespace) -> int:
    """Show or change agents."""
    if options.verb == "ls":
        return agents.show_all(options.json)
    with connect() as client:
        if options.verb in ("show", "set"):
            call = calls.get_agent(options.name) if options.verb == "show" else _change(options)
            agent = client.raw(call)
            if not options.json:
                show_facts(agents.facts(agent))
            return show_json(agent) if options.json else 0
        wish = {"cordon": {"cordoned": True, "draining": False}, "uncordon": {"cordoned": False}, "drain": {"draining": True}}[options.verb]
        done, exit = each(options.names, lambda name: client.raw(calls.change_agent(name, **wish)), options.json)
        if options.verb == "drain" and options.wait:
            done = [_empty(client, agent) for agent in done]
    if options.json:
        show_json({"items": done})
    else:
        for agent in done:
            say(f"{agent['name']} is {agents.state(agent)}; {_left(agent)}.")
    return exit


def _change(options: Namespace) -> calls.Call[Any]:
    labels: dict[str, str | None] = {}
    for text in options.label:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure("invalid-request", f"--label {text}: write NAME=VALUE, or NAME= to take it away.")
        labels[name] = value or None
    if options.zone is not None:
        labels["zone"] = options.zone or None
    return calls.change_agent(options.name, group=options.group, labels=labels or None)


def _empty(client: Client, agent: dict[str, Any]) -> dict[str, Any]:
    """Return an agent once nothing runs there any more, or once somebody else has called the draining off."""
    with Status() as status:
        while agent["kernels"] and agent["draining"]:
            status.show(f"{agent['name']}: {_left(agent)}")
            time.sleep(LOOK_S)
            agent = client.raw(calls.get_agent(agent["id"]))
    return agent


def _left(agent: dict[str, Any]) -> str:
    count = agent["kernels"]
    return "nothing runs there" if not count else f"{count} kernel{'s' * (count > 1)} still there"
