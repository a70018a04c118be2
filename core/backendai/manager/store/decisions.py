"""The record of decisions: written with what they placed, read to show and to make them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import agents, decisions, events, groups, kernels

NEAR_S = 5.0  # between a decision and the event that tells of it
KEPT, KEPT_BYTES = 2000, 64 << 20  # moments that are kept, and how large all of them may be
_placed_decoder = msgspec.json.Decoder(dict[str, tuple[str, ...]])
_COLUMNS = (decisions.c.id, decisions.c.at, decisions.c.snapshot, decisions.c.scheduler, decisions.c.selector, decisions.c.placed,
            decisions.c.frozen.is_not(None).label("kept"), decisions.c.group_id,
            func.coalesce(groups.c.name, decisions.c.group_id).label("group"))
_DECISIONS = select(*_COLUMNS).select_from(decisions.outerjoin(groups, decisions.c.group_id == groups.c.id))


async def write_decision(tx: Tx, group: str, at: float, snapshot: str, plugins: tuple[str, str], placed: Mapping[str, Sequence[str]],
                         frozen: bytes | None) -> None:
    """Record what was placed by one plan. snapshot: its digest. frozen: the moment itself, packed, where it is to be kept."""
    await tx.connection.execute(insert(decisions), [{
        "at": at, "group_id": group, "snapshot": snapshot, "scheduler": plugins[0][:128], "selector": plugins[1][:128],
        "placed": msgspec.json.encode(placed).decode(), "frozen": frozen}])


async def forget(tx: Tx, oldest: float) -> None:
    """Forget decisions from before *oldest*."""
    await tx.connection.execute(delete(decisions).where(decisions.c.at < oldest))


async def thin(tx: Tx) -> None:
    """Forget the moments of all but the newest decisions."""
    query = (select(decisions.c.id, func.length(decisions.c.frozen)).where(decisions.c.frozen.is_not(None))
             .order_by(decisions.c.id.desc()))
    total = 0
    for number, row in enumerate((await tx.connection.execute(query)).all()):
        total += row[1]
        if number >= KEPT or total > KEPT_BYTES:
            await tx.connection.execute(update(decisions).where(decisions.c.id <= row.id).values(frozen=None))
            return


async def newest(connection: AsyncConnection, group: str | None, session: str | None, before: int | None, limit: int) -> Sequence[Row[Any]]:
    """Return decisions, newest first. group: an id. session: only those that placed it. before: older than this one."""
    query = _DECISIONS.order_by(decisions.c.id.desc()).limit(limit)
    if group is not None:
        query = query.where(decisions.c.group_id == group)
    if session is not None:
        query = query.where(decisions.c.placed.contains(f'"{session}"', autoescape=True))
    if before is not None:
        query = query.where(decisions.c.id < before)
    return (await connection.execute(query)).all()


async def of_session(connection: AsyncConnection, row: Row[Any]) -> Row[Any] | None:
    """Return the decision that placed a session, of ``sessions``, last."""
    scheduled = select(events.c.at).where(events.c.subject == row.id, events.c.type == "session.scheduled")
    at = (await connection.execute(scheduled.order_by(events.c.id.desc()).limit(1))).scalar()
    query = _DECISIONS.where(decisions.c.group_id == row.group_id, decisions.c.placed.contains(f'"{row.id}"', autoescape=True))
    begin, end = (at - NEAR_S, at + NEAR_S) if at is not None else (row.created_at, row.ended_at)
    query = query.where(decisions.c.at >= begin)
    if end is not None:
        query = query.where(decisions.c.at <= end)
    return (await connection.execute(query.order_by(decisions.c.id.desc()).limit(1))).first()


async def frozen_of(connection: AsyncConnection, id: int) -> bytes | None:
    """Return the moment that a decision was made from, packed; None when it was not kept."""
    return (await connection.execute(select(decisions.c.frozen).where(decisions.c.id == id))).scalar()


async def agents_of(connection: AsyncConnection, session: str, attempt: int) -> tuple[str, ...]:
    """Return the names of the agents of a session's containers, the main one's first, each once."""
    query = (select(func.coalesce(agents.c.name, kernels.c.agent_id), kernels.c.role, kernels.c.idx)
             .select_from(kernels.outerjoin(agents, kernels.c.agent_id == agents.c.id))
             .where(kernels.c.session_id == session, kernels.c.attempt == attempt, kernels.c.agent_id.is_not(None)))
    rows = sorted((await connection.execute(query)).all(), key=lambda row: (row[1] != "main", row[1], row[2]))
    return tuple(dict.fromkeys(row[0] for row in rows))


def placed_of(row: Row[Any]) -> dict[str, tuple[str, ...]]:
    """Return whom a decision placed where, by ids."""
    return _placed_decoder.decode(row.placed)
