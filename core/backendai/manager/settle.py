"""One way for every change: decided and written in a transaction, and only then told to everybody whom it concerns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from backendai.manager.context import Context
from backendai.manager.dispatch import Dispatch
from backendai.manager.held import Held
from backendai.manager.leases import Leases, is_under_way
from backendai.manager.life import ended
from backendai.manager.mirror import Mirror
from backendai.manager.notices import Notices
from backendai.manager.store.dependencies import follow
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import Change, left
from backendai.manager.store.usage import count
from backendai.model.session import Session


@dataclass(frozen=True, slots=True)
class Decided:
    """What a transaction wrote. unwanted: (agent, kernel) pairs that agents have and should not. purge: logs nobody needs.

    released: sessions, once for each dependency that is met now. hurried: those whose agents are to be told once more that they end.
    """

    changes: tuple[Change, ...] = ()
    unwanted: tuple[tuple[str, str], ...] = ()
    purge: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    hurried: tuple[Held, ...] = ()


class Settler:
    """Commits decisions and sees to their consequences."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.dispatch = Dispatch(context)
        self.leases = Leases()
        self.mirror = Mirror(self.leases)
        self.notices = Notices(context)
        self._failed: Exception | None = None

    async def commit(self, decide: Callable[[Tx], Awaitable[Decided]]) -> Decided:
        """Run *decide*, which reads, writes and returns what it wrote; it may be run more than once."""

        async def job(tx: Tx) -> Decided:
            decided = await decide(tx)
            if any(ended(after) for _, after in decided.changes):
                followed = await follow(tx, decided.changes, self._context.clock())
                decided = replace(decided, changes=(*decided.changes, *followed.changes), released=followed.released)
            if any(left(before, after) or left(after, before) for before, after in decided.changes):
                await count(tx.connection, self._context.clock())
            told = await self.notices.gather(tx.connection, decided.changes)
            tx.after(lambda: self._follow(decided, told))  # whoever asked for it may be gone by then
            return decided

        return await self._context.store.write(job)

    def check(self) -> None:
        """Raise what kept memory from following a commit: then everything must begin anew, with what the database says."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def _follow(self, decided: Decided, told: Sequence[tuple[str, Session]]) -> None:
        """Do what a commit means beyond the database."""
        try:
            self.leases.note(decided.changes)
            self.mirror.note(decided.changes, decided.released)
            self.dispatch.tell(decided.changes, decided.unwanted, decided.hurried)
            self._ring(decided.changes)
            self.notices.tell(told)
        except Exception as error:
            self._failed = error
            self._context.bus.wake()

    def _ring(self, changes: Sequence[Change]) -> None:
        """Wake whoever waits for one of these sessions, and the orchestrator when capacity came back."""
        live, bus, now = self._context.live, self._context.bus, self._context.clock()
        for before, after in changes:
            if before.state != after.state:
                self._context.metrics.moved(after.id, before.state, after.state, before.created_at, now)
            if not is_under_way(after):
                live.progress.pop(after.id, None)
            for kernel in left(before, after):
                live.usage.pop(kernel.id, None)
            bus.changed(after.id)
        if groups := {after.group_id for before, after in changes if left(before, after)}:
            bus.wake(groups=groups)
