"""Agents' reports: gathered while a transaction runs, applied together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backendai.manager import life
from backendai.manager.context import Context
from backendai.manager.settle import Decided, Settler
from backendai.manager.store.engine import Tx
from backendai.manager.store.placement import BY_KERNEL, find, write
from backendai.wire.link import Observed, Report

Batch = Mapping[tuple[str, str], Observed]  # by agent and kernel


class Reports:
    """What agents said and is not written yet. A later word about a kernel replaces an earlier one: each tells everything."""

    def __init__(self, context: Context, settler: Settler) -> None:
        self._context = context
        self._settler = settler
        self._waiting: dict[tuple[str, str], Observed] = {}
        self._bell = asyncio.Event()

    def add(self, agent_id: str, report: Report) -> None:
        """Queue a report."""
        for seen in report.kernels:
            self._waiting[agent_id, seen.kernel] = seen
        self._bell.set()

    async def run(self) -> None:
        """Apply reports for ever. What could not be written is kept, and tried again by the next run."""
        self._bell.set()
        while True:
            await self._bell.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        self._bell.clear()
        batch, self._waiting = self._waiting, {}
        if not batch:
            return
        try:
            await self._settler.commit(lambda tx: apply(tx, batch, self._context))
        except BaseException:
            self._waiting = batch | self._waiting
            raise


async def apply(tx: Tx, batch: Batch, context: Context) -> Decided:
    """Write what *batch* means. A kernel that its agent should not have, or no longer, is answered with a drop."""
    known = {held.kernel: held for held in await find(tx.connection, BY_KERNEL, [kernel for _, kernel in batch])}
    now, changes, unwanted = context.clock(), [], []
    for (agent_id, kernel), seen in batch.items():
        held = known.get(kernel)
        if held is None or held.kernel_agent != agent_id or not held.holds:
            unwanted.append((agent_id, kernel))
        elif (after := life.report(held, seen, context.new_id(), now)) is not None:
            changes.append((held, after))
    await write(tx, changes, now)
    return Decided(tuple(changes), tuple(unwanted))
