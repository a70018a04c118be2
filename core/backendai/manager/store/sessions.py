"""Reading sessions: one by id or name, coalesced, and as everyone sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Row, String, and_, bindparam, case, cast, literal, select

from backendai.manager.access import Caller, Verb, may, require
from backendai.manager.store.owners import thing_of, visible
from backendai.manager.store.schema import agents, domains, groups, kernels, projects, sessions, users
from backendai.model.errors import Failure
from backendai.model.ids import is_id
from backendai.model.session import FINAL, KernelView, Result, Session, SessionSpec, SessionState, SessionType
from backendai.model.slots import plain_slots

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from backendai.manager.context import Context
    from backendai.manager.store.engine import Store

FINAL_STATES = tuple(state.value for state in FINAL)
SESSIONS = (select(sessions, users.c.name.label("owner"), agents.c.name.label("agent"), projects.c.name.label("project"),
                   domains.c.name.label("domain"), groups.c.name.label("group"))
            .select_from(sessions.join(users, sessions.c.owner_id == users.c.id)
                         .join(projects, sessions.c.project_id == projects.c.id).join(domains, sessions.c.domain_id == domains.c.id)
                         .outerjoin(groups, sessions.c.group_id == groups.c.id).outerjoin(agents, sessions.c.agent_id == agents.c.id)))
_BY_IDS = SESSIONS.where(sessions.c.id.in_(bindparam("ids", expanding=True)))
_NEWEST = (case((sessions.c.state.in_(FINAL_STATES), 1), else_=0), sessions.c.id.desc())
HIDDEN = "***"  # in the place of a variable's value
_spec_decoder = msgspec.json.Decoder(SessionSpec)
MOST = 200  # ids in one query


class SessionLoader:
    """Reads of single sessions; those that come while one is under way share the next query."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wanted: dict[str, asyncio.Future[Row[Any] | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def load(self, id: str) -> Row[Any] | None:
        """Return a session's row as it is after this call began, None when there is none."""
        future = self._wanted.get(id)
        if future is None:
            future = self._wanted[id] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="session-loader")
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._wanted:
                for _ in range(2):  # who arrives meanwhile comes along: measured, a tenth more answers
                    await asyncio.sleep(0)
                batch = dict(list(self._wanted.items())[:MOST])
                for wanted in batch:
                    del self._wanted[wanted]
                await self._fetch(batch)
        finally:
            self._task = None

    async def _fetch(self, batch: Mapping[str, asyncio.Future[Row[Any] | None]]) -> None:
        async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(_BY_IDS, {"ids": list(batch)})).all()

        try:
            rows = {row.id: row for row in await self._store.read(job)}
        except Exception as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # its waiters may be gone
        else:
            for wanted, future in batch.items():
                future.set_result(rows.get(wanted))


async def find_session(context: Context, caller: Caller, id_or_name: str, verb: Verb = Verb.READ) -> Row[Any]:
    """Return the row of a session that *caller* may see and do *verb* to, by id, by its owner's name for it, or by OWNER/NAME.

    Of several that bore the name the active one is meant, else the newest. Besides the table's columns the row has ``owner`` and
    ``agent``, names both.
    """
    row = await context.sessions.load(id_or_name) if is_id(id_or_name) else None
    if row is None:
        owner, slash, name = id_or_name.rpartition("/")
        mine = users.c.name == owner if slash else sessions.c.owner_id == caller.id
        query = SESSIONS.where(sessions.c.name == name, mine, visible(caller)).order_by(*_NEWEST).limit(1)

        async def job(connection: AsyncConnection) -> Row[Any] | None:
            return (await connection.execute(query)).first()

        row = await context.store.read(job)
    thing = None if row is None else thing_of(row)
    if row is None or thing is None or not may(caller, Verb.READ, thing):
        raise Failure("not-found", f"You have no session {id_or_name!r}; see `bai ps -a`.")
    require(caller, verb, thing)
    return row


