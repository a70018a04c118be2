"""The loop that turns intent into placements and orders: look, decide, commit, tell; woken by events, never by a poll."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager import life
from backendai.manager.context import Context
from backendai.manager.dispatch import Link
from backendai.manager.held import Held
from backendai.manager.planning import Planner
from backendai.manager.reception import Reception
from backendai.manager.reports import Reports
from backendai.manager.settle import Decided, Settler
from backendai.manager.sights import Sight
from backendai.manager.store.dependencies import count_unmet
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_SESSION, find, find_holding, write
from backendai.manager.store.nodes import absent_at_start
from backendai.manager.store.placement import Moment, Node, look, read_nodes, settle_ledger, wish_stop
from backendai.manager.store.quotas import read_quotas, settle_quotas
from backendai.manager.store.schema import kernels
from backendai.manager.store.usage import accounts
from backendai.manager.worker import Worker
from backendai.wire.link import Advance, Beat, Hello, KernelOrder, Report

log = logging.getLogger(__name__)
RESYNC_S = 10.0  # the safety net: a look at everything without any event


class Orchestrator:
    """Everything that happens to sessions after they were accepted. Links call it with what agents say."""

    def __init__(self, context: Context, make_worker: Callable[[str], Worker] = Worker) -> None:
        self._make_worker = make_worker
        self._context = context
        self._settler = Settler(context)
        self._reports = Reports(context, self._settler)
        self._reception = Reception(context, self._settler)
        self._mirror = self._settler.mirror
        self._planners: dict[str, Planner] = {}  # by group
        self._began = context.clock()
        self._next = RESYNC_S  # seconds until the next look without an event
        context.sights.source = self.sight

    async def run(self) -> None:
        """Orchestrate for ever. May be called again after a failure: it begins with what the database says."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reports.run(), name="reports")
            group.create_task(self._look_for_ever(group), name="looks")

    def sight(self, group: str) -> Sight | None:
        """Freeze a group as it is now; None when nobody plans for it yet."""
        planner = self._planners.get(group)
        return None if planner is None else planner.sight()

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
            held, wrong = await settle_ledger(tx)
            return held, [*wrong, *await settle_quotas(tx.connection)]

        held, wrong = await self._context.store.write(job)
        if wrong:
            log.error("the ledger did not agree with what is held, and was corrected: %s", ", ".join(wrong))
        for planner in self._planners.values():
            planner.close()
        self._planners.clear()
        self._mirror.forget()
        self._settler.leases.load(held)
        await self._set_groups()
        self._mirror.reload(held)
        self._context.bus.wake(everything=True)
        self._began = self._context.clock()
        for channel in list(channels.values()):
            if channel.whole:
                await self._settler.dispatch.tell_all(channel)

    async def _look_for_ever(self, tasks: asyncio.TaskGroup) -> None:
        resync = True
        planned: set[str] = set()
        while True:
            await self.observe(resync)
            for id in self._planners.keys() - planned:
                tasks.create_task(self._planners[id].run(), name=f"plan-{id}")
            planned = set(self._planners)
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
        """Look, and have every group plan that has a reason to, one after the other."""
        await self.observe(resync)
        for planner in list(self._planners.values()):
            if planner.side.bell.is_set():
                await planner.round()

    @property
    def pause(self) -> float:
        """Return the seconds until something is looked at without an event."""
        return min([self._next, *(planner.pause for planner in self._planners.values() if planner.pause is not None)])

    async def observe(self, resync: bool) -> None:
        """Take in what is new, and act on what is due. resync: read everything, besides what was rung for."""
        self._settler.check()
        context, mirror, news = self._context, self._mirror, self._context.bus.take_news()
        now = context.heartbeat = context.clock()
        self._next = RESYNC_S
        due, fresh = news.due, news.fresh | mirror.take_in(news.entered)
        if resync or news.everything:
            moment = await self._look(now)
            due |= set(moment.due)
            fresh |= mirror.waits() ^ set(moment.waiting)  # who is not known yet, and who seems to wait no more
            await self._see_off(moment.nodes)
            if moment.nearest is not None:
                self._wait_at_most(moment.nearest - now)
        elif news.agents:
            await self._meet(sorted(news.agents))
        while fresh:
            mirror.released -= fresh
            found, unmet = await context.store.read(lambda connection: _enter(connection, sorted(fresh)))
            if not mirror.released & fresh:  # else somebody that one of them waits for ended while this was read
                mirror.enter(fresh, found, unmet)
                break
        if due:
            await self._settler.commit(lambda tx: self._settle(tx, sorted(due)))
        if mirror.has_quotas and not (resync or news.everything):
            mirror.set_quotas(await context.store.read(read_quotas))
        if resync or news.everything or news.agents:
            await self._lose(now)
            await self._empty()
            await self._close(now)
        for id in news.groups & mirror.sides.keys():
            mirror.sides[id].bell.set()

    async def _look(self, now: float) -> Moment:
        """Read everything there is, and have the planners know it."""
        context, mirror = self._context, self._mirror
        await self._set_groups()
        moment = await context.store.read(lambda connection: look(connection, now, life.LIMIT_S))
        mirror.drop_nodes(mirror.nodes.keys() - {node.agent.id for node in moment.nodes})
        mirror.put_nodes(moment.nodes)
        mirror.set_quotas(moment.lines)
        mirror.set_bookings(moment.bookings, now)
        mirror.set_accounts(await context.store.read(lambda connection: accounts(connection, now)))
        for side in mirror.sides.values():
            side.bell.set()
        return moment

    async def _set_groups(self) -> None:
        """Have a planner for each group that there is."""
        groups = await self._context.groups.all(self._context.store)
        self._mirror.set_groups(groups)
        for id in self._planners.keys() - groups.keys():
            self._planners.pop(id).close()
        for id, side in self._mirror.sides.items():
            if id not in self._planners:
                self._planners[id] = Planner(self._context, self._settler, self._mirror, side, self._make_worker)

    async def _meet(self, ids: Sequence[str]) -> None:
        """Look at agents that came, went or changed."""
        nodes = await self._context.store.read(lambda connection: read_nodes(connection, ids))
        self._mirror.drop_nodes(set(ids) - {node.agent.id for node in nodes})
        self._mirror.put_nodes(nodes)

    async def _settle(self, tx: Tx, due: Sequence[str]) -> Decided:
        """Follow owners' wishes, and act on states that lasted too long."""
        now, changes, hurried = self._context.clock(), [], []
        for held in await find(tx.connection, BY_SESSION, due):
            after = life.stop(held, now) if held.stop else life.outlived(held, now)
            after = after or life.overdue(held, self._settler.dispatch.channels.keys(), self._context.new_id, now)
            if after is not None:
                changes.append((held, after))
            elif held.stop and held.grace_s is not None:
                hurried.append(held)  # it is ending already, and may have been given less time
        await write(tx, changes, now)
        return Decided(tuple(changes), hurried=tuple(hurried))

    async def _see_off(self, nodes: Sequence[Node]) -> None:
        """Mark as absent whoever left without our being able to write it down."""
        for node in nodes:
            if node.connected and node.agent.id not in self._settler.dispatch.channels:
                await self._reception.see_off(node.agent.id)
                self._context.bus.wake(agents=[node.agent.id])  # to look again, with that agent away

    async def _lose(self, now: float) -> None:
        """Give up what agents hold that have been away for too long, counted from our own start at the earliest."""
        for id in [id for id, count in self._settler.leases.counts.items() if count and id not in self._settler.dispatch.channels]:
            node = self._mirror.nodes.get(id)
            if node is None or node.connected:
                continue
            left = max(node.last_seen, self._began) + self._context.config.lost_after_s - now
            if left > 0:
                self._wait_at_most(left)
            else:
                await self._settler.commit(lambda tx, node=node: self._give_up(tx, node))  # type: ignore[misc]  # a bound default

    async def _empty(self) -> None:
        """Have sessions that may be moved leave agents that are being drained."""
        draining = self._mirror.draining
        if not draining:
            return
        movable = [lease.id for lease in self._settler.leases.by_session.values() if lease.preemptible and draining & {*lease.agents}]
        if movable:
            await self._settler.commit(lambda tx: self._move_away(tx, movable))

    async def _close(self, now: float) -> None:
        """End what runs in a reservation that is over."""
        booked = self._settler.leases.booked
        if not booked:
            return
        late = [lease.id for lease in self._settler.leases.by_session.values() if booked.get(lease.booking, now + 1.0) <= now]
        if late:
            await self._context.store.write(lambda tx: wish_stop(tx, late, "Its reservation is over."))
            await self._settler.commit(lambda tx: self._settle(tx, late))
        if coming := [ends for ends in booked.values() if ends > now]:
            self._wait_at_most(min(coming) - now)

    async def _move_away(self, tx: Tx, ids: Sequence[str]) -> Decided:
        now, changes = self._context.clock(), []
        for held in await find(tx.connection, BY_SESSION, ids):
            how = held.asked.evicted
            if how is not None and (after := life.evict(held, how, held.grace, now, "Its agent is being drained.")) is not None:
                changes.append((held, after))
        await write(tx, changes, now)
        return Decided(tuple(changes))

    async def _give_up(self, tx: Tx, node: Node) -> Decided:
        now, said = self._context.clock(), f"The agent {node.agent.name} was lost."
        if node.agent.id in self._settler.dispatch.channels:
            return Decided()  # it came back this very moment
        held = await find_holding(tx.connection, kernels.c.agent_id == node.agent.id)
        changes = [(one, after) for one in held
                   if (after := life.lose(one, _on(one, node.agent.id), said, self._context.new_id, now)) is not None]
        await write(tx, changes, now)
        return Decided(tuple(changes))

    def _wait_at_most(self, seconds: float) -> None:
        self._next = min(self._next, max(seconds, 0.01))


def _on(held: Held, agent_id: str) -> list[str]:
    """Return a session's kernels that are on an agent."""
    return [kernel.id for kernel in held.kernels if kernel.agent == agent_id]


async def _enter(connection: AsyncConnection, ids: Sequence[str]) -> tuple[tuple[Held, ...], Mapping[str, int]]:
    """Read sessions that have come to wait, and for how many others each of them does."""
    return await find(connection, BY_SESSION, ids), await count_unmet(connection, ids)
