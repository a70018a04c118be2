"""What the host adds to a hook call: blame, deadline and arguments, beside the same method called plainly, both in one run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from backendai.plugin.call import Choir
from backendai.plugin.discovery import Candidate
from backendai.plugin.host import connect
from backendai.spec import Arity, Spec, hook, hookimpl

from tests.bench.table import Row, show

SERIES = 50  # medians are taken over these
CALLS = 2000  # in each series
AIM_US = 20.0  # microseconds that the host may add


class Contract:
    """A hook of each kind that is called often."""

    @hook()
    def plain(self, view: object, limit: int) -> int:
        """Answer at once."""
        raise NotImplementedError

    @hook(deadline_s=5.0)
    async def awaited(self, view: object, limit: int) -> int:
        """Answer, within a deadline."""
        raise NotImplementedError

    @hook(deadline_s=None)
    async def endless(self, view: object, limit: int) -> int:
        """Answer, without a deadline."""
        raise NotImplementedError

    @hook()
    def choosy(self, view: object, limit: int) -> int:
        """Answer, to a plugin that takes one argument only."""
        raise NotImplementedError


class Plugin:
    """Answers that cost nothing."""

    @hookimpl
    def plain(self, view: object, limit: int) -> int:
        return limit

    @hookimpl
    async def awaited(self, view: object, limit: int) -> int:
        return limit

    @hookimpl
    async def endless(self, view: object, limit: int) -> int:
        return limit

    @hookimpl
    def choosy(self, limit: int) -> int:
        return limit


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    """Return microseconds for one call, from a series."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call(*arguments)
    return (time.perf_counter() - begun) / CALLS * 1e6


async def timed_await(call: Callable[..., Awaitable[Any]], *arguments: Any) -> float:
    """Return microseconds for one awaited call, from a series."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        await call(*arguments)
    return (time.perf_counter() - begun) / CALLS * 1e6


def row(what: str, ours: list[float], floor: list[float]) -> Row:
    """Compare the medians."""
    host, plain = statistics.median(ours), statistics.median(floor)
    return Row(what, f"{host:.2f} us", f"{plain:.2f} us", f"{host / plain:.1f} (+{host - plain:.2f} us)", f"at most +{AIM_US:g} us",
               host - plain <= AIM_US)


async def measure() -> list[Row]:
    """Take turns between the host and the plain call, so that a busy moment falls on both."""
    spec: Spec[Any] = Spec("bench", 1, Contract, Arity.ONE)
    plugin = Plugin()
    driver: Any = connect(Candidate(spec, "bench", "bench", "1"), plugin, None)
    rows = []
    for what, name, bare in (("a plain hook", "plain", (None, 3)), ("a plain hook, some of its arguments", "choosy", (3,))):
        pairs = [(timed(getattr(driver, name), None, 3), timed(getattr(plugin, name), *bare)) for _ in range(SERIES)]
        rows.append(row(what, [ours for ours, _ in pairs], [floor for _, floor in pairs]))
    everyone: Any = Choir(spec, [driver])
    for what, name, voice in (("an awaited hook with a deadline", "awaited", driver), ("an awaited hook without", "endless", driver),
                              ("all plugins, of which there is one", "awaited", everyone)):
        pairs = [(await timed_await(getattr(voice, name), None, 3), await timed_await(getattr(plugin, name), None, 3))
                 for _ in range(SERIES)]
        rows.append(row(what, [ours for ours, _ in pairs], [floor for _, floor in pairs]))
    return rows


def main() -> None:
    show(f"A hook call through the host and a plain call (medians of {SERIES} series of {CALLS})", asyncio.run(measure()))


if __name__ == "__main__":
    main()
