"""Watching a plugin's code while it runs: does it look at a clock, at files or at dice, and does it come to an end?"""

from __future__ import annotations

import datetime
import gc
import io
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_CLOCKS = frozenset({"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "thread_time",
                     "sleep", "localtime", "gmtime"})
_NOW = frozenset({"now", "utcnow", "today"})
_OUTSIDE = frozenset({"posix", "nt", "_io", "io", "_socket", "_posixsubprocess", "select"})
_HARMLESS = frozenset({"fspath", "StringIO", "BytesIO", "_path_normpath", "_path_splitroot", "_path_splitroot_ex"})
_SAID = frozenset({"print", "input"})


class _Over(BaseException):
    """The time is over; no plugin's ``except Exception`` may swallow it."""


@contextmanager
def watching() -> Iterator[list[str]]:
    """Note every call to a clock, to the outside or to unseeded dice that this thread makes inside the block."""
    seen: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and (what := _impure(argument)):
            seen.append(f"{what} at line {frame.f_lineno} of {frame.f_code.co_name}()")

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # or a collection, and whoever listens to it, would seem to be the plugin's doing
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def _impure(function: Any) -> str:
    """Say what a C function does that a pure function must not; empty for what is harmless."""
    name, module, owner = function.__name__, getattr(function, "__module__", None), getattr(function, "__self__", None)
    if module == "time" and name in _CLOCKS:
        return f"time.{name}"
    if name in _NOW and isinstance(owner, type) and issubclass(owner, datetime.date):
        return f"{owner.__name__}.{name}"
    if owner is getattr(random, "_inst", None) and owner is not None:
        return f"random.{name}"
    if (module in _OUTSIDE and name not in _HARMLESS) or (module == "builtins" and name in _SAID):
        return name if module == "builtins" else f"{module}.{name}"
    if isinstance(owner, socket.SocketType):
        return f"socket.{name}"
    if isinstance(owner, io.IOBase) and not isinstance(owner, io.StringIO | io.BytesIO):
        return f"{type(owner).__name__}.{name}"
    return ""


@contextmanager
def cpu_limit(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise what *error* makes when the block computes for longer, even when it never comes to an end.

    Only the main thread can break off what does not end; elsewhere the block is measured once it has ended. Waiting does not count.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "ITIMER_VIRTUAL"):
        begun = time.thread_time()
        yield
        if time.thread_time() - begun > seconds:
            raise error()
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise _Over

    before = signal.signal(signal.SIGVTALRM, over)
    rest, _ = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _Over:
        raise error() from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, rest)  # that of the block around this one
        signal.signal(signal.SIGVTALRM, before)
