"""``bai token``: what programs and people prove themselves with."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.asking import read_time
from backendai.cli.each import forget
from backendai.cli.screen import age, clock, connect, say, show_json, show_table
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make one and print it, this once")
    create.add_argument("name", help="for you to know it by; an agent's name for an agent's")
    create.add_argument("--user", help="for another account, as an administrator")
    create.add_argument("--agent", action="store_true", help="for an agent instead of a person")
    create.add_argument("--expires", metavar="TIME", help="after so long, such as 30d; never when left out")
    commands.add_parser("ls", help="list them, without their secrets")
    remove = commands.add_parser("rm", help="revoke some")
    remove.add_argument("ids", nargs="+", metavar="ID")


def run(options: Namespace) -> int:
    """Make, list or revoke tokens."""
    with connect() as client:
        if options.verb == "create":
            call = calls.create_token(options.name, options.user, options.agent, read_time("--expires", options.expires))
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
    show_table(("ID", "NAME", "FOR", "AGE", "EXPIRES"), [
        (t["id"], t["name"], "an agent" if t["agent"] else t["user"], age(t["created_at"]), clock(t["expires_at"]) or "never")
        for t in page["items"]])
    return 0
