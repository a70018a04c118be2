"""``bai whoami``: who you are, and where."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.screen import connect, show_facts, show_json
from backendai.cli.user import places
from backendai.client import calls


def arguments(parser: ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def run(options: Namespace) -> int:
    """Print the account and the platform."""
    with connect() as client:
        who = client.raw(calls.whoami())
        if options.json:
            return show_json(who)
        show_facts({"name": who["name"], "role": who["role"], "email": who["email"], "uid:gid": f"{who['uid']}:{who['gid']}",
                    "domain": who["domain"], "projects": places(who["projects"], who["project"]), "token for": ", ".join(who["scopes"]),
                    "at": client.http.url, "cluster": who["cluster"], "version": who["version"]})
    return 0
