"""Sessions: ask for one, watch it, stop it, forget it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Verb
from backendai.manager.context import Context
from backendai.manager.operations.asking import MOST_GRACE_S
from backendai.manager.operations.enqueue import create
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import find_place, visible
from backendai.manager.store.placement import wish_stop
from backendai.manager.store.schema import agents, kernels, sessions, users
from backendai.manager.store.sessions import FINAL_STATES, SESSIONS, find_session, find_sessions, read_kernels, read_spec, show
from backendai.model.errors import Failure
from backendai.model.session import FINAL, Session, SessionState
from backendai.spec import Reject
from backendai.spec.hook_v20 import SPEC as HOOK
from backendai.wire.link import Usage

MOST_WAIT_S = 60.0
STOP_FIRST_S = 300.0  # how long a forced removal waits for the end; TERMINATING itself may last 120 s
_REACHED = {"running": frozenset({SessionState.RUNNING, SessionState.TERMINATING, *FINAL}), "final": FINAL}


class ListSessions(Input, frozen=True):
    """all: ended ones too. state: only those in it. cursor: the ``next`` of the page before. limit: at most 200.

    project: those in it, by NAME, DOMAIN/NAME or id. user: that user's. everyone: all that you may see. Yours when these are left out.
    """

    all: bool = False
    state: SessionState | None = None
    cursor: str | None = None
    limit: int = 50
    project: str | None = None
    user: str | None = None
    everyone: bool = False


class GetSession(Input, frozen=True):
    """id: a session's id, its owner's name for it, or OWNER/NAME.

    wait: answer once it is at least that far. timeout_s: or after so long, at most 60.
    """

    id: str
    wait: Literal["running", "final"] | None = None
    timeout_s: float = 30.0


class StopSession(Input, frozen=True):
    """id: as for get. grace_s: seconds from SIGTERM to SIGKILL, instead of what was asked for at the start."""

    id: str
    grace_s: float | None = None


class DeleteSession(Input, frozen=True):
    """id: as for get. force: stop it first when it has not ended."""

    id: str
    force: bool = False


class StatsOfSession(Input, frozen=True):
    """id: as for get; with ``:sub1`` behind it that container alone."""

    id: str


class KernelStats(msgspec.Struct, frozen=True):
    """What one container of a session uses. usage: null while nothing was measured."""

    kernel: str
    role: str
    index: int
    agent: str | None
    state: str
    usage: Usage | None


class SessionStats(msgspec.Struct, frozen=True):
    """What a session uses, container by container."""

    session: str
    kernels: tuple[KernelStats, ...]


async def list_(context: Context, caller: Caller, input: ListSessions) -> Page[Session]:
    """List sessions: yours, a project's, or all that you may see; the active ones, or ended ones too, newest first."""
    if not 1 <= input.limit <= 200:
        raise Failure("invalid-request", f"limit: {input.limit} must be from 1 to 200.")
    query = SESSIONS.where(visible(caller)).order_by(sessions.c.id.desc()).limit(input.limit + 1)
    if input.project is not None:
        place = await find_place(context.places, context.store, caller, input.project)
        query = query.where(sessions.c.project_id == place.id)
    if input.user is not None:
        query = query.where(users.c.name == input.user)
    elif input.project is None and not input.everyone:
        query = query.where(sessions.c.owner_id == caller.id)
    if input.state is not None:
        query = query.where(sessions.c.state == input.state.value)
    elif not input.all:
        query = query.where(sessions.c.state.not_in(FINAL_STATES))
    if input.cursor is not None:
        query = query.where(sessions.c.id < input.cursor)

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        return (await connection.execute(query)).all()

    rows = await context.store.read(job)
    items = tuple(show(context, row, caller) for row in rows[: input.limit])
    return Page(items, items[-1].id if len(rows) > input.limit else None)


async def get(context: Context, caller: Caller, input: GetSession) -> Session:
    """Show a session; with ``wait`` answer when it is at least that far, or after ``timeout_s``."""
    row = await find_session(context, caller, input.id)
    if input.wait is not None:
        if not 0 <= input.timeout_s <= MOST_WAIT_S:
            raise Failure("invalid-request", f"timeout_s: must be from 0 to {MOST_WAIT_S:g}; ask again to wait longer.")
        row = await _wait(context, caller, row, _REACHED[input.wait], input.timeout_s)
    session = show(context, row, caller)
    return replace(session, kernels=await read_kernels(context, row.id)) if read_spec(row).cluster else session


async def _wait(context: Context, caller: Caller, row: Row[Any], states: frozenset[SessionState], timeout_s: float) -> Row[Any]:
    """Return the session's row once it is in one of *states*, or as it is after *timeout_s*."""
    session_id = row.id

    async def look() -> Row[Any] | None:
        nonlocal row
        row = await find_session(context, caller, session_id)
        return row if row.state in states else None

    if row.state in states:
        return row
    try:
        async with asyncio.timeout(timeout_s):
            return await context.bus.until(session_id, look)
    except TimeoutError:
        return row


