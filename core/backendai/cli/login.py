"""``bai login``: use a platform somewhere else."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from getpass import getpass

from backendai.cli.screen import say, show_json
from backendai.client.settings import Login, check_url, load_settings, save_settings, settings_path
from backendai.client.sync import Client
from backendai.model.errors import Failure


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("url", help="its address, such as https://cluster.example")
    parser.add_argument("--token", help="yours; asked for, or read from standard input, when left out")


def run(options: Namespace) -> int:
    """Check the token with the platform and keep it, for this user alone."""
    url = check_url(options.url)
    token = options.token or (getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not token:
        raise Failure("invalid-request", "A token is needed; an administrator makes one with `bai token create`.")
    with Client(url, token) as client:
        who = client.whoami()
    save_settings(load_settings().add(Login(url, token, who.cluster)))
    if options.json:
        return show_json({"url": url, "name": who.name, "cluster": who.cluster})
    say(f"You are {who.name} at {url}; the token is kept in {settings_path()}.")
    return 0
