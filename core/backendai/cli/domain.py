"""``bai domain``: tenants."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.each import forget
from backendai.cli.screen import age, connect, names_at, show_json, show_table
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list those that you may see").add_argument("-a", "--all", action="store_true", help="closed ones, too")
    show = commands.add_parser("show", help="show one")
    create = commands.add_parser("create", help="make one, and a project `default` in it")
    create.add_argument("name", help="lower case")
    change = commands.add_parser("set", help="change one; what is left out stays")
    for one in (show, change):
        name_domain(one, "name")
    for one in (create, change):
        one.add_argument("--weight", type=float, metavar="N", help="in fair sharing; 1 is usual")
        one.add_argument("--borrow", choices=("yes", "no"), help="whether its projects may use what the others leave unused")
    change.add_argument("--active", choices=("yes", "no"), help="no closes it, yes opens it again")
    name_domain(commands.add_parser("rm", help="close some that have no active sessions"), "names", "+")


def name_domain(parser: ArgumentParser, name: str, count: str | None = None) -> None:
    """Add an argument or an option that names a domain; the shell completes it."""
    more: dict[str, Any] = {"help": "a domain; see `bai domain ls`"} if name.startswith("-") else {"nargs": count}
    action = parser.add_argument(name, metavar="DOMAIN", **more)
    action.completer = complete_domains  # type: ignore[attr-defined]  # argcomplete looks for it


def complete_domains(**_: object) -> list[str]:
    """Return the names that the shell may complete a domain to."""
    return names_at("/v1/domains")


def run(options: Namespace) -> int:
    """Make, list, show, change or close domains."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_domain(name)), options.json)
        if options.verb == "ls":
            page = client.raw(calls.list_domains(options.all))
            return show_json(page) if options.json else _table(page["items"])
        domain = client.raw(_call(options))
    return show_json(domain) if options.json else _table([domain])


def _call(options: Namespace) -> calls.Call[Any]:
    if options.verb == "show":
        return calls.get_domain(options.name)
    given = {"weight": options.weight, "borrow": yes(options.borrow)}
    if options.verb == "create":
        return calls.create_domain(options.name, **given)
    return calls.change_domain(options.name, active=yes(options.active), **given)


def yes(word: str | None) -> bool | None:
    """Read ``yes`` or ``no``, or nothing."""
    return None if word is None else word == "yes"


def _table(domains: list[dict[str, Any]]) -> int:
    show_table(("NAME", "WEIGHT", "BORROW", "ACTIVE", "AGE", "ADMINISTRATORS"), [
        (d["name"], f"{d['weight']:g}", "yes" if d["borrow"] else "no", "yes" if d["active"] else "no", age(d["created_at"]),
         ", ".join(d["admins"])) for d in domains])
    return 0
