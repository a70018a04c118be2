"""Running a role until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path

from backendai.cli.screen import say

LEVELS = ("debug", "info", "warning", "error")


def add_options(parser: ArgumentParser, level: str) -> None:
    """Add what every role takes. level: of the log, by default."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="where it keeps its things")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with [manager], [agent] and [plugins]")
    parser.add_argument("--log-level", choices=LEVELS, default=level, help=f"{level} when left out; the log goes to standard error")


def run_until_told(work: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run *work* until SIGINT or SIGTERM, which set its event; a second one ends everything at once. Return the exit status."""

    async def main() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()

        def told(name: str) -> None:
            if end.is_set():
                os._exit(130)  # nothing is lost by it: every part may die at any moment
            say(f"{name}: stopping; once more ends it at once")
            end.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told, number.name)
        await work(end)

    asyncio.run(main())
    return 0


def set_up_logging(options: Namespace) -> None:
    """Send the log to standard error, key=value on each line."""
    from backendai.manager.logs import set_up_logging as begin

    begin(options.log_level)
    logging.captureWarnings(True)
