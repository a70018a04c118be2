"""One way for every change: decided and written in a transaction, and only then told to everybody whom it concerns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from backendai.manager.context import Context
from backendai.manager.dispatch import Dispatch
from backendai.manager.leases import Leases, is_under_way
from backendai.manager.life import ended
from backendai.manager.notices import Notices
from backendai.manager.store.engine import Tx
from backendai.manager.store.placement import Change
from backendai.model.session import Session


@dataclass(frozen=True, slots=True)
class Decided:
    """What a transaction wrote. unwanted: (agent, kernel) pairs that agents have and should not. purge: logs nobody needs."""

    changes: tuple[Change, ...] = ()
    unwanted: tuple[tuple[str, str], ...] = ()
    purge: tuple[str, ...] = ()


class Settler:
    """Commits decisions and sees to their consequences."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.dispatch = Dispatch(context)
        self.leases = Leases()
        self.notices = Notices(context)

    async def commit(self, decide: Callable[[Tx], Awaitable[Decided]]) -> Decided:
        """Run *decide*, which reads, writes and returns what it wrote; it may be run more than once."""

        async def job(tx: Tx) -> tuple[Decided, tuple[tuple[str, Session], ...]]:
            decided = await decide(tx)
            return decided, await self.notices.gather(tx.connection, decided.changes)

        decided, told = await self._context.store.write(job)
        self.leases.note(decided.changes)
        self.dispatch.tell(decided.changes, decided.unwanted)
        self._ring(decided.changes)
        self.notices.tell(told)
        return decided

    def _ring(self, changes: Sequence[Change]) -> None:
        """Wake whoever waits for one of these sessions, and the orchestrator when capacity came back."""
        live, bus = self._context.live, self._context.bus
        for before, after in changes:
            if not is_under_way(after):
                live.progress.pop(after.id, None)
            if ended(after):
                live.usage.pop(before.kernel, None)
            bus.changed(after.id)
        if any(before.holds and not after.holds for before, after in changes):
            bus.wake()
