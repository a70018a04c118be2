"""``bai user``: accounts."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from backendai.cli.asking import name_project
from backendai.cli.domain import name_domain
from backendai.cli.each import forget
from backendai.cli.screen import age, connect, say, show_json, show_table
from backendai.client import calls
from backendai.client.call import Call

ROLES = ("user", "domain-admin", "superadmin")


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    listed = commands.add_parser("ls", help="list those that you may see")
    name_domain(listed, "--domain")
    name_project(listed, help="only its members")
    show = commands.add_parser("show", help="show one")
    show.add_argument("name")
    for verb, said in (("create", "make one"), ("set", "change one; what is left out stays")):
        change = commands.add_parser(verb, help=said)
        change.add_argument("name", help="lower case" if verb == "create" else None)
        change.add_argument("--role", choices=ROLES)
        change.add_argument("--email")
        change.add_argument("--uid", type=int, help="inside containers")
        change.add_argument("--gid", type=int, help="inside containers")
        name_domain(change, "--domain")
        name_project(change, help="where their sessions go; created with it, they are a member there")
        if verb == "set":
            change.add_argument("--active", choices=("yes", "no"), help="no revokes its tokens")
    remove = commands.add_parser("rm", help="deactivate some and revoke their tokens")
    remove.add_argument("names", nargs="+", metavar="NAME")


def run(options: Namespace) -> int:
    """Make, list, change or deactivate accounts."""
    with connect() as client:
        if options.verb == "rm":
            return forget(options.names, lambda name: client.raw(calls.remove_user(name)), options.json)
        if options.verb == "ls":
            page = client.raw(calls.list_users(options.domain, options.project))
            return show_json(page) if options.json else _table(page["items"])
        user = client.raw(_call(options))
    if options.json:
        return show_json(user)
    _table([user])
    if options.verb == "create":
        say(f"Give them a token: bai token create --user {user['name']} first")
    return 0


def _call(options: Namespace) -> Call[Any]:
    if options.verb == "show":
        return calls.get_user(options.name)
    given = {"role": options.role, "email": options.email, "uid": options.uid, "gid": options.gid,
             "domain": options.domain, "project": options.project}
    if options.verb == "create":
        return calls.create_user(options.name, **given)
    return calls.change_user(options.name, active=None if options.active is None else options.active == "yes", **given)


def _table(users: list[dict[str, Any]]) -> int:
    show_table(("NAME", "ROLE", "EMAIL", "UID:GID", "DOMAIN", "PROJECTS", "ACTIVE", "AGE"), [
        (u["name"], u["role"], u["email"], f"{u['uid']}:{u['gid']}", u["domain"], places(u["projects"], u["project"]),
         "yes" if u["active"] else "no", age(u["created_at"])) for u in users])
    return 0


def places(ranks: Mapping[str, str], home: str) -> str:
    """Write in which projects somebody is, and as what where it is not a member; where their sessions go comes first."""
    order = sorted(ranks, key=lambda name: (name != home, name))
    return ", ".join(name if ranks[name] == "member" else f"{name} ({ranks[name]})" for name in order)
