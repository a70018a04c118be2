"""What people see: tables, times, JSON, and a line that says what is going on."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backendai.model.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from backendai.client.sync import Client

PATIENCE_S = 1.0  # nothing is said of what takes no longer
FINAL = ("TERMINATED", "CANCELLED", "FAILED")


def connect() -> Client:
    """Return a client of the platform that the user is logged in at."""
    from backendai.client.sync import Client

    return Client()


def show_json(value: Any) -> int:
    """Print a value as JSON; return the exit status of success."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False) + "\n")
    return 0


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their heads. On a terminal the last column is cut at its edge."""
    lines = [tuple(heads), *(tuple(plain(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    most = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        sys.stdout.write((text if not most or len(text) <= most else text[: most - 1] + "…") + "\n")


def show_facts(facts: Mapping[str, str]) -> None:
    """Print names and values below each other; what is empty is left out."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if value:
            sys.stdout.write(f"{name.ljust(width)}  {plain(value)}\n")


def plain(text: str) -> str:
    """Return *text* without what would move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


def say(text: str) -> None:
    """Tell the user something that is no output."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def age(moment: float | None) -> str:
    """Return how long ago a moment was, in one or two parts."""
    return "" if moment is None else format_seconds(max(0.0, time.time() - moment))


def clock(moment: float | None) -> str:
    """Return a moment as the user's clock shows it."""
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def slots(given: Mapping[str, Any]) -> str:
    """Write slots as ``-r`` takes them."""
    return ",".join(f"{name}={amount(name, value)}" for name, value in given.items())


def amount(name: str, value: float) -> str:
    """Write one amount: a size for memory, a number for the rest."""
    return format_bytes(int(value)) if name == "mem" or name.endswith(".mem") else f"{value:g}"


def outcome(session: Mapping[str, Any]) -> str:
    """Return the one thing that is most worth knowing about a session now."""
    return str(session["hold"] or session["progress"] or session["reason"] or expiry(session))


def expiry(session: Mapping[str, Any]) -> str:
    """Say when a running session will be ended, and why; empty when nobody intends to."""
    at, why = session.get("expires_at"), session.get("expires_why")
    if at is None:
        return ""
    return f"It ends in {format_seconds(max(0.0, at - time.time()))}" + (f": {why}" if why else ", by its time limit.")


def names_sessions(parser: ArgumentParser, many: bool = False) -> None:
    """Add the argument that names a session, or several; the shell completes it."""
    name, count = ("sessions", "+") if many else ("session", None)
    action = parser.add_argument(name, nargs=count, metavar="SESSION", help="its id or its name")
    action.completer = complete_sessions  # type: ignore[attr-defined]  # argcomplete looks for it


def complete_sessions(**_: object) -> list[str]:
    """Return the names that the shell may complete a session to; none when the platform does not answer."""
    from backendai.model.errors import Failure

    try:
        with connect() as client:
            return [session["name"] for session in client.get("/v1/sessions?all=true&limit=200")["items"]]
    except Failure:
        return []


def names_at(path: str) -> list[str]:
    """Return the names of what a list of the API holds, for the shell; none when the platform does not answer."""
    from backendai.model.errors import Failure

    try:
        with connect() as client:
            return [item["name"] for item in client.get(path)["items"]]
    except Failure:
        return []


class Status:
    """One line on standard error that changes as things go on; on a pipe, a line for each change. Silent for the first second."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown = ""
        self._tty = sys.stderr.isatty()

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Say *text* unless it stands there already, or it is too early to say anything."""
        if not text or text == self._shown or time.monotonic() - self._begun < PATIENCE_S:
            return
        self._shown = text
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[K" + plain(text)[:width])
            sys.stderr.flush()
        else:
            say(text)

    def clear(self) -> None:
        """Take the line away, where that is possible."""
        if self._tty and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = ""
