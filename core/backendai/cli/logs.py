"""``bai logs``: what a session wrote."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.follow import follow, write
from backendai.cli.screen import connect, names_sessions, show_json
from backendai.model.errors import Failure


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the session has ended")
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    names_sessions(parser)


def run(options: Namespace) -> int:
    """Write the output to standard output and standard error, as the session did."""
    if options.tail is not None and options.tail < 0:
        raise Failure("invalid-request", "--tail must be 0 or more.")
    with connect() as client:
        if options.json:
            if options.follow:
                raise Failure("invalid-request", "--json needs the end of the output; leave --follow out.")
            written = {1: b"", 2: b""}
            for channel, data in client.logs(options.session, tail=options.tail):
                written[channel] += data
            return show_json({"stdout": written[1].decode(errors="replace"), "stderr": written[2].decode(errors="replace")})
        if options.follow and options.tail is None:
            follow(client, options.session)
        else:
            for channel, data in client.logs(options.session, options.follow, options.tail):
                write(channel, data)
    return 0
