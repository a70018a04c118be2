"""Stay with a session: until it runs, and with its output until it ends, over broken connections."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from backendai.cli.screen import FINAL, Status, say
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

T = TypeVar("T")
LOOK_S = 1.0  # that the server waits before it says how things are
RETRY_S, PAUSE_S = 20.0, 0.5  # how long a manager may be away, and how often it is looked for
FAILED_EXIT = 70


def until_running(client: Client, session: str, status: Status) -> dict[str, Any]:
    """Return a session once it runs or has ended; say what it waits for."""
    while True:
        found: dict[str, Any] = patiently(lambda: client.raw(calls.get_session(session, "running", LOOK_S)))
        if found["state"] in FINAL or found["state"] in ("RUNNING", "TERMINATING"):
            return found
        status.show(f"{found['name']}: {waiting(found)}")


def until_final(client: Client, session: str, status: Status | None = None) -> dict[str, Any]:
    """Return a session once it has ended."""
    while True:
        found: dict[str, Any] = patiently(lambda: client.raw(calls.get_session(session, "final", 20.0 if status is None else LOOK_S)))
        if found["state"] in FINAL:
            return found
        if status is not None:
            status.show(f"{found['name']}: {waiting(found)}")


def waiting(session: dict[str, Any]) -> str:
    """Say what a session does that has not ended."""
    state = session["state"].lower()
    why = session["hold"] or session["progress"]
    return f"{state}: {why}" if why else state


def follow(client: Client, session: str) -> None:
    """Write a session's output as it comes, until its end. After a broken connection go on where it stopped."""
    seen = {1: 0, 2: 0}

    def once() -> None:
        skip = dict(seen)
        for channel, data in client.logs(session, follow=True):
            new = data[skip[channel] :]
            skip[channel] = max(0, skip[channel] - len(data))
            if new:
                write(channel, new)
                seen[channel] += len(new)

    patiently(once, lambda: sum(seen.values()))


def patiently(what: Callable[[], T], measure: Callable[[], int] = lambda: 0) -> T:
    """Do something, and again while the manager is away, for a while. measure: grows with progress, which begins the while anew."""
    end, before = 0.0, -1
    while True:
        try:
            return what()
        except Failure as failure:
            if failure.code != "unreachable":
                raise
            now, done = time.monotonic(), measure()
            if done != before:
                end, before = now + RETRY_S, done
                say(f"bai: {failure.message.rstrip('.')}; trying again for {RETRY_S:g} s ...")
            if now >= end:
                raise
            time.sleep(PAUSE_S)


def write(channel: int, data: bytes) -> None:
    """Write output at once to where it belongs."""
    sink = sys.stdout.buffer if channel == 1 else sys.stderr.buffer
    sink.write(data)
    sink.flush()


def exit_status(session: dict[str, Any]) -> int:
    """Return the exit status for a session that has ended, and say why it did not succeed."""
    if session["result"] == "success":
        return 0
    say(f"bai: {session['name']}: {session['reason'] or session['state'].lower()}")
    if session["state"] != "TERMINATED":
        return FAILED_EXIT
    return int(session["exit_code"] or 1)
