"""The loop that keeps the books of what is held."""

from __future__ import annotations

import asyncio

from backendai.manager.context import Context
from backendai.manager.operations.bookings import sweep
from backendai.manager.store.engine import Tx
from backendai.manager.store.usage import tick

TICK_S = 60.0


async def count_for_ever(context: Context) -> None:
    """Bring the books up to date every minute."""
    while True:
        await bring_up_to_date(context)
        await asyncio.sleep(TICK_S)


async def bring_up_to_date(context: Context) -> None:
    """Count everything that is held until now, and forget reservations that are over."""

    async def job(tx: Tx) -> None:
        await tick(tx.connection, context.clock())
        await sweep(tx, context.clock())

    await context.store.write(job)
