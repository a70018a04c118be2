"""``bai cp``: files into and out of sessions."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from backendai.cli.screen import Status, connect, show_json
from backendai.client.copy import download, upload
from backendai.model.errors import Failure
from backendai.model.units import format_bytes

_REMOTE = re.compile(r"([A-Za-z0-9][\w.%-]*(?::[a-z][a-z-]*\d+(?=:))?):(.*)", re.DOTALL)  # a container of it may be named


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files or folders here, or SESSION:PATH")
    parser.add_argument("target", metavar="TARGET", help="a path here, or SESSION:PATH; below its home when it is not absolute")


def run(options: Namespace) -> int:
    """Copy everything; folders with all that is in them."""
    sources, target = [_split(word) for word in options.sources], _split(options.target)
    if all(session is None for session, _ in sources) == (target[0] is None):
        raise Failure("invalid-request", "One side must be SESSION:PATH and the other one here; a file here with a colon is ./NAME.")
    if any((session is None) != (sources[0][0] is None) for session, _ in sources):
        raise Failure("invalid-request", "All sources must be here, or all in sessions.")
    if len(sources) > 1 and target[0] is None and not Path(target[1]).is_dir():
        raise Failure("invalid-request", f"{target[1]} is not a folder; several things can only be copied into one.")
    copied = 0
    with connect() as client, Status() as status:

        def report(size: int) -> None:
            nonlocal copied
            copied += size
            status.show(f"{format_bytes(copied)} copied")

        for session, path in sources:
            if target[0] is not None:
                into = target[1] if len(sources) == 1 else target[1].rstrip("/") + "/"
                upload(client, Path(path), target[0], into, report)
            elif session is not None:
                download(client, session, path, Path(target[1]), report)
    return show_json({"bytes": copied}) if options.json else 0


def _split(word: str) -> tuple[str | None, str]:
    """Return session and path, or None and a path here."""
    found = _REMOTE.fullmatch(word)
    return (found[1], found[2]) if found else (None, word)
