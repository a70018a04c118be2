"""Agents' reports: gathered while a transaction runs, applied together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from backendai.manager import life
from backendai.manager.context import Context
from backendai.manager.settle import Decided, Settler
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_KERNEL, Change, find, write
from backendai.wire.link import KernelState, Observed, Report

_STATES = tuple(KernelState)  # a kernel goes through them in this order
Batch = Mapping[tuple[str, str], Observed]  # by agent and kernel


class Reports:
    """What agents said and is not written yet. A later word about a kernel replaces an earlier one: each tells everything."""

    def __init__(self, context: Context, settler: Settler) -> None:
        self._context = context
        self._settler = settler
        self._waiting: dict[tuple[str, str], Observed] = {}
        self._bell = asyncio.Event()

    def add(self, agent_id: str, report: Report) -> None:
        """Queue a report. One that comes late, of a link that its agent has left, does not hide what was said since."""
        self._put({(agent_id, seen.kernel): seen for seen in report.kernels})
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
            later, self._waiting = self._waiting, dict(batch)
            self._put(later)
            raise

    def _put(self, batch: Batch) -> None:
        for key, seen in batch.items():
            known = self._waiting.get(key)
            if known is None or _STATES.index(known.state) <= _STATES.index(seen.state):
                self._waiting[key] = seen


async def apply(tx: Tx, batch: Batch, context: Context) -> Decided:
    """Write what *batch* means. A kernel that its agent should not have, or no longer, is answered with a drop."""
    read = await find(tx.connection, BY_KERNEL, list({kernel for _, kernel in batch}))
    owner = {kernel.id: held.id for held in read for kernel in held.kernels}
    was = {held.id: held for held in read}
    now, after, unwanted = context.clock(), dict(was), []
    for (agent_id, kernel), seen in batch.items():
        held = was.get(owner.get(kernel, ""))
        mine = None if held is None else held.kernel(kernel)
        if held is None or mine is None or mine.agent != agent_id or not mine.holds:
            unwanted.append((agent_id, kernel))
        elif (changed := life.report(after[held.id], kernel, seen, context.new_id, now)) is not None:
            after[held.id] = changed
    changes: list[Change] = [(held, after[held.id]) for held in read if after[held.id] is not held]
    await write(tx, changes, now)
    return Decided(tuple(changes), tuple(unwanted))
