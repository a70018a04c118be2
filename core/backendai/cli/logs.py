"""``bai logs``: what a session wrote."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.follow import follow, write
from backendai.cli.screen import connect, names_sessions, show_json
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

ALL = ":all"  # in the place of a container's name


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the session has ended")
    parser.add_argument("--attempt", type=int, metavar="N", help="of an earlier attempt")
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    names_sessions(parser)


def run(options: Namespace) -> int:
    """Write the output to standard output and standard error, as the session did."""
    if options.tail is not None and options.tail < 0:
        raise Failure("invalid-request", "--tail must be 0 or more.")
    with connect() as client:
        if options.session.endswith(ALL):
            return _all(client, options)
        if options.json:
            if options.follow:
                raise Failure("invalid-request", "--json needs the end of the output; leave --follow out.")
            written = {1: b"", 2: b""}
            for channel, data in client.logs(options.session, tail=options.tail, attempt=options.attempt):
                written[channel] += data
            return show_json({"stdout": written[1].decode(errors="replace"), "stderr": written[2].decode(errors="replace")})
        if options.follow and options.tail is None and options.attempt is None:
            follow(client, options.session)
        else:
            for channel, data in client.logs(options.session, options.follow, options.tail, options.attempt):
                write(channel, data)
    return 0


def _all(client: Client, options: Namespace) -> int:
    """Write what every container wrote, one after the other, each line with its name."""
    if options.follow or options.json:
        raise Failure("invalid-request", f"{ALL} is for people, and for what was written so far; follow one container, such as S:sub1.")
    name = options.session.removesuffix(ALL)
    kernels = [kernel["name"] for kernel in client.raw(calls.get_session(name)).get("kernels", ())] or ["main1"]
    width = max(map(len, kernels))
    for kernel in kernels:
        written: dict[int, bytes] = {}
        for channel, data in client.logs(f"{name}:{kernel}", tail=options.tail, attempt=options.attempt):
            written[channel] = written.get(channel, b"") + data
        for channel, data in sorted(written.items()):
            for line in data.splitlines(keepends=True):
                write(channel, f"{kernel:{width}} | ".encode() + line)
    return 0
