"""Sessions with their kernels in the tables: read whole, and written as transitions want them. Every change is guarded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Row, Select, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.held import Held, Kernel
from backendai.manager.store.engine import Tx
from backendai.manager.store.quotas import SESSIONS, Taker, lock
from backendai.manager.store.schema import agent_slots, kernels, sessions, users

MOST = 500  # values in one IN list
_SESSION_COLUMNS = (
    "id", "name", "owner_id", "type", "spec", "priority", "state", "deadline", "stop", "result", "exit_code", "reason", "hold", "agent_id",
    "image", "created_at", "started_at", "ended_at", "project_id", "domain_id", "group_id", "attempt", "retried", "not_before", "array_id",
    "claim", "evict", "expires_at", "net", "stop_why", "grace_s")
_KERNEL_COLUMNS = ("id", "role", "idx", "slots", "agent_id", "holds", "state", "exit_code", "container", "units", "attempt")
_WIDTH = len(_SESSION_COLUMNS) + 2  # and the owner's uid and gid
_HELD: Select[Any] = select(
    *(sessions.c[name] for name in _SESSION_COLUMNS), users.c.uid, users.c.gid,
    *(kernels.c[name].label(f"kernel_{name}") for name in _KERNEL_COLUMNS),
).select_from(
    sessions.join(kernels, (kernels.c.session_id == sessions.c.id) & (kernels.c.attempt == sessions.c.attempt))
    .join(users, users.c.id == sessions.c.owner_id))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
BY_SESSION = _HELD.where(sessions.c.id.in_(_IDS))
BY_KERNEL = _HELD.where(sessions.c.id.in_(select(kernels.c.session_id).where(kernels.c.id.in_(_IDS))))
_MOVED = ("state", "deadline", "result", "exit_code", "reason", "hold", "agent_id", "image", "started_at", "ended_at", "attempt", "retried",
          "not_before", "claim", "evict", "expires_at", "net", "stop", "stop_why", "grace_s")
_STAYED = tuple(name for name in _MOVED if name not in ("state", "hold", "agent_id", "stop"))
_WHICH = (sessions.c.id == bindparam("of")) & (sessions.c.state == bindparam("was"))
_MOVE = update(sessions).where(_WHICH).values(
    state_since=bindparam("since"), **{name: bindparam(f"to_{name}") for name in _MOVED})
_STAY = update(sessions).where(_WHICH).values({name: bindparam(f"to_{name}") for name in _STAYED})
_KERNEL = update(kernels).where(kernels.c.id == bindparam("of"), kernels.c.holds == bindparam("held")).values(
    id=bindparam("to_id"), agent_id=bindparam("to_agent"), holds=bindparam("to_hold"), state=bindparam("to_state"),
    exit_code=bindparam("to_exit"), container=bindparam("to_container"), units=bindparam("to_units"))
_TAKE = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name"),
    agent_slots.c.used + bindparam("amount") <= agent_slots.c.capacity).values(used=agent_slots.c.used + bindparam("amount"))
_GIVE = update(agent_slots).where(
    agent_slots.c.agent_id == bindparam("of"), agent_slots.c.slot == bindparam("name"),
    agent_slots.c.used >= bindparam("amount")).values(used=agent_slots.c.used - bindparam("amount"))
Change = tuple[Held, Held]  # before, after


async def find(connection: AsyncConnection, query: Select[Any], ids: Sequence[str]) -> tuple[Held, ...]:
    """Return the sessions that *query* (``BY_SESSION``, ``BY_KERNEL``) finds for *ids*."""
    found: list[Held] = []
    for at in range(0, len(ids), MOST):
        found += gather((await connection.execute(query, {"ids": ids[at:at + MOST]})).all())
    return tuple({held.id: held for held in found}.values())  # kernels of one session may have been asked for in two parts


async def find_holding(connection: AsyncConnection, *where: ColumnElement[bool]) -> tuple[Held, ...]:
    """Return the sessions that hold capacity by kernels of which *where* is true."""
    query = _HELD.where(sessions.c.id.in_(select(kernels.c.session_id).where(kernels.c.holds.is_(True), *where)))
    return gather((await connection.execute(query)).all())


def gather(rows: Iterable[Row[Any]]) -> tuple[Held, ...]:
    """Put the rows of sessions with kernels together."""
    parts: dict[str, list[Row[Any]]] = {}
    for row in rows:
        parts.setdefault(row[0], []).append(row)
    whole: list[tuple[Any, ...]] = [(*tuple(some[0])[:_WIDTH], _kernels(some)) for some in parts.values()]
    return tuple(Held(*values) for values in whole)


def _kernels(rows: Sequence[Row[Any]]) -> tuple[Kernel, ...]:
    if len(rows) == 1:
        return (Kernel(*rows[0][_WIDTH:]),)
    return tuple(sorted((Kernel(*row[_WIDTH:]) for row in rows), key=lambda kernel: (kernel.role != "main", kernel.role, kernel.idx)))


async def write(tx: Tx, changes: Sequence[Change], now: float) -> None:
    """Write sessions and kernels as they shall be, move the ledger, and tell the event log of each new state.

    The changes were worked out from rows that this transaction read, and every statement is guarded once more.
    """
    moved = [change for change in changes if change[0].state != change[1].state]
    if moved:
        await tx.connection.execute(_MOVE, [_row(before, after, _MOVED) | {"since": now} for before, after in moved])
    if stayed := [row for before, after in changes if before.state == after.state and _row(before, before, _STAYED) != (
            row := _row(before, after, _STAYED))]:
        await tx.connection.execute(_STAY, stayed)
    if rows := [row for change in changes for row in _kernel_rows(*change)]:
        await tx.connection.execute(_KERNEL, rows)
    if fresh := [{**_insert(kernel), "session_id": after.id} for before, after in changes if before.attempt != after.attempt
                 for kernel in after.kernels]:
        await tx.connection.execute(insert(kernels), fresh)
    for ledger, rows in ((_GIVE, amounts_of(kernel for before, after in changes for kernel in left(before, after))),
                         (_TAKE, amounts_of(kernel for before, after in changes for kernel in left(after, before)))):
        if rows:
            await tx.connection.execute(ledger, rows)
    if back := [taker_of(before, gone, not after.holds) for before, after in changes if (gone := left(before, after))]:
        purse = await lock(tx.connection, back)
        for taker in back:
            purse.give(taker)
        await purse.write(tx.connection)
    for _, after in moved:
        tx.event(f"session.{after.state.lower()}", after.id, after.owner_id, _told(after))


def left(before: Held, after: Held) -> list[Kernel]:
    """Return the kernels that hold in *before* and do not in *after*; the other way round those that have come to hold."""
    still = {kernel.id for kernel in after.holding}
    return [kernel for kernel in before.holding if kernel.id not in still]


def amounts_of(kernels: Iterable[Kernel]) -> list[dict[str, Any]]:
    """Add up what kernels take, by agent and slot."""
    sums: Counter[tuple[str, str]] = Counter()
    for kernel in kernels:
        for name, amount in kernel.amounts.items():
            sums[str(kernel.agent), name] += amount
    return [{"of": agent, "name": name, "amount": amount} for (agent, name), amount in sorted(sums.items()) if amount]


def taker_of(held: Held, some: Iterable[Kernel], whole: bool) -> Taker:
    """Return what kernels of a session count for in its owners' quotas. whole: the session itself counts, too."""
    sums: Counter[str] = Counter({SESSIONS: 1} if whole else {})
    for kernel in some:
        sums.update(kernel.amounts)
    return Taker(held.owner_id, held.project_id, held.domain_id, held.group_id, sums)