async def find_sessions(context: Context, caller: Caller, id_or_name: str, verb: Verb = Verb.READ) -> Sequence[Row[Any]]:
    """Return the row of a session as ``find_session`` does, or those of all sessions of the array that bears that id or name."""
    try:
        return [await find_session(context, caller, id_or_name, verb)]
    except Failure as failure:
        if failure.code != "not-found":
            raise
        owner, slash, name = id_or_name.rpartition("/")
        mine = users.c.name == owner if slash else sessions.c.owner_id == caller.id
        called = and_(mine, sessions.c.name == literal(f"{name}-").concat(cast(sessions.c.array_index, String)))
        newest = select(sessions.c.array_id).select_from(sessions.join(users, sessions.c.owner_id == users.c.id)).where(
            sessions.c.array_id.is_not(None), called).order_by(sessions.c.array_id.desc()).limit(1).scalar_subquery()
        which = sessions.c.array_id == id_or_name if is_id(id_or_name) else sessions.c.array_id == newest
        query = SESSIONS.where(which, visible(caller)).order_by(sessions.c.array_index)
        rows = (await context.store.read(lambda connection: connection.execute(query))).all()
        if not rows:
            raise
    for row in rows:
        require(caller, verb, thing_of(row))
    return rows


async def read_kernels(context: Context, session_id: str) -> tuple[KernelView, ...]:
    """Return the containers of a session's present attempt, the main one first."""
    query = (select(kernels, agents.c.name.label("agent"))
             .select_from(kernels.join(sessions, kernels.c.session_id == sessions.c.id)
                          .outerjoin(agents, kernels.c.agent_id == agents.c.id))
             .where(sessions.c.id == session_id, kernels.c.attempt == sessions.c.attempt)
             .order_by(kernels.c.role != "main", kernels.c.role, kernels.c.idx))
    rows = await context.store.read(lambda connection: connection.execute(query))
    return tuple(KernelView(row.id, f"{row.role}{row.idx}", row.agent, row.state, row.exit_code,
                            plain_slots(msgspec.json.decode(row.slots, type=dict[str, int]))) for row in rows)


def read_spec(row: Row[Any]) -> SessionSpec:
    """Return what the session's owner asked for."""
    return _spec_decoder.decode(row.spec)


def to_session(row: Row[Any], progress: str = "") -> Session:
    """Return a row of ``SESSIONS`` as everyone sees it. progress: what it does right now, from ``Live``."""
    spec = read_spec(row)
    return Session(
        id=row.id, name=row.name, owner=row.owner, type=SessionType(row.type), image=row.image or spec.image,
        command=spec.command, state=SessionState(row.state), result=Result(row.result) if row.result else None,
        exit_code=row.exit_code, reason=row.reason, hold=row.hold, agent=row.agent, priority=row.priority,
        slots=plain_slots(spec.slots), env=spec.env, network=spec.network, mounts=spec.mounts, tags=spec.tags,
        time_limit_s=spec.time_limit_s, progress=progress, created_at=row.created_at, started_at=row.started_at,
        ended_at=row.ended_at, project=row.project, domain=row.domain, group=row.group or "",
        expires_at=row.expires_at if row.state == SessionState.RUNNING else None,
        expires_why=row.expires_why if row.state == SessionState.RUNNING else "", attempt=row.attempt, not_before=row.not_before,
        after=spec.after, retry=spec.retry, evicted=spec.evicted, array=spec.array)


def show(context: Context, row: Row[Any], caller: Caller | None = None) -> Session:
    """Return a row of ``SESSIONS`` with what is known of its progress right now.

    caller: who will see it; the values of its variables are hidden from everybody but those who may read them.
    """
    session = to_session(row, context.live.progress.get(row.id, ""))
    if caller is None or not session.env or may(caller, Verb.READ, replace(thing_of(row), kind="environment")):
        return session
    return replace(session, env=dict.fromkeys(session.env, HIDDEN))
