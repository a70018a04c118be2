"""Agents come, give signs of life, and go."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence

from backendai.manager import life
from backendai.manager.context import Context
from backendai.manager.dispatch import Channel, Link
from backendai.manager.held import Held
from backendai.manager.networks import reachable
from backendai.manager.reports import apply
from backendai.manager.settle import Decided, Settler
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import Change, find_holding, write
from backendai.manager.store.nodes import bind, forget, join, leave, note, unknown_logs
from backendai.manager.store.schema import kernels
from backendai.model.errors import Failure
from backendai.wire.link import Beat, Hello, Welcome

log = logging.getLogger(__name__)
NOTED_S = 30.0  # how old an agent's ``last_seen`` may become while nothing else changes


class Reception:
    """The agents' door."""

    def __init__(self, context: Context, settler: Settler) -> None:
        self._context = context
        self._settler = settler
        self._channels = settler.dispatch.channels

    async def hello(self, link: Link, hello: Hello) -> None:
        """Take an agent in: believe what it has, and tell it all that it should have. Raise ``Failure`` to refuse it."""
        context = self._context
        if hello.cluster and hello.cluster != context.cluster and hello.kernels:
            said = "This agent holds kernels of another cluster; let it finish there, or give it a data folder of its own."
            raise Failure("conflict", said)
        before = self._channels.get(hello.agent)
        channel = Channel(link, beat=Beat(hello.why, hello.capacity, devices=hello.devices), noted=context.clock())
        self._channels[hello.agent] = channel  # from here on every change makes it stale
        try:
            decided = await self._settler.commit(lambda tx: self._take_in(tx, hello, link.token, context.clock()))
        except BaseException:
            if self._channels.get(hello.agent) is channel:
                del self._channels[hello.agent]
                if before is not None:
                    self._channels[hello.agent] = before
            raise
        if before is not None:
            before.link.close("the agent has connected anew")
        if self._channels.get(hello.agent) is not channel:
            return  # this one has gone already, or was replaced
        context.live.links[hello.agent] = link  # type: ignore[assignment]  # the link is made by the same hands as ``Live``
        await self._settler.dispatch.tell_all(channel, Welcome(context.cluster, decided.purge))
        context.capacities.forget()
        context.bus.wake(agents=[hello.agent])

    async def gone(self, link: Link) -> None:
        """Note that a link has ended; its agent's sessions stay as they are for a while."""
        channel = self._channels.get(link.agent_id)
        if channel is not None and channel.link is not link:
            return
        if channel is not None:
            del self._channels[link.agent_id]
            self._context.live.links.pop(link.agent_id, None)
        try:
            await self.see_off(link.agent_id)  # even without a channel: its hello may be written, and its end came meanwhile
        except Failure as error:  # without a database; a later look sees it off
            log.debug("the end of a link was not written: %s", error)
        self._context.bus.wake(agents=[link.agent_id])

    async def see_off(self, agent_id: str) -> None:
        """Write down that an agent is absent, unless it is here."""

        async def job(tx: Tx) -> None:
            if agent_id not in self._channels:
                await leave(tx, agent_id, self._context.clock())

        await self._context.store.write(job)

    async def beat(self, agent_id: str, beat: Beat) -> None:
        """Take a sign of life; only what changed is written."""
        channel, now = self._channels.get(agent_id), self._context.clock()
        if channel is None or channel.beat is None:
            return
        known = self._settler.leases.by_kernel
        self._context.live.usage.update({kernel: usage for kernel, usage in beat.usage.items() if kernel in known})
        capacity, devices = beat.capacity or channel.beat.capacity, beat.devices or channel.beat.devices
        fell_ill = devices != channel.beat.devices  # or recovered
        changed = beat.why != channel.beat.why or capacity != channel.beat.capacity or fell_ill
        if changed or now - channel.noted >= NOTED_S:
            fresh = capacity if capacity != channel.beat.capacity else None
            await self._context.store.write(lambda tx: note(tx, agent_id, beat.why, fresh, now, devices if fell_ill else None))
            channel.beat, channel.noted = Beat(beat.why, capacity, devices=devices), now
        if changed:
            self._context.bus.wake(agents=[agent_id])
        used: Counter[str] = Counter()
        for lease in self._settler.leases.by_session.values() if self._settler.notices.heard("post_agent_heartbeat") else ():
            if agent_id in lease.agents:
                for amounts in (kernel for kernel, agent in zip(lease.kernels, lease.agents, strict=True) if agent == agent_id):
                    used.update(amounts)
        self._settler.notices.beat(agent_id, not beat.why, capacity, {name: max(0, all - used[name]) for name, all in capacity.items()})

    async def _take_in(self, tx: Tx, hello: Hello, token: str, now: float) -> Decided:
        """Write the agent's row and what it says of its kernels; what it has lost is over."""
        hello = reachable(hello, self._context.config.network)
        namesake = await join(tx, hello, self._channels.keys(), now)
        await bind(tx, token, hello, namesake)
        replaced = await self._replace(tx, namesake, hello.name, now) if namesake else ()
        told = {(hello.agent, seen.kernel): seen for seen in hello.kernels}
        mine = await find_holding(tx.connection, kernels.c.agent_id == hello.agent)
        lost = [(held, [kernel.id for kernel in held.holding if kernel.agent == hello.agent and kernel.state
                        and (hello.agent, kernel.id) not in told]) for held in mine]  # what it never had is ordered again
        without = await self._give_up(tx, lost, f"The agent {hello.name} came back without it.", now)
        decided = await apply(tx, told, self._context)
        return Decided((*replaced, *without, *decided.changes), decided.unwanted, await unknown_logs(tx, hello.logs))

    async def _replace(self, tx: Tx, agent_id: str, name: str, now: float) -> Sequence[Change]:
        """End what an absent agent held whose name was taken over, and forget it."""
        held = await find_holding(tx.connection, kernels.c.agent_id == agent_id)
        lost = [(one, [kernel.id for kernel in one.holding if kernel.agent == agent_id]) for one in held]
        changes = await self._give_up(tx, lost, f"The agent {name} was replaced by a new one.", now)
        await forget(tx, agent_id)
        return changes

    async def _give_up(self, tx: Tx, lost: Sequence[tuple[Held, Collection[str]]], said: str, now: float) -> Sequence[Change]:
        """End sessions some of whose kernels will not come back."""
        changes = [(held, after) for held, which in lost
                   if (after := life.lose(held, which, said, self._context.new_id, now)) is not None]
        await write(tx, changes, now)
        return changes
