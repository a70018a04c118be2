"""Who waits and who runs, as one caller may see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller
from backendai.manager.operations.terms import kernels_of
from backendai.manager.prospects import Prospect
from backendai.manager.store.owners import visible
from backendai.manager.store.schema import agents, kernels, sessions
from backendai.manager.store.sessions import SESSIONS, read_spec
from backendai.manager.wording import basis_of
from backendai.model.errors import Failure
from backendai.model.explain import Busy, Entry, Queue
from backendai.model.session import PLACED, SessionState
from backendai.model.slots import plain_slots
from backendai.model.views import Measure
from backendai.sokovan.forecast import Forecast
from backendai.wire.link import Usage

if TYPE_CHECKING:
    from backendai.manager.context import Context

_HOLDING = tuple(state.value for state in PLACED)
_COUNTED = ("cpu_s", "memory", "memory_peak", "pids", "io_read", "io_write", "net_rx", "net_tx")


async def queue_of(context: Context, caller: Caller, group: str, name: str, limit: int, only: str | None = None) -> Queue:
    """Return who waits in a group, in the order in which they go. group: its id. only: the id of one session, for the rest counts alone."""
    waits = (sessions.c.group_id == group) & (sessions.c.state == SessionState.PENDING.value)
    mine = waits & visible(caller) if only is None else waits & visible(caller) & (sessions.c.id == only)

    async def job(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], int, int]:
        rows = (await connection.execute(SESSIONS.where(mine).order_by(sessions.c.id).limit(10_000))).all()
        return rows, await _count(connection, waits), await _count(connection, waits & visible(caller))

    rows, waiting, seen = await context.store.read(job)
    if not rows:
        return Queue(group=name, scheduler="", waiting=waiting, hidden=waiting - seen, items=(), text="")
    try:
        prospect = await context.prospects.of(context, group, [row.id for row in rows])
    except Failure as failure:  # nobody can plan there, and nobody knows an order
        return Queue(name, "", waiting, waiting - seen, tuple(_entry(row, None) for row in rows[:limit]), failure.message)
    last = len(prospect.positions) + 1
    rows = sorted(rows, key=lambda row: (prospect.positions.get(row.id, last), row.id))
    return Queue(name, prospect.sight.plugins[0], waiting, waiting - seen, tuple(_entry(row, prospect) for row in rows[:limit]),
                 basis_of(prospect.habits))


def _entry(row: Row[Any], prospect: Prospect | None) -> Entry:
    known = Forecast(row.not_before, None)
    ahead = known if prospect is None else prospect.forecasts.get(row.id, known)
    return Entry(None if prospect is None else prospect.positions.get(row.id), row.id, row.name, row.owner, row.project, row.priority,
                 plain_slots(slots_of(row)), row.created_at, row.hold, ahead.earliest, ahead.latest)


async def busy_of(context: Context, caller: Caller, groups: Mapping[str, str], limit: int) -> tuple[tuple[Busy, ...], int]:
    """Return the sessions that hold capacity, newest first, and how many of them there are that *caller* may not see. groups: by id."""
    holds = sessions.c.state.in_(_HOLDING) & sessions.c.group_id.in_(groups)

    async def job(connection: AsyncConnection) -> tuple[Sequence[Row[Any]], Sequence[Any], int]:
        found = (await connection.execute(SESSIONS.where(holds, visible(caller)).order_by(sessions.c.id.desc()).limit(limit))).all()
        ids = [row.id for row in found]
        parts = select(kernels.c.id, kernels.c.session_id, agents.c.name).select_from(
            kernels.outerjoin(agents, kernels.c.agent_id == agents.c.id)).where(kernels.c.session_id.in_(ids), kernels.c.holds)
        hidden = await _count(connection, holds) - await _count(connection, holds & visible(caller))
        return found, (await connection.execute(parts.order_by(kernels.c.role, kernels.c.idx))).all(), hidden

    rows, parts, hidden = await context.store.read(job)
    containers: dict[str, list[Row[Any]]] = {row.id: [] for row in rows}
    for part in parts:
        containers[part.session_id].append(part)
    return tuple(_busy(context, row, containers[row.id], groups[row.group_id]) for row in rows), hidden


def _busy(context: Context, row: Row[Any], containers: Sequence[Row[Any]], group: str) -> Busy:
    measured = [usage for one in containers if (usage := context.live.usage.get(one.id)) is not None]
    names = tuple(dict.fromkeys(one.name for one in containers if one.name))
    since = row.started_at or row.state_since
    return Busy(row.id, row.name, row.owner, group, row.state, names, plain_slots(slots_of(row)), since, add(measured))


def slots_of(row: Row[Any]) -> dict[str, int]:
    """Return what all containers of a session, of ``sessions``, need together."""
    total: Counter[str] = Counter()
    for slots in kernels_of(read_spec(row)):
        total.update(slots)
    return dict(total)


def add(measured: Sequence[Usage]) -> Measure | None:
    """Return what several containers use together, None where nothing was measured; what one of them lacks is left out for it alone."""
    if not measured:
        return None
    sums: dict[str, Any] = {}
    for name in _COUNTED:
        known = [value for usage in measured if (value := getattr(usage, name)) is not None]
        sums[name] = sum(known) if known else None
    return Measure(max(usage.at for usage in measured), **sums)


async def _count(connection: AsyncConnection, where: Any) -> int:
    return int((await connection.execute(select(func.count()).select_from(sessions).where(where))).scalar() or 0)
