"""Accepting a session: what was asked for is checked, put to the site's plugins, and enters the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError

from backendai.manager.access import Caller, Verb, require
from backendai.manager.context import Context
from backendai.manager.held import Held, Kernel, parts_of
from backendai.manager.operations.asking import CreateSession, make_name, read_array, to_spec
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.terms import Choice, Terms, find_terms
from backendai.manager.store.dependencies import NEVER, is_met
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import Place, check_open, check_usable, find_place
from backendai.manager.store.schema import dependencies, kernels, sessions
from backendai.manager.store.sessions import find_session, find_sessions, show, to_session
from backendai.model.errors import Failure
from backendai.model.session import FINAL, After, ArrayIndex, Dependency, Session, SessionSpec, SessionState
from backendai.spec import Reject
from backendai.spec.hook_v20 import SPEC as HOOK
from backendai.spec.hook_v20 import Enqueue

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was asked for and may be had. specs: one, or one for each session of an array."""

    specs: tuple[SessionSpec, ...]
    place: Place
    terms: Terms

    @property
    def spec(self) -> SessionSpec:
        """Return the first, to which the others are alike."""
        return self.specs[0]


async def create(context: Context, caller: Caller, input: CreateSession) -> Session:
    """Ask for a session, or an array of them. It waits in the queue until there is room for it."""

    async def again(id: str) -> Session:
        return show(context, await find_session(context, caller, id), caller)

    return await create_once(context, caller, lambda: _enqueue(context, caller, input), again)


async def prepare(context: Context, caller: Caller, input: CreateSession) -> Prepared:
    """Check everything that is asked for, and change nothing."""
    place = await find_place(context.places, context.store, caller, input.project)
    require(caller, Verb.CREATE, place.thing("session"))
    check_usable(place)
    terms = await find_terms(context, caller, place, input.type.value, Choice(input.group, input.preset, input.reservation))
    spec = terms.apply(to_spec(input, {**context.config.default_slots, **terms.slots}, context.clock()))
    after: dict[str, After] = {}
    for one in input.after:
        for row in await find_sessions(context, caller, one.session):
            after[row.id] = one.kind
    spec = replace(spec, after=tuple(Dependency(id, kind) for id, kind in after.items()))
    await terms.check(context, spec)
    return Prepared(_specs(spec, input, context.new_id()), place, terms)


def held_of(prepared: Prepared, id: str, owner_id: str, now: float) -> Held:
    """Return the session that would come of it, as it would wait."""
    spec, place, group = prepared.spec, prepared.place, prepared.terms.group.id
    row = {"id": id, "name": spec.name, "owner_id": owner_id, "type": spec.type.value, "spec": _encoder.encode(spec).decode(),
           "priority": spec.priority, "created_at": now, "project_id": place.id, "domain_id": place.domain_id, "group_id": group,
           "not_before": spec.not_before, "array_id": spec.array.id if spec.array else None}
    return _held(row, _kernel_rows(id, spec, lambda: id), 0, 0)


def _held(row: Mapping[str, Any], containers: Iterable[Mapping[str, Any]], uid: int, gid: int) -> Held:
    """Return what ``BY_SESSION`` will read of a new session."""
    each = tuple(Kernel(one["id"], one["role"], one["idx"], one["slots"], None, False, "", None, "", "{}", 1) for one in containers)
    return Held(
        row["id"], row["name"], row["owner_id"], row["type"], row["spec"], row["priority"], SessionState.PENDING, None, False, None, None,
        "", "", None, None, row["created_at"], None, None, row["project_id"], row["domain_id"], row["group_id"], 1, 0, row["not_before"],
        row["array_id"], "", "", None, "", "", None, uid, gid, each)


def _specs(spec: SessionSpec, input: CreateSession, array_id: str) -> tuple[SessionSpec, ...]:
    if (found := read_array(input)) is None:
        return (spec,)
    indices, most = found
    if len(spec.name) + len(str(indices[-1])) + 1 > 63:
        raise Failure("bad-name", f"{spec.name} is too long for an array; its sessions are called {spec.name}-{indices[-1]}.")
    return tuple(replace(spec, name=f"{spec.name}-{index}", array=ArrayIndex(array_id, index, len(indices), most)) for index in indices)


async def _enqueue(context: Context, caller: Caller, input: CreateSession) -> Session:
    prepared = await prepare(context, caller, input)
    while True:
        ids = sorted(context.new_id() for _ in prepared.specs)  # of those that come at once the first goes first
        asked = [Enqueue(id, caller.user, spec, prepared.place.name, prepared.place.domain)
                 for id, spec in zip(ids, prepared.specs, strict=True)]
        await _ask(context, asked)
        try:
            session = await _insert(context, caller, asked, prepared)
            break
        except IntegrityError as error:
            if not violates(error, sessions):
                raise
            if input.name is not None:
                name = input.name if input.array is None else f"{input.name}-{input.array}"
                said = f"You have an active session named {name!r}; stop it or choose another name."
                raise Failure("name-taken", said) from error
            other = replace(prepared.spec, name=make_name(1_000_000), array=None)
            prepared = replace(prepared, specs=_specs(other, input, context.new_id()))
    if context.host.each(HOOK):
        context.tasks.spawn(_tell(context, asked), "post_enqueue_session")
    return session


