"""The loop that keeps the books of what is held."""

from __future__ import annotations

import asyncio

from backendai.manager.context import Context
from backendai.manager.operations.bookings import sweep
from backendai.manager.store.engine import Store, Tx
from backendai.manager.store.usage import PART, begin_tick, tick

TICK_S = 60.0


async def count_for_ever(context: Context) -> None:
    """Bring the books up to date every minute."""
    while True:
        await bring_up_to_date(context)
        await asyncio.sleep(TICK_S)


async def bring_up_to_date(context: Context) -> None:
    """Count everything that is held until now, and forget reservations that are over."""
    now = context.clock()

    async def begin(tx: Tx) -> None:
        await begin_tick(tx.connection, now)
        await sweep(tx, now)

    await context.store.write(begin)
    await count_parts(context.store, now)


async def count_parts(store: Store, now: float, most: int = PART) -> None:
    """Bring every kernel up to date, some in each transaction."""
    last = ""
    while True:
        async def part(tx: Tx, after: str = last) -> str:
            return await tick(tx.connection, now, after, most)

        if not (last := await store.write(part)):
            return
