"""``bai group``: resource groups."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import Any

from backendai.cli.asking import complete_groups, read_time
from backendai.cli.each import forget
from backendai.cli.screen import age, amount, connect, show_facts, show_json, show_table
from backendai.client import calls
from backendai.model.errors import Failure
from backendai.model.units import format_seconds


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list those that you may use")
    _named(commands.add_parser("show", help="show one in full"))
    create = commands.add_parser("create", help="make one; agents join it with `bai agent set NAME --group G`")
    create.add_argument("name", help="lower case")
    change = commands.add_parser("set", help="change one; what is left out stays")
    _named(change)
    for one in (create, change):
        _options(one)
    remove = commands.add_parser("rm", help="remove some that have neither agents nor sessions")
    _named(remove, "names", "+")


def _named(parser: ArgumentParser, name: str = "name", count: str | None = None) -> None:
    action = parser.add_argument(name, nargs=count, metavar="GROUP")
    action.completer = complete_groups  # type: ignore[attr-defined]  # argcomplete looks for it


def _options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--scheduler", metavar="NAME", help="a plugin; empty for the manager's own")
    add("--selector", metavar="NAME", help="a plugin; empty for the manager's own")
    add("--scheduler-option", action="append", metavar="NAME=VALUE", help="an option of the scheduler; together they replace the old ones")
    add("--selector-option", action="append", metavar="NAME=VALUE", help="an option of the selector")
    add("--allow", action="append", metavar="WHO", help="domain:D, project:D/P, user:U or *; together they replace the old ones")
    add("--types", metavar="TYPES", help="which sessions it takes: interactive,batch")
    add("--preempt", choices=("yes", "no"), help="whether urgent sessions may have others make room")
    add("--reclaim", choices=("yes", "no"), help="whether projects take back what others borrowed of their quota")
    add("--least-run", metavar="TIME", help="how long a session is safe after its start")
    add("--preempt-grace", metavar="TIME", help="from SIGTERM to SIGKILL of one that makes room")
    add("--half-life", metavar="TIME", help="after which past usage counts half in fair sharing")
    add("--idle", action="append", metavar="RULE",
        help="KIND:TIME[,grace=TIME][,warn=TIME][,for=WHO][,SLOT=SHARE], such as network:3h or utilization:1h,cpu=0.05; none for none")


def run(options: Namespace) -> int:
    """Make, list, show, change or remove resource groups."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_group(name)), options.json)
        if options.verb == "ls":
            page = client.raw(calls.list_groups())
            return show_json(page) if options.json else _table(page["items"])
        group = client.raw(_call(options))
    if not options.json:
        show_facts(facts(group))
    return show_json(group) if options.json else 0


def _call(options: Namespace) -> calls.Call[Any]:
    if options.verb == "show":
        return calls.get_group(options.name)
    preemption = {"enabled": _yes(options.preempt), "reclaim": _yes(options.reclaim),
                  "least_run_s": read_time("--least-run", options.least_run),
                  "grace_s": read_time("--preempt-grace", options.preempt_grace)}
    preemption = {name: value for name, value in preemption.items() if value is not None}
    given = {"scheduler": options.scheduler, "selector": options.selector,
             "scheduler_options": _pairs("--scheduler-option", options.scheduler_option),
             "selector_options": _pairs("--selector-option", options.selector_option),
             "allow": None if options.allow is None else [who for who in options.allow if who],
             "types": None if options.types is None else [word for word in options.types.split(",") if word],
             "half_life_s": read_time("--half-life", options.half_life), "preemption": preemption or None,
             "idle": None if options.idle is None else [read_rule(rule) for rule in options.idle if rule != "none"]}
    return calls.create_group(options.name, **given) if options.verb == "create" else calls.change_group(options.name, **given)


def read_rule(text: str) -> dict[str, Any]:
    """Read an idle rule such as ``network:3h,grace=10m,for=project:default/ml``."""
    head, *more = text.split(",")
    kind, _, after = head.partition(":")
    rule: dict[str, Any] = {"kind": kind, "after_s": read_time(f"--idle {text}", after or "?")}
    for part in more:
        name, equals, value = part.partition("=")
        if not equals:
            raise Failure("invalid-request", f"--idle {text}: {part!r} is not NAME=VALUE.")
        if name in ("grace", "warn"):
            rule[f"{name}_s"] = read_time(f"--idle {text}", value)
        elif name == "for":
            rule["scope"] = value
        else:
            try:
                rule.setdefault("thresholds", {})[name] = float(value)
            except ValueError:
                raise Failure("invalid-request", f"--idle {text}: {value!r} is not a share such as 0.05.") from None
    return rule


def _pairs(option: str, given: Iterable[str] | None) -> dict[str, Any] | None:
    """Read options of a plugin; a value that is JSON is what it says, any other is a text."""
    if given is None:
        return None
    found: dict[str, Any] = {}
    for text in filter(None, given):
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure("invalid-request", f"{option} {text}: write NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _yes(word: str | None) -> bool | None:
    return None if word is None else word == "yes"


def _table(groups: list[dict[str, Any]]) -> int:
    show_table(("NAME", "SCHEDULER", "SELECTOR", "AGENTS", "RUNNING", "WAITING", "USED", "ALLOWED"), [
        (g["name"], *g["decided_by"], str(len(g["agents"])), str(g["running"]), str(g["waiting"]), _used(g),
         ", ".join(g["allow"])) for g in groups])
    return 0


def _used(group: dict[str, Any]) -> str:
    held = group["used"]
    return ", ".join(f"{name} {amount(name, held.get(name, 0))}/{amount(name, total)}" for name, total in group["capacity"].items())


def facts(group: dict[str, Any]) -> dict[str, str]:
    """Return what to show of a group, by name."""
    options = group["options"]
    preemption = options["preemption"]
    return {
        "name": group["name"],
        "id": group["id"],
        "scheduler": _plugin(group["scheduler"], group["decided_by"][0], options["scheduler"]),
        "selector": _plugin(group["selector"], group["decided_by"][1], options["selector"]),
        "allowed": ", ".join(group["allow"]) or "superadmins only",
        "takes": ", ".join(options["types"]),
        "preemption": ", ".join(word for word in ("enabled", "reclaim") if preemption[word]) or "no",
        "safe for": format_seconds(preemption["least_run_s"]) if preemption["enabled"] else "",
        "half-life": format_seconds(options["half_life_s"]),
        "idle rules": "; ".join(map(_rule, options["idle"])),
        "agents": ", ".join(group["agents"]),
        "used": _used(group),
        "sessions": f"{group['running']} running, {group['waiting']} waiting",
        "since": f"{age(group['created_at'])} ago",
    }


def _plugin(name: str, decides: str, options: dict[str, Any]) -> str:
    given = " ".join(f"{option}={json.dumps(value)}" for option, value in options.items())
    return f"{name or f'{decides} (as the manager has it)'} {given}".strip()


def _rule(rule: dict[str, Any]) -> str:
    below = ", ".join(f"{slot} below {share:g}" for slot, share in rule["thresholds"].items())
    whom = f" for {rule['scope_id']}" if rule["scope_id"] else ""
    return f"{rule['kind']} after {format_seconds(rule['after_s'])}{f' ({below})' if below else ''}{whom}"
