"""What the orchestrator reads and writes besides sessions: the queue, the agents and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import BindParameter, Select, and_, bindparam, case, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.held import Held
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import MOST, Change, amounts_of, find_holding, taker_of, write
from backendai.manager.store.quotas import Line, lock, read_quotas
from backendai.manager.store.schema import agent_slots, agents, bookings, sessions
from backendai.model.session import SessionState
from backendai.sokovan.snapshot import Agent, Booking

S = SessionState
OVER_S = 7 * 86400.0  # how long a reservation that is over is still looked at, should something run on in it
_labels_decoder = msgspec.json.Decoder(dict[str, str])
_booked_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_ACTIVE = text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")  # the words of the partial index, so that it is used
_STOPPABLE = tuple(s.value for s in (S.PENDING, S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING))
_DUE = select(sessions.c.id).where(_ACTIVE, or_(
    and_(sessions.c.stop.is_(True), sessions.c.state.in_(_STOPPABLE)),
    sessions.c.deadline <= bindparam("now"),
    and_(sessions.c.expires_at <= bindparam("expired"), sessions.c.state == S.RUNNING.value, sessions.c.stop.is_(False))))
_PENDING = select(sessions.c.id).where(_ACTIVE, sessions.c.state == S.PENDING.value, sessions.c.stop.is_(False))
_NEAREST = select(func.min(sessions.c.deadline)).where(_ACTIVE)
_AGENTS = (select(agents.c.id, agents.c.name, agents.c.connected, agents.c.why, agents.c.last_seen, agents.c.group_id, agents.c.cordoned,
                  agents.c.draining, agents.c.labels, agents.c.devices, agents.c.address, agent_slots.c.slot, agent_slots.c.capacity)
           .select_from(agents.outerjoin(agent_slots, agent_slots.c.agent_id == agents.c.id)))
_SOME_AGENTS = _AGENTS.where(agents.c.id.in_(_IDS))
_BOOKINGS = select(bookings).where(bookings.c.ends > bindparam("now"))
_WAITS = select(sessions.c.id).where(sessions.c.id.in_(_IDS), sessions.c.state == S.PENDING.value, sessions.c.stop.is_(False))
_ROOM = (select(agent_slots.c.agent_id, agent_slots.c.slot, agent_slots.c.capacity, agent_slots.c.used)
         .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id))
         .where(agent_slots.c.agent_id.in_(_IDS), agents.c.connected.is_(True), agents.c.why == "", agents.c.cordoned.is_(False),
                agents.c.draining.is_(False)))
_USED = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name")).values(used=bindparam("amount"))
_HOLD = update(sessions).where(sessions.c.id == bindparam("of"), sessions.c.state == S.PENDING.value).values(hold=bindparam("said"))


@dataclass(frozen=True, slots=True)
class Node:
    """An agent as its row has it; what it has lent is not read. last_seen: seconds since the epoch. closed: why it takes nothing new."""

    agent: Agent
    connected: bool
    last_seen: float
    group_id: str
    closed: str = ""
    draining: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a look at everything found. waiting: ids in the queue. due: ids of sessions whose owner or whose clock wants something.

    nearest: the next deadline.
    """

    waiting: tuple[str, ...]
    due: tuple[str, ...]
    nodes: tuple[Node, ...]
    nearest: float | None
    lines: tuple[Line, ...]
    bookings: Mapping[str, Sequence[Booking]]


@dataclass(frozen=True, slots=True)
class Granted:
    """What of a plan was written. stale: something was not as the plan had it, besides who waits and who is well."""

    changes: tuple[Change, ...]
    stale: bool = False