async def _ask(context: Context, asked: Sequence[Enqueue]) -> None:
    """Let the site's plugins object."""
    if context.host.each(HOOK):
        for enqueue in asked:
            try:
                await context.host.all(HOOK).pre_enqueue_session(enqueue)
            except Reject as veto:
                raise Failure("rejected", veto.reason) from veto


async def _tell(context: Context, asked: Sequence[Enqueue]) -> None:
    for enqueue in asked:
        await context.host.all(HOOK).post_enqueue_session(enqueue)


async def _insert(context: Context, caller: Caller, asked: Sequence[Enqueue], prepared: Prepared) -> Session:
    now, place, terms = context.clock(), prepared.place, prepared.terms
    ids = [enqueue.id for enqueue in asked]
    rows = [_row(enqueue, caller, prepared, now) for enqueue in asked]
    each = [_kernel_rows(enqueue.id, enqueue.spec, context.new_id) for enqueue in asked]
    containers = [container for some in each for container in some]

    async def job(tx: Tx) -> None:
        if not (sure := context.places.sure_of(place)):
            await check_open(tx.connection, place)
        counted = await terms.admit(context, tx.connection, prepared.spec, len(rows))
        links = await _links(tx, prepared.spec.after, ids)
        if counted or links or not sure:  # the next in this commit must see it wait, who closes its project, too; a link needs its session
            await tx.connection.execute(insert(sessions), rows)
            await tx.connection.execute(insert(kernels), containers)
            if links:
                await tx.connection.execute(insert(dependencies), links)
        else:
            for row in rows:
                tx.later(sessions, row)
            for container in containers:
                tx.later(kernels, container)
        remember(tx, caller, ids[0], now)
        for row in rows:
            tx.event("session.created", row["id"], caller.id, {"by": caller.user.name, "name": row["name"], "state": "PENDING"})
        unmet = sum(not link["met"] for link in links) // len(ids)
        entered = [(_held(row, some, caller.uid, caller.gid), unmet) for row, some in zip(rows, each, strict=True)]
        tx.after(lambda: context.bus.wake(entered=entered))

    await context.store.write(job)
    return to_session(_shown(rows[0], caller, prepared))


async def _links(tx: Tx, after: Sequence[Dependency], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of dependencies; refuse what can never be met."""
    if not after:
        return []
    wanted = [one.session for one in after]
    query = select(sessions.c.id, sessions.c.name, sessions.c.state, sessions.c.result).where(sessions.c.id.in_(wanted))
    found = {row.id: row for row in await tx.connection.execute(query)}
    for one in after:
        if (row := found.get(one.session)) is None:
            raise Failure("not-found", "after: one of the sessions was removed meanwhile; leave it out.")
        if row.state in FINAL and not is_met(one.kind, row.result):
            raise Failure("conflict", f"after: {row.name} has ended, and not so. {NEVER[one.kind]} Leave it out, or use afterany.")
    return [{"session_id": id, "on_id": one.session, "kind": one.kind.value, "met": found[one.session].state in FINAL}
            for id in ids for one in after]


def _row(enqueue: Enqueue, caller: Caller, prepared: Prepared, now: float) -> dict[str, Any]:
    spec, place, array = enqueue.spec, prepared.place, enqueue.spec.array
    return {"id": enqueue.id, "owner_id": caller.id, "name": spec.name, "type": spec.type.value,
            "spec": _encoder.encode(spec).decode(), "priority": spec.priority, "state": SessionState.PENDING.value,
            "state_since": now, "stop": False, "reason": "", "hold": "", "created_at": now,
            "project_id": place.id, "domain_id": place.domain_id, "group_id": prepared.terms.group.id, "not_before": spec.not_before,
            "array_id": array.id if array else None, "array_index": array.index if array else None}


def _kernel_rows(id: str, spec: SessionSpec, fresh: Callable[[], str]) -> list[dict[str, Any]]:
    rows = []
    for part in parts_of(spec):
        slots = _encoder.encode(spec.slots if part.slots is None else part.slots).decode()
        rows += [{"id": fresh(), "session_id": id, "role": part.role, "idx": index, "slots": slots, "holds": False, "state": ""}
                 for index in range(1, part.count + 1)]
    return rows


def _shown(row: dict[str, Any], caller: Caller, prepared: Prepared) -> Row[Any]:
    """Return a new row as ``SESSIONS`` will read it."""
    more = dict.fromkeys(("result", "exit_code", "agent", "image", "started_at", "ended_at", "expires_at"))
    names = {"owner": caller.user.name, "project": prepared.place.name, "domain": prepared.place.domain, "group": prepared.terms.group.name}
    return cast("Row[Any]", SimpleNamespace(**more, **row, **names, attempt=1, expires_why=""))
