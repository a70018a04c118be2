"""What was held, counted to the second: each kernel remembers until when its share is in the books (``kernels.counted_at``).

A kernel that comes to hold begins now, one that ceases to hold is settled in the same transaction, and those that go on are brought
up to date every minute. So nothing is counted twice and nothing is missed, whenever the process dies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, func, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.quotas import SESSIONS
from backendai.manager.store.schema import agent_slots, agents, domains, groups, kernels, projects, sessions, shares, usage
from backendai.model.group import GroupOptions
from backendai.spec.scheduler_v10 import Account

DAY_S = 86400.0
PART = 1000  # kernels in one transaction, so that nobody else waits long for the database
_UNCOUNTED = text("((holds AND counted_at IS NULL) OR (NOT holds AND counted_at IS NOT NULL))")  # the words of the partial index
_ROWS: Select[Any] = select(
    kernels.c.id, kernels.c.role, kernels.c.idx, kernels.c.holds, kernels.c.counted_at, kernels.c.slots, sessions.c.owner_id,
    sessions.c.project_id, sessions.c.domain_id, sessions.c.group_id,
).select_from(kernels.join(sessions, kernels.c.session_id == sessions.c.id))
_ENDED = _ROWS.where(kernels.c.id.in_(select(kernels.c.id).where(_UNCOUNTED, kernels.c.holds.is_(False))))
_BEGIN = update(kernels).where(_UNCOUNTED, kernels.c.holds.is_(True)).values(counted_at=bindparam("until"))
_SETTLE = update(kernels).where(_UNCOUNTED, kernels.c.holds.is_(False)).values(counted_at=None)
_GOES_ON = _ROWS.where(kernels.c.holds.is_(True))
_TOTALS = (select(agents.c.group_id, agent_slots.c.slot, func.sum(agent_slots.c.capacity))
           .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id)).group_by(agents.c.group_id, agent_slots.c.slot))
_KEY = ("day", "group_id", "project_id", "user_id", "slot")
_slots_decoder = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Piece:
    """What one kernel held from *begin* to *end*, by slot."""

    user: str
    project: str
    domain: str
    group: str
    amounts: Mapping[str, int]
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Base:
    """What a group's fair sharing counts by. total: the capacity of all its agents."""

    total: Mapping[str, int]
    half_life_s: float


async def count(connection: AsyncConnection, now: float) -> None:
    """Begin to count kernels that have come to hold, and settle those that hold no more. Call it where that is written."""
    await connection.execute(_BEGIN, {"until": now})
    if rows := (await connection.execute(_ENDED)).all():
        await _book(connection, [_piece(row, now) for row in rows], now)
        await connection.execute(_SETTLE)


async def begin_tick(connection: AsyncConnection, now: float) -> None:
    """Count who began or ended, and note each group's capacity, by which fair sharing measures."""
    await count(connection, now)
    totals: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for group, slot, amount in await connection.execute(_TOTALS):
        totals[group][slot] = int(amount)
    for row in (await connection.execute(select(groups.c.id, groups.c.total))).all():
        said = msgspec.json.encode(totals[row.id], order="sorted").decode()
        if said != row.total:
            await connection.execute(update(groups).where(groups.c.id == row.id).values(total=said))


async def tick(connection: AsyncConnection, now: float, after: str = "", most: int = PART) -> str:
    """Bring at most so many kernels that hold something up to date, by id behind *after*; return the last id, empty at the end.

    Each kernel remembers how far it is counted, so a tick may be done in parts, and stop in between.
    """
    rows = (await connection.execute(_GOES_ON.where(kernels.c.id > after).order_by(kernels.c.id).limit(most))).all()
    await _book(connection, [_piece(row, now) for row in rows], now)
    if behind := [row.id for row in rows if row.counted_at is None or row.counted_at < now]:
        mine = (kernels.c.id >= behind[0], kernels.c.id <= behind[-1], kernels.c.holds.is_(True))
        await connection.execute(update(kernels).where(*mine, kernels.c.counted_at < now).values(counted_at=now))
    return str(rows[-1].id) if len(rows) == most else ""


async def accounts(connection: AsyncConnection, now: float) -> dict[str, dict[str, Account]]:
    """Return everybody's part in fair sharing, by group: by id of a domain, by id of a project, and by ``PROJECT/USER``."""
    half = {row.id: msgspec.json.decode(row.options, type=GroupOptions).half_life_s
            for row in await connection.execute(select(groups.c.id, groups.c.options))}
    weights: dict[str, float] = {}
    for table in (domains, projects):
        weights |= {row.id: row.weight for row in await connection.execute(select(table.c.id, table.c.weight)) if row.weight != 1.0}
    found = {group: {name: Account(weight) for name, weight in weights.items()} for group in half}
    for row in await connection.execute(select(shares)):
        if row.group_id in half:
            used = row.usage * decay(now - row.at, half[row.group_id])
            found[row.group_id][row.account] = Account(weights.get(row.account, 1.0), used)
    return found


