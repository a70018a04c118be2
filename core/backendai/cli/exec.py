"""``bai exec``: a command in a running session, on a terminal if one is wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from backendai.cli.asking import read_variable
from backendai.cli.follow import write
from backendai.cli.screen import names_sessions, show_json
from backendai.model.errors import Failure

CHUNK = 64 * 1024


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="pass on standard input")
    add("-t", "--tty", action="store_true", help="on a terminal; -it for a shell")
    add("-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable; NAME alone takes yours")
    add("-w", "--workdir", metavar="PATH", help="where to begin")
    add("-u", "--user", metavar="UID[:GID]", help="as somebody else; for administrators")
    names_sessions(parser)
    add("words", nargs="*", metavar="-- COMMAND", help="what to run, and its arguments")


def run(options: Namespace) -> int:
    """Run it and return its exit code."""
    if not options.command:
        raise Failure("invalid-request", f"What is to run? Write `bai exec -it {options.session} -- sh`.")
    if options.tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("invalid-request", "-t needs a terminal here, too; leave it out, or use -i alone for a pipe.")
    if options.json and (options.tty or options.interactive):
        raise Failure("invalid-request", "--json waits for the end and shows what was written; leave -i and -t out.")
    return asyncio.run(_exec(options))


async def _exec(options: Namespace) -> int:
    from backendai.client.aio import AsyncClient

    written: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
    size = os.get_terminal_size() if options.tty else os.terminal_size((80, 24))
    async with AsyncClient() as client, client.open(
            options.session, options.command, dict(map(read_variable, options.env)), options.user, options.workdir, options.tty,
            size.lines, size.columns) as process:
        with _signals(process, options.tty), _raw(options.tty):
            feeder = asyncio.create_task(_feed(process, options.interactive or options.tty))
            try:
                async for channel, data in process:
                    if options.json:
                        written[channel] += data
                    else:
                        write(channel, data)
            finally:
                feeder.cancel()
    assert process.exit_code is not None  # it is known when the output has ended
    if options.json:
        out, err = (bytes(written[channel]).decode(errors="replace") for channel in (1, 2))
        show_json({"exit_code": process.exit_code, "stdout": out, "stderr": err})
    return process.exit_code


async def _feed(process: Any, wanted: bool) -> None:
    """Pass on standard input as it comes, no faster than it is taken."""
    try:
        if wanted:
            async for data in _input():
                await process.write(data)
        await process.end_input()
    except ConnectionError:
        return  # it has ended; what it said is on its way


async def _input() -> Any:
    """Yield what standard input has, as it comes. A thread reads it: it may be a file, which cannot be watched."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(4)

    def read() -> None:
        data = b"-"
        while data:
            try:
                data = os.read(0, CHUNK)
            except OSError:
                data = b""  # it is closed
            put = queue.put(data)
            try:
                asyncio.run_coroutine_threadsafe(put, loop).result()
            except (RuntimeError, CancelledError):
                put.close()
                return  # the command has ended, and nobody takes any more

    threading.Thread(target=read, daemon=True, name="stdin").start()
    while data := await queue.get():
        yield data


@contextmanager
def _signals(process: Any, tty: bool) -> Iterator[None]:
    """Pass on Ctrl-C, and the terminal's new size when it changes. A second Ctrl-C gives up."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def send(coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def resized() -> None:
        size = os.get_terminal_size()
        send(process.resize(size.lines, size.columns))

    def interrupted(name: str, number: int) -> None:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.default_int_handler)
        send(process.signal(name))

    if tty:
        loop.add_signal_handler(signal.SIGWINCH, resized)
    else:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted, number.name, number)
    yield
    for number in (signal.SIGWINCH, signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)


@contextmanager
def _raw(tty: bool) -> Iterator[None]:
    """Let every key through to the other side while the block runs."""
    if not tty:
        yield
        return
    import termios
    import tty as terminal

    before = termios.tcgetattr(0)
    try:
        terminal.setraw(0, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
