"""The loop that turns intent into placements and orders: look, decide, commit, tell; woken by events, never by a poll."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from backendai.manager import life
from backendai.manager.context import Context
from backendai.manager.dispatch import Link
from backendai.manager.held import Held
from backendai.manager.planning import Planner, Proposal
from backendai.manager.reception import Reception
from backendai.manager.reports import Reports
from backendai.manager.settle import Decided, Settler
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_SESSION, find, find_holding, write
from backendai.manager.store.nodes import absent_at_start
from backendai.manager.store.placement import Moment, Node, grant, look, settle_ledger, write_holds
from backendai.manager.store.schema import kernels
from backendai.wire.link import Advance, Beat, Hello, KernelOrder, Report

log = logging.getLogger(__name__)
RESYNC_S = 10.0  # the safety net: a look without any event
AGAIN_S = 0.1  # after a lost race
HOLD_S = 1.0  # a hold that changes is written at most this often; the first one at once


class Orchestrator:
    """Everything that happens to sessions after they were accepted. Links call it with what agents say."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settler = Settler(context)
        self._reports = Reports(context, self._settler)
        self._reception = Reception(context, self._settler)
        self._planner = Planner(context, self._settler)
        self._began = context.clock()
        self._said_at = float("-inf")  # when changed holds were last written
        self._next = RESYNC_S  # seconds until the next look without an event

    async def run(self) -> None:
        """Orchestrate for ever. May be called again after a failure: it begins with what the database says."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reports.run(), name="reports")
            group.create_task(self._look_for_ever(), name="passes")

    async def hello(self, link: Link, hello: Hello) -> None:
        """Take an agent in, and answer with ``Welcome`` and everything that it should have. Raise ``Failure`` to refuse it."""
        await self._reception.hello(link, hello)

    def reported(self, agent_id: str, report: Report) -> None:
        """Take a report; it is written with others in a moment."""
        self._reports.add(agent_id, report)

    async def beat(self, agent_id: str, beat: Beat) -> None:
        """Take an agent's sign of life."""
        await self._reception.beat(agent_id, beat)

    def advance(self, agent_id: str, advance: Advance) -> None:
        """Show how far a long step of a kernel is."""
        lease = self._settler.leases.by_session.get(self._settler.leases.by_kernel.get(advance.kernel, ""))
        if lease is not None and agent_id in lease.agents:
            self._context.live.progress[lease.id] = advance.text
            self._context.bus.changed(lease.id)

    async def gone(self, link: Link) -> None:
        """Note that a link has ended."""
        await self._reception.gone(link)

    async def desired_of(self, agent_id: str) -> list[KernelOrder]:
        """Return everything that an agent should have."""
        return await self._settler.dispatch.desired_of(agent_id)

    async def begin(self) -> None:
        """Forget what was in memory, make the ledger true, and tell every agent anew."""
        channels = self._settler.dispatch.channels

        async def job(tx: Tx) -> tuple[tuple[Held, ...], list[str]]:
            await absent_at_start(tx, list(channels))
            return await settle_ledger(tx)

        held, wrong = await self._context.store.write(job)
        if wrong:
            log.error("the ledger did not agree with what is held, and was corrected: %s", ", ".join(wrong))
        self._settler.leases.load(held)
        self._planner.forget()
        self._began = self._context.clock()
        for channel in list(channels.values()):
            if channel.whole:
                await self._settler.dispatch.tell_all(channel)

    async def _look_for_ever(self) -> None:
        resync = True
        while True:
            await self.look_once(resync)
            try:
                async with asyncio.timeout(self._next):
                    await self._context.bus.wait_for_wake()
                resync = False
            except TimeoutError:
                resync = True

    async def write_reports(self) -> None:
        """Write what agents have said so far."""
        await self._reports.flush()

    async def look_once(self, resync: bool = True) -> None:
        """Look, and act on what is found. resync: work out, too, when the next deadline is."""
        self._settler.check()
        context = self._context
        now = context.heartbeat = context.clock()
        self._next = RESYNC_S
        moment = await context.store.read(lambda connection: look(connection, now, self._planner.knows, resync))
        if moment.due:
            await self._settler.commit(lambda tx: self._settle(tx, moment.due))
        await self._see_off(moment.nodes)
        await self._lose(moment.nodes, now)
        if moment.nearest is not None:
            self._wait_at_most(moment.nearest - now)
        self._planner.refresh(moment)
        if moment.waiting:
            await self._place(moment)

    async def _settle(self, tx: Tx, due: Sequence[str]) -> Decided:
        """Follow owners' wishes, and act on states that lasted too long."""
        now, changes = self._context.clock(), []
        for held in await find(tx.connection, BY_SESSION, due):
            after = life.stop(held, now) if held.stop else None
            after = after or life.overdue(held, self._settler.dispatch.channels.keys(), self._context.new_id, now)
            if after is not None:
                changes.append((held, after))
        await write(tx, changes, now)
        return Decided(tuple(changes))

    async def _see_off(self, nodes: Sequence[Node]) -> None:
        """Mark as absent whoever left without our being able to write it down."""
        for node in nodes:
            if node.connected and node.agent.id not in self._settler.dispatch.channels:
                await self._reception.see_off(node.agent.id)
                self._context.bus.wake()  # to look again, with that agent away

    async def _lose(self, nodes: Sequence[Node], now: float) -> None:
        """Give up what agents hold that have been away for too long, counted from our own start at the earliest."""
        for node in nodes:
            if node.connected or not self._settler.leases.counts[node.agent.id]:
                continue
            left = max(node.last_seen, self._began) + self._context.config.lost_after_s - now
            if left > 0:
                self._wait_at_most(left)
            else:
                await self._settler.commit(lambda tx, node=node: self._give_up(tx, node))  # type: ignore[misc]  # a bound default

    async def _give_up(self, tx: Tx, node: Node) -> Decided:
        now, said = self._context.clock(), f"The agent {node.agent.name} was lost."
        if node.agent.id in self._settler.dispatch.channels:
            return Decided()  # it came back this very moment
        held = await find_holding(tx.connection, kernels.c.agent_id == node.agent.id)
        changes = [(one, after) for one in held
                   if (after := life.lose(one, _on(one, node.agent.id), said, self._context.new_id, now)) is not None]
        await write(tx, changes, now)
        return Decided(tuple(changes))

    async def _place(self, moment: Moment) -> None:
        """Plan for everybody who waits and commit what still holds; who lost a race is in the next snapshot again."""
        proposal = await self._planner.propose(moment.nodes)
        holds = self._worth_saying(proposal.holds)
        if proposal.placed or proposal.refused or holds:
            decided = await self._settler.commit(lambda tx: self._commit(tx, proposal, holds))
            self._planner.placed(decided.changes)
            if sum(after.holds for _, after in decided.changes) < len(proposal.placed):
                self._wait_at_most(AGAIN_S)
            self._planner.said(holds)
            for id in holds:
                self._context.bus.changed(id)

    async def _commit(self, tx: Tx, proposal: Proposal, holds: Mapping[str, str]) -> Decided:
        now = self._context.clock()
        placed = [(held, life.place(held, agents, now)) for held, agents in proposal.placed]
        granted = await grant(tx, placed, now)
        refused = [(held, after) for held in await find(tx.connection, BY_SESSION, list(proposal.refused))
                   if (after := life.refuse(held, proposal.refused[held.id], now)) is not None]
        await write(tx, refused, now)
        await write_holds(tx, holds)
        return Decided((*granted, *refused))

    def _worth_saying(self, holds: Mapping[str, str]) -> Mapping[str, str]:
        """Return the holds to write now: first ones always, changed ones once a second for all."""
        now = self._context.clock()
        changed = {id: said for id, said in holds.items() if self._planner.hold_of(id) != said}
        if now - self._said_at >= HOLD_S:
            if any(self._planner.hold_of(id) for id in changed):
                self._said_at = now
            return changed
        first = {id: said for id, said in changed.items() if not self._planner.hold_of(id)}
        if len(first) < len(changed):
            self._wait_at_most(HOLD_S)
        return first

    def _wait_at_most(self, seconds: float) -> None:
        self._next = min(self._next, max(seconds, 0.01))


def _on(held: Held, agent_id: str) -> list[str]:
    """Return a session's kernels that are on an agent."""
    return [kernel.id for kernel in held.kernels if kernel.agent == agent_id]
