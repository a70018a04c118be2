"""The plugins' part in a session's life: vetoes before a placement, notices after a change. Without such plugins it costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.context import Context
from backendai.manager.life import ended
from backendai.manager.store.held import Change
from backendai.manager.store.schema import sessions
from backendai.manager.store.sessions import SESSIONS, read_spec, show
from backendai.model.session import Session
from backendai.model.slots import plain_slots
from backendai.sokovan.snapshot import Slots
from backendai.spec import Reject
from backendai.spec.hook_v20 import SPEC as HOOK
from backendai.spec.hook_v20 import Heartbeat, Placement


class Notices:
    """Asks and tells the hook plugins."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def heard(self, hook: str) -> bool:
        """Tell whether any plugin has *hook*."""
        return any(hasattr(plugin, hook) for plugin in self._context.host.each(HOOK).values())

    async def ask(self, hook: str, placed: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Ask for a veto on each placement (agents by session); return the reasons of those that were refused."""
        if not placed or not self.heard(hook):
            return {}
        query = SESSIONS.where(sessions.c.id.in_(list(placed)))
        choir = getattr(self._context.host.all(HOOK), hook)

        async def one(placement: Placement) -> tuple[str, str]:
            try:
                await choir(placement)
            except Reject as veto:
                return placement.session.id, veto.reason
            return placement.session.id, ""

        rows = (await self._context.store.read(lambda connection: connection.execute(query))).all()
        answers = await asyncio.gather(*(
            one(Placement(show(self._context, row), read_spec(row), tuple(placed[row.id]))) for row in rows))
        return {id: reason for id, reason in answers if reason}

    async def gather(self, connection: AsyncConnection, changes: Sequence[Change]) -> tuple[tuple[str, Session], ...]:
        """Return what there will be to tell of *changes*, with the sessions as this transaction leaves them."""
        told: list[tuple[str, str]] = []
        if self.heard("post_start_session"):
            told += [("post_start_session", after.id) for before, after in changes
                     if before.started_at is None and after.started_at is not None]
        if self.heard("post_destroy_session"):
            told += [("post_destroy_session", after.id) for before, after in changes if ended(after) and not ended(before)]
        if not told:
            return ()
        rows = await connection.execute(SESSIONS.where(sessions.c.id.in_({id for _, id in told})))
        known = {row.id: show(self._context, row) for row in rows}
        return tuple((hook, known[id]) for hook, id in told)

    def tell(self, told: Sequence[tuple[str, Session]]) -> None:
        """Tell the plugins in the background, each session's events in order."""
        if told:
            self._context.tasks.spawn(self._tell(told), "notices")

    def beat(self, agent: str, healthy: bool, capacity: Slots, free: Slots) -> None:
        """Tell the plugins of an agent's sign of life."""
        if self.heard("post_agent_heartbeat"):
            heartbeat = Heartbeat(agent, healthy, plain_slots(capacity), plain_slots(free))
            self._context.tasks.spawn(self._context.host.all(HOOK).post_agent_heartbeat(heartbeat), "post_agent_heartbeat")

    async def _tell(self, told: Sequence[tuple[str, Session]]) -> None:
        for hook, session in told:
            await getattr(self._context.host.all(HOOK), hook)(session)
