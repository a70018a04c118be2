"""``bai project``: projects, and who is in them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.asking import complete_projects
from backendai.cli.domain import name_domain, yes
from backendai.cli.each import each, forget
from backendai.cli.screen import age, connect, names_at, show_json, show_table
from backendai.client import calls
from backendai.client.sync import Client

RANKS = ("admin", "member", "viewer")


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    listed = commands.add_parser("ls", help="list those that you may see")
    listed.add_argument("-a", "--all", action="store_true", help="closed ones, too")
    create = commands.add_parser("create", help="make one")
    create.add_argument("name", help="lower case")
    for one in (listed, create):
        name_domain(one, "--domain")
    shown, change, members, add, remove = (commands.add_parser(verb, help=said) for verb, said in (
        ("show", "show one"), ("set", "change one; what is left out stays"), ("members", "list who is in one, and as what"),
        ("add", "make users members, or change what they are"), ("remove", "take users out; anyone may leave")))
    for one in (shown, change, members, add, remove):
        _named(one, "name")
    for one in (create, change):
        one.add_argument("--weight", type=float, metavar="N", help="in fair sharing within the domain; 1 is usual")
    change.add_argument("--active", choices=("yes", "no"), help="no closes it, yes opens it again")
    for one in (add, remove):
        action = one.add_argument("users", nargs="+", metavar="USER")
        action.completer = complete_users  # type: ignore[attr-defined]  # argcomplete looks for it
    add.add_argument("--role", choices=RANKS, help="member when left out")
    _named(commands.add_parser("rm", help="close some that have no active sessions"), "names", "+")


def _named(parser: ArgumentParser, name: str, count: str | None = None) -> None:
    action = parser.add_argument(name, nargs=count, metavar="PROJECT", help="NAME in your domain, or DOMAIN/NAME")
    action.completer = complete_projects  # type: ignore[attr-defined]  # argcomplete looks for it


def complete_users(**_: object) -> list[str]:
    """Return the names that the shell may complete a user to."""
    return names_at("/v1/users")


def run(options: Namespace) -> int:
    """Make, list, show, change or close projects, or change who is in one."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_project(name)), options.json)
        if options.verb == "remove":
            return forget(options.users, lambda user: client.raw(calls.remove_member(options.name, user)), options.json)
        if options.verb in ("add", "members"):
            return _members(client, options)
        if options.verb == "ls":
            page = client.raw(calls.list_projects(options.domain, options.all))
            return show_json(page) if options.json else _table(page["items"])
        project = client.raw(_call(options))
    return show_json(project) if options.json else _table([project])


def _call(options: Namespace) -> calls.Call[Any]:
    if options.verb == "show":
        return calls.get_project(options.name)
    if options.verb == "create":
        return calls.create_project(options.name, domain=options.domain, weight=options.weight)
    return calls.change_project(options.name, weight=options.weight, active=yes(options.active))


def _members(client: Client, options: Namespace) -> int:
    if options.verb == "members":
        page, exit = client.raw(calls.list_members(options.name)), 0
    else:
        added, exit = each(options.users, lambda user: client.raw(calls.put_member(options.name, user, options.role)), options.json)
        page = {"items": added}
    if options.json:
        return show_json(page) or exit
    if page["items"] or not exit:
        show_table(("USER", "ROLE", "EMAIL"), [(m["user"], m["role"], m["email"]) for m in page["items"]])
    return exit


def _table(projects: list[dict[str, Any]]) -> int:
    show_table(("NAME", "DOMAIN", "WEIGHT", "MEMBERS", "YOU ARE", "ACTIVE", "AGE"), [
        (p["name"], p["domain"], f"{p['weight']:g}", str(p["members"]), p["role"], "yes" if p["active"] else "no", age(p["created_at"]))
        for p in projects])
    return 0