async def stop(context: Context, caller: Caller, input: StopSession) -> Session:
    """Ask a session, or every session of an array, to end. This notes the wish and returns; see ``wait`` of get.

    What has ended stays as it is; what is ending already may be given less time.
    """
    rows = await find_sessions(context, caller, input.id, Verb.CHANGE)
    if input.grace_s is not None and not 0 <= input.grace_s <= MOST_GRACE_S:
        raise Failure("invalid-request", f"grace_s: must be from 0 to {MOST_GRACE_S:g}.")
    going = [row for row in rows if row.state not in FINAL]
    if not going:
        return show(context, rows[0], caller)
    if context.host.each(HOOK):
        for row in going:
            try:
                await context.host.all(HOOK).pre_destroy_session(show(context, row), caller.user)
            except Reject as veto:
                raise Failure("rejected", veto.reason) from veto
    await _note_stop(context, caller, going, input.grace_s)
    return show(context, await find_session(context, caller, rows[0].id), caller)


async def _note_stop(context: Context, caller: Caller, rows: Sequence[Row[Any]], grace_s: float | None) -> None:
    async def job(tx: Tx) -> None:
        for row in rows:
            why = "" if caller.id == row.owner_id else f"It was stopped by {caller.user.name}."
            if await wish_stop(tx, [row.id], why, grace_s):
                tx.event("session.stop", row.id, row.owner_id, {"by": caller.user.name, "name": row.name, "state": row.state})
                tx.after(partial(context.bus.changed, row.id))
        tx.after(lambda: context.bus.wake(due=[row.id for row in rows]))

    await context.store.write(job)


async def remove(context: Context, caller: Caller, input: DeleteSession) -> None:
    """Forget a session, or every session of an array, that has ended, its output included."""
    rows = await find_sessions(context, caller, input.id, Verb.CHANGE)
    going = [row for row in rows if row.state not in FINAL]
    if going and not input.force:
        raise Failure("conflict", f"{going[0].name} is {going[0].state}; stop it first, or remove it by force.")
    if going:
        await stop(context, caller, StopSession(id=input.id))
    for row in going:
        row = await _wait(context, caller, row, FINAL, STOP_FIRST_S)
        if row.state not in FINAL:
            said = f"{row.name} has not ended within {STOP_FIRST_S:g} s and will still be stopped; remove it later."
            raise Failure("deadline", said)
    for row in rows:
        await _forget(context, caller, row)


async def _forget(context: Context, caller: Caller, row: Row[Any]) -> None:
    async def job(tx: Tx) -> Sequence[Any]:
        mine = (await tx.connection.execute(select(kernels.c.id, kernels.c.agent_id).where(kernels.c.session_id == row.id))).all()
        if (await tx.connection.execute(delete(sessions).where(sessions.c.id == row.id))).rowcount:
            tx.event("session.deleted", row.id, row.owner_id, {"by": caller.user.name, "name": row.name})
        return mine

    for kernel in await context.store.write(job):
        context.live.usage.pop(kernel.id, None)
        if kernel.agent_id is not None:
            context.live.purge(kernel.agent_id, (kernel.id,))
    context.live.progress.pop(row.id, None)
    context.bus.changed(row.id)


async def stats(context: Context, caller: Caller, input: StatsOfSession) -> SessionStats:
    """Show what a session uses, as its agent measured it last."""
    id, _, name = input.id.partition(":")
    row = await find_session(context, caller, id)
    query = (select(kernels, agents.c.name.label("agent")).select_from(kernels.outerjoin(agents, kernels.c.agent_id == agents.c.id))
             .where(kernels.c.session_id == row.id, kernels.c.attempt == row.attempt)
             .order_by(kernels.c.role != "main", kernels.c.role, kernels.c.idx))

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        return (await connection.execute(query)).all()

    return SessionStats(row.id, tuple(
        KernelStats(k.id, k.role, k.idx, k.agent, k.state, context.live.usage.get(k.id)) for k in await context.store.read(job)
        if name in ("", f"{k.role}{k.idx}")))


OPERATIONS = (
    declare("sessions.create", create, "POST", "/v1/sessions", status=201, mutates=True, creates=True),
    declare("sessions.list", list_, "GET", "/v1/sessions", query=("all", "state", "cursor", "limit", "project", "user", "everyone")),
    declare("sessions.get", get, "GET", "/v1/sessions/{id}", query=("wait", "timeout_s")),
    declare("sessions.stop", stop, "POST", "/v1/sessions/{id}/stop", mutates=True),
    declare("sessions.delete", remove, "DELETE", "/v1/sessions/{id}", status=204, query=("force",), mutates=True),
    declare("sessions.stats", stats, "GET", "/v1/sessions/{id}/stats"),
)
