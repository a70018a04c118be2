"""What the orchestrator reads and writes: the queue, the ledger, and sessions with their kernels. Every change is guarded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.life import Held
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import agent_slots, agents, kernels, sessions, users
from backendai.model.session import SessionState
from backendai.sokovan.snapshot import Agent

S = SessionState
MOST = 500  # values in one IN list
_ACTIVE = text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")  # the words of the partial index, so that it is used
_STOPPABLE = tuple(s.value for s in (S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING))
_HELD: Select[Any] = select(
    sessions.c.id, sessions.c.name, sessions.c.owner_id, sessions.c.type, sessions.c.spec, sessions.c.priority, sessions.c.state,
    sessions.c.deadline, sessions.c.stop, sessions.c.result, sessions.c.exit_code, sessions.c.reason, sessions.c.hold,
    sessions.c.agent_id, sessions.c.image, sessions.c.created_at, sessions.c.started_at, sessions.c.ended_at,
    kernels.c.id.label("kernel"), kernels.c.slots, kernels.c.agent_id.label("kernel_agent"), kernels.c.holds,
    kernels.c.state.label("kernel_state"), kernels.c.exit_code.label("kernel_exit"), kernels.c.container, users.c.uid, users.c.gid,
).select_from(sessions.join(kernels, kernels.c.session_id == sessions.c.id).join(users, users.c.id == sessions.c.owner_id))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
BY_SESSION = _HELD.where(sessions.c.id.in_(_IDS))
BY_KERNEL = _HELD.where(kernels.c.id.in_(_IDS))
HOLDING = _HELD.where(kernels.c.holds.is_(True))
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
_SESSION = update(sessions).where(sessions.c.id == bindparam("of"), sessions.c.state == bindparam("was")).values(
    state=bindparam("to_state"), state_since=bindparam("since"), deadline=bindparam("to_deadline"), result=bindparam("to_result"),
    exit_code=bindparam("to_exit"), reason=bindparam("to_reason"), hold=bindparam("to_hold"), agent_id=bindparam("to_agent"),
    image=bindparam("to_image"), started_at=bindparam("to_started"), ended_at=bindparam("to_ended"))
_SAME_STATE = update(sessions).where(sessions.c.id == bindparam("of"), sessions.c.state == bindparam("was")).values(
    deadline=bindparam("to_deadline"), result=bindparam("to_result"), exit_code=bindparam("to_exit"), reason=bindparam("to_reason"),
    image=bindparam("to_image"), started_at=bindparam("to_started"), ended_at=bindparam("to_ended"))
_KERNEL = update(kernels).where(kernels.c.id == bindparam("of"), kernels.c.holds == bindparam("held")).values(
    id=bindparam("to_id"), agent_id=bindparam("to_agent"), holds=bindparam("to_hold"), state=bindparam("to_state"),
    exit_code=bindparam("to_exit"), container=bindparam("to_container"))
_TAKE = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name"),
    agent_slots.c.used + bindparam("amount") <= agent_slots.c.capacity).values(used=agent_slots.c.used + bindparam("amount"))
_GIVE = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name"),
    agent_slots.c.used >= bindparam("amount")).values(used=agent_slots.c.used - bindparam("amount"))
_USED = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name")).values(used=bindparam("amount"))
_HOLD = update(sessions).where(sessions.c.id == bindparam("of"), sessions.c.state == S.PENDING.value).values(hold=bindparam("said"))
Change = tuple[Held, Held]  # before, after


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


async def find(connection: AsyncConnection, query: Any, ids: Sequence[str]) -> tuple[Held, ...]:
    """Return the sessions that *query* (``BY_SESSION``, ``BY_KERNEL``) finds for *ids*."""
    found: list[Held] = []
    for at in range(0, len(ids), MOST):
        found += [Held(*row) for row in await connection.execute(query, {"ids": ids[at:at + MOST]})]
    return tuple(found)


async def find_holding(connection: AsyncConnection, *where: ColumnElement[bool]) -> tuple[Held, ...]:
    """Return the sessions that hold capacity."""
    return tuple(Held(*row) for row in await connection.execute(HOLDING.where(*where)))


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
    """Write those placements that still hold: the session waits, its agent is well and has the room. Return them."""
    ids = [before.id for before, _ in placed]
    places = sorted({after.agent_id for _, after in placed if after.agent_id})
    waits = {row[0] for row in await tx.connection.execute(_WAITS.with_for_update(), {"ids": ids})}
    room: dict[tuple[str, str], int] = {}
    well: set[str] = set()
    for row in await tx.connection.execute(_ROOM.with_for_update(of=agent_slots), {"ids": places}):
        room[row[0], row[1]] = row[2] - row[3]
        well.add(row[0])
    granted: list[Change] = []
    for before, after in placed:
        wanted = {(str(after.agent_id), name): amount for name, amount in after.amounts.items() if amount}
        if before.id in waits and after.agent_id in well and all(room.get(key, 0) >= amount for key, amount in wanted.items()):
            for key, amount in wanted.items():
                room[key] -= amount
            granted.append((before, after))
    await write(tx, granted, now)
    return tuple(granted)


async def write(tx: Tx, changes: Sequence[Change], now: float) -> None:
    """Write sessions and kernels as they shall be, move the ledger, and tell the event log of each new state.

    The changes were worked out from rows that this transaction read, and every statement is guarded once more.
    """
    moved = [change for change in changes if change[0].state != change[1].state]
    same = [change for change in changes if change[0].state == change[1].state]
    for statement, some in ((_SESSION, moved), (_SAME_STATE, same)):
        if some:
            await tx.connection.execute(statement, [_session_row(before, after, now, statement is _SESSION) for before, after in some])
    if changes:
        await tx.connection.execute(_KERNEL, [
            {"of": before.kernel, "held": before.holds, "to_id": after.kernel, "to_agent": after.kernel_agent, "to_hold": after.holds,
             "to_state": str(after.kernel_state), "to_exit": after.kernel_exit, "to_container": after.container}
            for before, after in changes])
    for ledger, rows in ((_GIVE, _amounts(before for before, after in changes if before.holds and not after.holds)),
                         (_TAKE, _amounts(after for before, after in changes if after.holds and not before.holds))):
        if rows:
            await tx.connection.execute(ledger, rows)
    for _, after in moved:
        tx.event(f"session.{after.state.lower()}", after.id, after.owner_id, _told(after))


async def write_holds(tx: Tx, holds: Mapping[str, str]) -> None:
    """Say why sessions wait."""
    if holds:
        await tx.connection.execute(_HOLD, [{"of": id, "said": said} for id, said in holds.items()])


async def settle_ledger(tx: Tx) -> tuple[tuple[Held, ...], list[str]]:
    """Make the ledger equal to what is held. Return that, and the slots that were wrong."""
    held = await find_holding(tx.connection)
    sums = {(row["of"], row["name"]): row["amount"] for row in _amounts(held)}
    wrong = [row for row in (await tx.connection.execute(select(agent_slots))).all()
             if row.used != sums.get((row.agent_id, row.slot), 0)]
    if wrong:
        await tx.connection.execute(_USED, [
            {"of": row.agent_id, "name": row.slot, "amount": sums.get((row.agent_id, row.slot), 0)} for row in wrong])
    return held, [f"{row.agent_id}.{row.slot}" for row in wrong]


def _session_row(before: Held, after: Held, now: float, moved: bool) -> dict[str, Any]:
    row = {"of": before.id, "was": str(before.state), "to_deadline": after.deadline,
           "to_result": None if after.result is None else str(after.result), "to_exit": after.exit_code, "to_reason": after.reason,
           "to_image": after.image, "to_started": after.started_at, "to_ended": after.ended_at}
    if moved:
        row |= {"to_state": str(after.state), "since": now, "to_hold": after.hold, "to_agent": after.agent_id}
    return row


def _amounts(held: Iterable[Held]) -> list[dict[str, Any]]:
    """Add up what sessions take, by agent and slot."""
    sums: Counter[tuple[str, str]] = Counter()
    for one in held:
        for name, amount in one.amounts.items():
            sums[str(one.kernel_agent), name] += amount
    return [{"of": agent, "name": name, "amount": amount} for (agent, name), amount in sorted(sums.items()) if amount]


def _told(held: Held) -> dict[str, Any]:
    data: dict[str, Any] = {"name": held.name, "state": str(held.state)}
    given = {"reason": held.reason, "agent": held.agent_id, "exit_code": held.exit_code, "result": held.result and str(held.result)}
    return data | {key: value for key, value in given.items() if value not in (None, "")}