def _row(before: Held, after: Held, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"of": before.id, "was": str(before.state)}
    for name in names:
        value = getattr(after, name)
        row[f"to_{name}"] = str(value) if isinstance(value, str) else value  # the drivers want plain text, no enumerations
    return row


def _kernel_rows(before: Held, after: Held) -> list[dict[str, Any]]:
    later = after.past if before.attempt != after.attempt else after.kernels
    return [{"of": was.id, "held": was.holds, "to_id": to.id, "to_agent": to.agent, "to_hold": to.holds, "to_state": str(to.state),
             "to_exit": to.exit_code, "to_container": to.container, "to_units": to.units}
            for was, to in zip(before.kernels, later, strict=True) if was != to]


def _insert(kernel: Kernel) -> dict[str, Any]:
    return {"id": kernel.id, "role": kernel.role, "idx": kernel.idx, "slots": kernel.slots, "holds": False, "state": "",
            "attempt": kernel.attempt}


def _told(held: Held) -> dict[str, Any]:
    data: dict[str, Any] = {"name": held.name, "state": str(held.state)}
    given = {"reason": held.reason, "agent": held.agent_id, "exit_code": held.exit_code, "result": held.result and str(held.result)}
    return data | {key: value for key, value in given.items() if value not in (None, "")}
