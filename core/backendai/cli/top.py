"""``bai top``: a live view of groups, agents, sessions and queues. It asks anew when something happens, and every 2 s."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from backendai.cli.picture import draw
from backendai.cli.screen import connect, show_json
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure

EVERY_S = 2.0
AT_MOST_S = 0.3  # so often, however much happens
ENTER, LEAVE, HOME, CLEAR_LINE, CLEAR_REST = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"
FOOT = "q quits"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--once", action="store_true", help="print it once, and end")
    parser.add_argument("-n", "--number", type=int, metavar="N",
                        help="at most so many agents, sessions that run, and sessions that wait in each group")


def run(options: Namespace) -> int:
    """Show how everything stands, until ``q`` or Ctrl-C. On a pipe it is printed once."""
    call = calls.get_overview(options.number)
    with connect() as client:
        live = sys.stdin.isatty() and sys.stdout.isatty() and not options.once and not options.json
        first = client.raw(call)
        if options.json:
            return show_json(first)
        if not live:
            sys.stdout.write("\n".join(draw(first, colours=coloured())) + "\n")
            return 0
        with _screen() as (bell, ring):
            threading.Thread(target=_listen, args=(ring,), daemon=True).start()
            _watch(client, call, first, bell)
    return 0


def coloured() -> bool:
    """Tell whether colours are wanted: on a terminal, unless NO_COLOR says no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _watch(client: Client, call: calls.Call[Any], first: dict[str, Any], bell: int) -> None:
    """Draw, and wait for a key, an event, another size or the time."""
    now, before, foot = first, None, FOOT
    while True:
        _show(now, before, foot)
        drawn = time.monotonic()
        if _pause(bell, drawn + EVERY_S):
            return
        time.sleep(max(0.0, drawn + AT_MOST_S - time.monotonic()))
        try:
            fresh = client.raw(call)
        except Failure as failure:
            foot = f"{failure.message.rstrip('.')}; trying again. {FOOT}"
            continue
        foot = FOOT
        if fresh["at"] - now["at"] >= AT_MOST_S:
            now, before = fresh, now


def _show(now: dict[str, Any], before: dict[str, Any] | None, foot: str) -> None:
    size = shutil.get_terminal_size()
    lines = draw(now, before, size.lines - 1, size.columns, coloured())
    lines += [""] * (size.lines - 1 - len(lines)) + [foot[: size.columns]]
    sys.stdout.write(HOME + f"{CLEAR_LINE}\r\n".join(lines) + CLEAR_REST)
    sys.stdout.flush()


def _pause(bell: int, until: float) -> bool:
    """Wait until it is time to look again; tell whether it is time to stop."""
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin, bell], [], [], left)
        if bell in ready:
            os.read(bell, 4096)
            return False
        if ready:
            keys = os.read(sys.stdin.fileno(), 64)
            if not keys or b"q" in keys.lower():
                return True
    return False


def _listen(ring: int) -> None:
    """Ring whenever something happens. While that cannot be heard, the time alone must do."""
    while True:
        try:
            with connect() as client:
                for _ in client.raw_events():
                    _ring(ring)
        except Failure:
            time.sleep(EVERY_S)


def _ring(ring: int) -> None:
    with suppress(BlockingIOError):  # it has been rung often enough
        os.write(ring, b"!")


@contextmanager
def _screen() -> Iterator[tuple[int, int]]:
    """Have the terminal for oneself; yield a pipe: its end to wait at, and the one to write to. It is rung at each change of size."""
    here = sys.stdin.fileno()
    kept = termios.tcgetattr(here)
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler), signal.signal(signal.SIGWINCH, lambda *_: _ring(ring))
    tty.setcbreak(here)
    sys.stdout.write(ENTER)
    try:
        yield bell, ring
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(here, termios.TCSADRAIN, kept)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGWINCH, before[1])
