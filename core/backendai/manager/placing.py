"""From a proposal to what is written: placements, room that is made, refusals and reasons, each of them guarded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from backendai.manager import life, networks
from backendai.manager.context import Context
from backendai.manager.decisions import Note
from backendai.manager.dispatch import peers_of
from backendai.manager.held import Held
from backendai.manager.mirror import Mirror, Side
from backendai.manager.settle import Decided, Settler
from backendai.manager.sights import Sight
from backendai.manager.store.decisions import write_decision
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_SESSION, Change, find, write
from backendai.manager.store.placement import Granted, grant, write_holds
from backendai.model.errors import Failure
from backendai.model.network import NetPlan
from backendai.model.session import Network, SessionState
from backendai.plugin.errors import Missing, PluginFault
from backendai.sokovan.plan import Placement, Plan
from backendai.spec import network_v10

BATCH = 500  # sessions in one transaction, so that nobody else waits long for the database


@dataclass(frozen=True, slots=True)
class Proposal:
    """What should be committed. sight: what it was made from. note: for the record. placements: of *plan*, those that stand.

    refused: reasons by session.
    """

    sight: Sight | None = None
    note: Note | None = None
    plan: Plan = field(default_factory=Plan)
    placements: tuple[Placement, ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Placing:
    """Writes the proposals of one resource group."""

    def __init__(self, context: Context, settler: Settler, mirror: Mirror, side: Side) -> None:
        self._context = context
        self._settler = settler
        self._mirror = mirror
        self._side = side
        self._nets: dict[str, str] = {}  # planned networks of sessions that are about to be placed, as text
        self._read: dict[str, NetPlan] = {}  # those and the ones in force, by their texts

    async def commit(self, proposal: Proposal, holds: Mapping[str, str]) -> int:
        """Write *proposal*, with those *holds* that are worth it; return how many placements were not to be had any more."""
        side, missed = self._side, 0
        waiting = [(side.waiting[p.session], p) for p in proposal.placements if p.session in side.waiting]
        claims = self._new_claims(proposal.plan)
        first = True
        for at in range(0, max(len(waiting), 1), BATCH):
            some = waiting[at:at + BATCH]
            rest = (proposal, holds, claims) if first else (Proposal(proposal.sight, proposal.note), {}, {})
            first = False
            if not some and not any((rest[0].refused, rest[0].plan.evictions, rest[1], rest[2])):
                continue
            granted = Granted(())

            async def job(tx: Tx, some: Sequence[tuple[Held, Placement]] = some,
                          rest: tuple[Proposal, Mapping[str, str], Mapping[str, tuple[str, ...]]] = rest) -> Decided:
                nonlocal granted
                granted, decided = await self._write(tx, some, *rest)
                return decided

            await self._settler.commit(job)
            missed += len(some) - len(granted.changes)
            gone = {held.id for held, _ in some} - {before.id for before, _ in granted.changes}
            if gone:
                self._context.bus.wake(fresh=gone)  # to look at them again: they may wait no more
            self._follow(granted, rest[1])
        self._nets.clear()
        return missed

    def unconnected(self, placements: Sequence[Placement]) -> dict[str, str]:
        """Plan the networks of sessions that lie on several agents; return why it cannot be done, by session."""
        why: dict[str, str] = {}
        for placement in placements:
            if len(set(placement.agents)) > 1 and placement.session in self._side.waiting:
                held = life.place(self._side.waiting[placement.session], placement.agents, 0.0)
                try:
                    self._nets[held.id] = self._plan_network(held)
                except (Failure, Missing, PluginFault) as error:
                    why[held.id] = self._mirror.together[held.id] = f"No network can be made between several nodes: {error}"
        return why

    def _plan_network(self, held: Held) -> str:
        name = self._context.config.network
        driver = self._context.host.one(network_v10.SPEC, name)
        nodes = [node for kernel in held.kernels if (node := self._mirror.nodes.get(str(kernel.agent))) is not None]
        addresses = {node.agent.id: node.address for node in nodes}
        texts = (*self._settler.leases.nets.values(), *self._nets.values())
        self._read = {text: self._read.get(text) or networks.from_text(text) for text in texts if text}
        taken = list(self._read.values())
        plan = networks.plan_for(driver, name, networks.network_name(held.id, held.attempt), peers_of(held), addresses, taken,
                                 held.asked.network is Network.OUTWARD, {node.agent.id: node.agent.name for node in nodes})
        return "" if plan is None else networks.to_text(plan)

    async def _write(self, tx: Tx, some: Sequence[tuple[Held, Placement]], proposal: Proposal, holds: Mapping[str, str],
                     claims: Mapping[str, tuple[str, ...]]) -> tuple[Granted, Decided]:
        now = self._context.clock()
        placed = [(held, life.place(held, p.agents, now, p.units, self._nets.get(held.id, ""))) for held, p in some]
        granted = await grant(tx, placed, now)
        await self._record(tx, proposal, {after.id for _, after in granted.changes}, some, now)
        others: list[Change] = []
        named = {*proposal.refused, *claims, *(eviction.victim for eviction in proposal.plan.evictions)}
        options = self._side.group.options.preemption
        victims = {eviction.victim for eviction in proposal.plan.evictions}
        for held in await find(tx.connection, BY_SESSION, sorted(named)):
            after: Held | None = None
            if held.id in proposal.refused:
                after = life.refuse(held, proposal.refused[held.id], now)
            elif held.id in victims and (how := held.asked.evicted) is not None:
                after = life.evict(held, how, options.grace_s, now)
            elif held.id in claims and held.state == SessionState.PENDING:
                claim = claims[held.id]
                after = replace(held, claim=msgspec.json.encode(claim).decode() if claim else "")
            if after is not None:
                others.append((held, after))
        await write(tx, others, now)
        await write_holds(tx, holds)
        return granted, Decided((*granted.changes, *others))

    async def _record(self, tx: Tx, proposal: Proposal, granted: Collection[str], some: Sequence[tuple[Held, Placement]],
                      now: float) -> None:
        """Write down from what was decided who was placed."""
        if proposal.note is not None and proposal.sight is not None and granted:
            placed = {placement.session: placement.agents for _, placement in some if placement.session in granted}
            await write_decision(tx, self._side.group.id, now, proposal.note.snapshot, proposal.sight.plugins, placed, proposal.note.frozen)

    def _new_claims(self, plan: Plan) -> Mapping[str, tuple[str, ...]]:
        """Return the claims that differ from what is written, an empty one where it is to be dropped."""
        side, found = self._side, {}
        placed = {placement.session for placement in plan.placements}
        had = side.claimed - side.aside if plan.order or plan.claims else set()
        for id in (had | plan.claims.keys()) - placed:
            claim = plan.claims.get(id, ())
            if id in side.waiting and msgspec.json.encode(claim).decode() != (side.waiting[id].claim or "[]"):
                found[id] = claim
        return found

    def _follow(self, granted: Granted, holds: Mapping[str, str]) -> None:
        """Remember what was said, and measure."""
        now, side, bus = self._context.clock(), self._side, self._context.bus
        for before, _ in granted.changes:
            self._context.metrics.scheduling.observe(max(0.0, now - before.created_at))
        for id, said in holds.items():
            if id in side.said:
                side.said[id] = said
                side.unsaid.discard(id)
                bus.changed(id)
        if granted.stale:
            bus.wake(everything=True)
