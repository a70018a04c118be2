"""What the laws of receivers share: do they leave what they are told alone, and do they keep anybody waiting?"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backendai.testing.laws import ensure

T = TypeVar("T")
STILL_S = 1.0  # that the whole process may stand still for a plugin


async def leaves_alone(told: T, tell: Callable[[T], Awaitable[object]]) -> None:
    """Raise ``Violation`` when whom we tell changes what it is told."""
    before = copy.deepcopy(told)
    await tell(told)
    ensure(told == before, "it changed what it was told")


async def lets_others_run(tell: Callable[[], Awaitable[object]], still_s: float = STILL_S) -> None:
    """Raise ``Violation`` when everything else stands still for so long while we wait for an answer."""
    longest, last = 0.0, time.monotonic()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    ticker = asyncio.create_task(tick())
    try:
        await asyncio.sleep(0.02)
        await tell()
        await asyncio.sleep(0.02)
    finally:
        ticker.cancel()
    ensure(longest < still_s, f"the process stood still for {longest:.1f} s; wait with await, or in a thread")


async def at_once(tell: Callable[[], Awaitable[T]], count: int = 10) -> list[T]:
    """Call *tell* several times at once."""
    return list(await asyncio.gather(*(tell() for _ in range(count))))