def decay(seconds: float, half_life_s: float) -> float:
    """Return how much is left after *seconds*: half of it after each half-life."""
    return math.exp2(-max(0.0, seconds) / half_life_s)


def weigh(piece: Piece, base: Base) -> float:
    """Return what a piece counts in fair sharing at its end: seconds of the group's whole capacity, by its dominant slot.

    What lies back already counts less, so it is the integral of rate * 2^(-age / half-life) over the piece. A slot that the group has
    no agent for counts nothing.
    """
    rate = max((amount / total for slot, amount in piece.amounts.items() if (total := base.total.get(slot, 0)) > 0), default=0.0)
    return rate * base.half_life_s / math.log(2) * (1 - decay(piece.end - piece.begin, base.half_life_s))


def days(begin: float, end: float) -> Iterable[tuple[str, float]]:
    """Yield each day (UTC) between two moments with the seconds of it."""
    while begin < end:
        midnight = (begin // DAY_S + 1) * DAY_S
        yield datetime.fromtimestamp(begin, UTC).strftime("%Y-%m-%d"), min(end, midnight) - begin
        begin = midnight


def _piece(row: Row[Any], now: float) -> Piece:
    amounts = _slots_decoder.decode(row.slots)
    if (row.role, row.idx) == ("main", 1):
        amounts[SESSIONS] = 1  # a session is held as long as its main kernel
    begin = now if row.counted_at is None else min(now, row.counted_at)
    return Piece(row.owner_id, row.project_id, row.domain_id, row.group_id, amounts, begin, now)


async def _book(connection: AsyncConnection, pieces: Iterable[Piece], now: float) -> None:
    """Add pieces to the books, and to the memory of fair sharing."""
    some = [piece for piece in pieces if piece.end > piece.begin]
    if not some:
        return
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for piece in some:
        for day, seconds in days(piece.begin, piece.end):
            for slot, amount in piece.amounts.items():
                sums[day, piece.group, piece.project, piece.user, slot, piece.domain] += amount * seconds
    names = (*_KEY, "domain_id", "amount_s")
    await _add(connection, [dict(zip(names, (*key, amount), strict=True)) for key, amount in sorted(sums.items())])
    await _remember(connection, some, now)


async def _add(connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    if connection.dialect.name == "sqlite":
        lite = sqlite.insert(usage)
        await connection.execute(lite.on_conflict_do_update(
            index_elements=list(_KEY), set_={"amount_s": usage.c.amount_s + lite.excluded.amount_s}), rows)
    else:
        server = postgresql.insert(usage)
        await connection.execute(server.on_conflict_do_update(
            index_elements=list(_KEY), set_={"amount_s": usage.c.amount_s + server.excluded.amount_s}), rows)


async def _remember(connection: AsyncConnection, pieces: Iterable[Piece], now: float) -> None:
    some = list(pieces)
    bases = await _bases(connection, {piece.group for piece in some})
    added: defaultdict[tuple[str, str], float] = defaultdict(float)
    for piece in some:
        weight = weigh(piece, bases[piece.group]) if piece.group in bases else 0.0
        for account in (piece.domain, piece.project, f"{piece.project}/{piece.user}"):
            added[piece.group, account] += weight
    keys = sorted(added)
    known: dict[tuple[str, str], tuple[float, float]] = {}
    for at in range(0, len(keys), 200):
        query = select(shares).where(tuple_(shares.c.group_id, shares.c.account).in_(keys[at:at + 200]))
        known |= {(row.group_id, row.account): (row.usage, row.at) for row in await connection.execute(query)}
    half = {group: base.half_life_s for group, base in bases.items()}
    rows = [{"g": key[0], "a": key[1], "u": added[key] + used * decay(now - at, half.get(key[0], 1.0)), "t": now}
            for key in keys for used, at in [known.get(key, (0.0, now))]]
    changed = update(shares).where(shares.c.group_id == bindparam("g"), shares.c.account == bindparam("a")).values(
        usage=bindparam("u"), at=bindparam("t"))
    for fresh, statement in ((False, changed), (True, shares.insert().values(
            group_id=bindparam("g"), account=bindparam("a"), usage=bindparam("u"), at=bindparam("t")))):
        if part := [row for row in rows if ((row["g"], row["a"]) not in known) is fresh]:
            await connection.execute(statement, part)


async def _bases(connection: AsyncConnection, wanted: Iterable[str]) -> dict[str, Base]:
    found = {}
    for row in await connection.execute(select(groups.c.id, groups.c.options, groups.c.total).where(groups.c.id.in_(list(wanted)))):
        options = msgspec.json.decode(row.options, type=GroupOptions)
        found[row.id] = Base(_slots_decoder.decode(row.total), options.half_life_s)
    for id in [id for id, base in found.items() if not base.total]:  # nobody has counted yet
        totals = {slot: int(amount) for _, slot, amount in await connection.execute(_TOTALS.where(agents.c.group_id == id))}
        found[id] = Base(totals, found[id].half_life_s)
    return found
