"""``bai token``: what programs and people prove themselves with."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.asking import read_time
from backendai.cli.each import forget
from backendai.cli.screen import age, clock, connect, names_at, say, show_json, show_table
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make one and print it, this once")
    create.add_argument("name", help="for you to know it by; an agent's name for an agent's")
    create.add_argument("--user", help="for another account, as an administrator")
    create.add_argument("--agent", action="store_true", help="for an agent instead of a person")
    create.add_argument("--expires", metavar="TIME", help="after so long, such as 30d; never when left out")
    scope = create.add_argument("--scope", action="append", metavar="SCOPE",
                                help="read, sessions, exec, admin or project:NAME; several by commas; all when left out")
    scope.completer = complete_scopes  # type: ignore[attr-defined]  # argcomplete looks for it
    commands.add_parser("ls", help="list them, without their secrets")
    remove = commands.add_parser("rm", help="revoke some")
    remove.add_argument("ids", nargs="+", metavar="ID")


def run(options: Namespace) -> int:
    """Make, list or revoke tokens."""
    with connect() as client:
        if options.verb == "create":
            call = calls.create_token(options.name, options.user, options.agent, read_time("--expires", options.expires),
                                      [scope for each in options.scope or () for scope in each.split(",")] or None)
            made = client.raw(call)
            if options.json:
                return show_json(made)
            if options.agent:
                say(f"On that machine: bai serve agent --manager {client.http.url} --name {made['name']} --token TOKEN")
            say("It is shown this once:")
            print(made["token"])
            return 0
        if options.verb == "rm":
            return forget(options.ids, lambda token: client.raw(calls.remove_token(token)), options.json)
        page = client.raw(calls.list_tokens())
    if options.json:
        return show_json(page)
    show_table(("ID", "NAME", "FOR", "SCOPES", "AGE", "EXPIRES"), [
        (t["id"], t["name"], "an agent" if t["agent"] else t["user"], " ".join(t["scopes"]) or "all", age(t["created_at"]),
         clock(t["expires_at"]) or "never") for t in page["items"]])
    return 0


def complete_scopes(**_: object) -> list[str]:
    """Return what the shell may complete a scope to."""
    return ["read", "sessions", "exec", "admin", *(f"project:{name}" for name in names_at("/v1/projects"))]
