"""What the orchestrator reads and writes besides sessions: the queue, the agents and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Select, and_, bindparam, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.held import Held
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_SESSION, MOST, Change, amounts_of, find, find_holding, write
from backendai.manager.store.schema import agent_slots, agents, sessions
from backendai.model.session import SessionState
from backendai.sokovan.snapshot import Agent

S = SessionState
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_ACTIVE = text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")  # the words of the partial index, so that it is used
_STOPPABLE = tuple(s.value for s in (S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING))
_DUE = select(sessions.c.id, sessions.c.state, sessions.c.stop).where(_ACTIVE, or_(
    sessions.c.state == S.PENDING.value,
    and_(sessions.c.stop.is_(True), sessions.c.state.in_(_STOPPABLE)),
    sessions.c.deadline <= bindparam("now")))
_NEAREST = select(func.min(sessions.c.deadline)).where(_ACTIVE)
_AGENTS = (select(agents.c.id, agents.c.name, agents.c.connected, agents.c.why, agents.c.last_seen, agent_slots.c.slot,
                  agent_slots.c.capacity, agent_slots.c.used)
           .select_from(agents.outerjoin(agent_slots, agent_slots.c.agent_id == agents.c.id)))
_WAITS = select(sessions.c.id).where(sessions.c.id.in_(_IDS), sessions.c.state == S.PENDING.value, sessions.c.stop.is_(False))
_ROOM = (select(agent_slots.c.agent_id, agent_slots.c.slot, agent_slots.c.capacity, agent_slots.c.used)
         .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id))
         .where(agent_slots.c.agent_id.in_(_IDS), agents.c.connected.is_(True), agents.c.why == ""))
_USED = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name")).values(used=bindparam("amount"))
_HOLD = update(sessions).where(sessions.c.id == bindparam("of"), sessions.c.state == S.PENDING.value).values(hold=bindparam("said"))


@dataclass(frozen=True, slots=True)
class Node:
    """An agent with its ledger. last_seen: seconds since the epoch."""

    agent: Agent
    connected: bool
    last_seen: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What one look found. waiting: ids in the queue. due: ids of sessions whose owner or whose clock wants something.

    fresh: the waiting ones that were not known yet. nearest: the next deadline, when it was asked for.
    """

    waiting: tuple[str, ...]
    due: tuple[str, ...]
    fresh: tuple[Held, ...]
    nodes: tuple[Node, ...]
    nearest: float | None


async def look(connection: AsyncConnection, now: float, known: Callable[[str], bool], nearest: bool) -> Moment:
    """Read the queue and the cluster; sessions that are *known* are not read again."""
    rows = (await connection.execute(_DUE, {"now": now})).all()
    waiting = tuple(row[0] for row in rows if row[1] == S.PENDING and not row[2])
    due = tuple(row[0] for row in rows if row[1] != S.PENDING or row[2])
    fresh = await find(connection, BY_SESSION, [id for id in waiting if not known(id)])
    soonest: float | None = (await connection.execute(_NEAREST)).scalar() if nearest else None
    return Moment(waiting, due, fresh, await read_nodes(connection), soonest)


async def read_nodes(connection: AsyncConnection) -> tuple[Node, ...]:
    """Read every agent with its ledger."""
    found: dict[str, tuple[Any, dict[str, int], dict[str, int]]] = {}
    for row in (await connection.execute(_AGENTS)).all():
        _, capacity, used = found.setdefault(row[0], (row, {}, {}))
        if row[5] is not None:
            capacity[row[5]], used[row[5]] = row[6], row[7]
    return tuple(Node(Agent(id, row[1], capacity, used, row[3] if row[2] else row[3] or "it is not connected"), row[2], row[4])
                 for id, (row, capacity, used) in found.items())


async def grant(tx: Tx, placed: Sequence[Change], now: float) -> tuple[Change, ...]:
    """Write those placements that still hold: the session waits, its agents are well and have the room. Return them."""
    waits = {row[0] for row in await _read(tx, _WAITS.with_for_update(), [before.id for before, _ in placed])}
    places = sorted({str(kernel.agent) for _, after in placed for kernel in after.kernels})
    room: dict[tuple[str, str], int] = {}
    well: set[str] = set()
    for row in await _read(tx, _ROOM.with_for_update(of=agent_slots), places):
        room[row[0], row[1]] = row[2] - row[3]
        well.add(row[0])
    granted: list[Change] = []
    for before, after in placed:
        wanted = [((str(row["of"]), str(row["name"])), int(row["amount"])) for row in amounts_of(after.kernels)]
        if (before.id in waits and all(kernel.agent in well for kernel in after.kernels)
                and all(room.get(key, 0) >= amount for key, amount in wanted)):
            for key, amount in wanted:
                room[key] -= amount
            granted.append((before, after))
    await write(tx, granted, now)
    return tuple(granted)


async def _read(tx: Tx, query: Select[Any], ids: Sequence[str]) -> list[Any]:
    """Run *query* for *ids*, in parts that any database takes."""
    return [row for at in range(0, len(ids), MOST) for row in await tx.connection.execute(query, {"ids": ids[at:at + MOST]})]


async def write_holds(tx: Tx, holds: Mapping[str, str]) -> None:
    """Say why sessions wait."""
    if holds:
        await tx.connection.execute(_HOLD, [{"of": id, "said": said} for id, said in holds.items()])


async def settle_ledger(tx: Tx) -> tuple[tuple[Held, ...], list[str]]:
    """Make the ledger equal to what is held. Return that, and the slots that were wrong."""
    held = await find_holding(tx.connection)
    sums = {(row["of"], row["name"]): row["amount"] for row in amounts_of(kernel for one in held for kernel in one.holding)}
    wrong = [row for row in (await tx.connection.execute(select(agent_slots))).all()
             if row.used != sums.get((row.agent_id, row.slot), 0)]
    if wrong:
        await tx.connection.execute(_USED, [
            {"of": row.agent_id, "name": row.slot, "amount": sums.get((row.agent_id, row.slot), 0)} for row in wrong])
    return held, [f"{row.agent_id}.{row.slot}" for row in wrong]