async def look(connection: AsyncConnection, now: float, patience_s: float) -> Moment:
    """Read who waits, what is due, the agents and the rules. patience_s: after which time limits are enforced by us."""
    due = (await connection.execute(_DUE, {"now": now, "expired": now - patience_s})).scalars().all()
    waiting = (await connection.execute(_PENDING)).scalars().all()
    soonest: float | None = (await connection.execute(_NEAREST)).scalar()
    booked: dict[str, list[Booking]] = {}
    for row in await connection.execute(_BOOKINGS, {"now": now - OVER_S}):
        booked.setdefault(row.group_id, []).append(
            Booking(row.id, row.name, row.scope_id, _booked_decoder.decode(row.agents), row.begins, row.ends))
    return Moment(tuple(waiting), tuple(due), await read_nodes(connection), soonest, await read_quotas(connection), booked)


async def read_nodes(connection: AsyncConnection, ids: Sequence[str] | None = None) -> tuple[Node, ...]:
    """Read every agent, or those of *ids*."""
    if ids is None:
        return _nodes((await connection.execute(_AGENTS)).all())
    return _nodes([row for at in range(0, len(ids), MOST) for row in await connection.execute(_SOME_AGENTS, {"ids": ids[at:at + MOST]})])


def _nodes(rows: Sequence[Any]) -> tuple[Node, ...]:
    found: dict[str, tuple[Any, dict[str, int]]] = {}
    for row in rows:
        _, capacity = found.setdefault(row[0], (row, {}))
        if row[11] is not None:
            capacity[row[11]] = row[12]
    return tuple(_node(row, capacity) for row, capacity in found.values())


def _node(row: Any, capacity: Mapping[str, int]) -> Node:
    closed = "It is being drained." if row[7] else "It is cordoned." if row[6] else ""
    agent = Agent(row[0], row[1], capacity, {}, row[3], labels=_labels_decoder.decode(row[8]), devices=_booked_decoder.decode(row[9]))
    return Node(agent, row[2], row[4], row[5], closed, row[7], row[10])


async def grant(tx: Tx, placed: Sequence[Change], now: float) -> Granted:
    """Write those placements that still hold: the session waits, its agents are well and have the room, and its owners' quotas allow it."""
    waits = {row[0] for row in await _read(tx, _WAITS.with_for_update(), [before.id for before, _ in placed])}
    places = sorted({str(kernel.agent) for _, after in placed for kernel in after.kernels})
    room: dict[tuple[str, str], int] = {}
    well: set[str] = set()
    for row in await _read(tx, _ROOM.with_for_update(of=agent_slots), places):
        room[row[0], row[1]] = row[2] - row[3]
        well.add(row[0])
    takers = {after.id: taker_of(after, after.kernels, True) for _, after in placed}
    purse = await lock(tx.connection, takers.values())
    granted: list[Change] = []
    stale = False
    for before, after in placed:
        if before.id not in waits or any(kernel.agent not in well for kernel in after.kernels):
            continue
        wanted = [((str(row["of"]), str(row["name"])), int(row["amount"])) for row in amounts_of(after.kernels)]
        if any(room.get(key, 0) < amount for key, amount in wanted) or purse.take(takers[after.id]):
            stale = True
            continue
        for key, amount in wanted:
            room[key] -= amount
        granted.append((before, after))
    await purse.write(tx.connection)
    await write(tx, granted, now)
    return Granted(tuple(granted), stale)


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


async def wish_stop(tx: Tx, ids: Sequence[str], why: str = "", grace_s: float | None = None) -> int:
    """Note that sessions shall end, and return how many had not; a reason that is noted already stays. Ring ``bus.wake(due=ids)`` after it.

    why: a sentence, empty when it is their owner's wish. grace_s: from SIGTERM to SIGKILL, None for what was asked for.
    """
    first = case((sessions.c.stop, sessions.c.stop_why), else_=why)
    values: dict[str, Any] = {"stop_why": first, "stop": True} | ({} if grace_s is None else {"grace_s": grace_s})
    count = 0
    for at in range(0, len(ids), MOST):
        done = await tx.connection.execute(update(sessions).where(sessions.c.id.in_(ids[at:at + MOST]), _ACTIVE).values(values))
        count += done.rowcount
    return count
