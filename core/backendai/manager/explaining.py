"""Why sessions are where they are: what the brain found, for the eyes of one caller.

The brain works on a frozen moment in a thread; nothing here changes anything, and the orchestrator never waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Verb, may
from backendai.manager.prospects import WORK_S, until
from backendai.manager.sights import Sight, label_of
from backendai.manager.store import decisions as record
from backendai.manager.store.groups import Group
from backendai.manager.store.owners import thing_of, visible
from backendai.manager.store.schema import dependencies, sessions
from backendai.manager.store.scopes import EVERYONE
from backendai.manager.store.sessions import FINAL_STATES
from backendai.manager.wording import expected_of, place_in, state_of
from backendai.model.errors import Failure
from backendai.model.explain import Blocker, Choice, Decision, Expected, Remedy, Replay, Turn, Why
from backendai.model.session import SessionSpec, SessionState
from backendai.model.slots import plain_slots
from backendai.plugin.errors import Missing
from backendai.sokovan import remedies as brain
from backendai.sokovan import why as reasons
from backendai.sokovan.forecast import Forecast, forecast
from backendai.sokovan.record import unpack
from backendai.sokovan.replay import Again, replay
from backendai.sokovan.snapshot import SESSIONS, Lease, Request, Snapshot
from backendai.sokovan.trial import Trial
from backendai.spec import agentselector_v10, scheduler_v10

if TYPE_CHECKING:
    from backendai.manager.context import Context

OTHERS, TURNS = 8, 200  # groups that are tried, and turns that are shown
ENDS = {"afterok": "has to end with success", "afterany": "has to end", "afternotok": "has to end without success"}


async def explain_session(context: Context, caller: Caller, row: Row[Any], again: bool = False) -> Why:
    """Explain a session, of ``store.sessions.SESSIONS``, that *caller* may see. again: make the decision that placed it again."""
    if row.state == SessionState.PENDING:
        return await _waiting(context, caller, row)

    async def job(connection: AsyncConnection) -> tuple[tuple[str, ...], Row[Any] | None]:
        return await record.agents_of(connection, row.id, row.attempt), await record.of_session(connection, row)

    agents, made = await context.store.read(job)
    decision = None if made is None else show_decision(made, {row.id})
    why = Why(row.id, row.name, row.state, row.group or "", state_of(row.name, row, agents, context.clock()), agents=agents,
              decision=decision)
    if not again:
        return why
    if made is None or decision is None:
        raise Failure("not-found", f"No decision about {row.name} is on record; it never had a place, or it was too long ago.")
    return replace(why, replay=await _replay(context, caller, row.id, made, decision))


async def explain_request(context: Context, caller: Caller, request: Request, group: Group, spec: SessionSpec, later: bool) -> Why:
    """Explain one that is not asked for yet, as if it came now. later: it waits for a time or for other sessions first."""
    sight = context.sights.of(group.id)
    habits = await context.prospects.habits(context, group.id)
    others, own = await _surroundings(context, caller, request, sight, spec.type.value)
    snapshot = _with_idle(sight.snapshot, own)

    def job(late: Any) -> tuple[reasons.Why, Forecast, bool]:
        began = time.monotonic()
        first, third = until(began + WORK_S / 2), until(began + WORK_S * 3 / 4)
        found = reasons.explain(snapshot, request, sight.scheduler, sight.selector, others, _names(own), first)
        partial = first()
        moment, _ = Trial(snapshot, sight.scheduler, sight.selector).plan(request)
        ahead = forecast(moment, sight.scheduler, sight.selector, habits, late, third, request.id)
        return found, ahead.get(request.id, Forecast()), partial

    found, ahead, partial = await context.prospects.work(job)
    expected = expected_of(ahead, habits, snapshot.view.now, partial)
    if found.placed is not None:
        agents = _agents(snapshot, found.placed.agents)
        first = "It would wait for its time or for other sessions; could it go now, it" if later else "It"
        text = f"{first} would start now on {', '.join(dict.fromkeys(agents))}."
        return Why("", "", "", group.name, text, "", found.position, found.waiting, agents, expected=expected)
    text = place_in("It", found.position, found.waiting, group.name).replace("It waits", "It would wait")
    text = f"It would wait for its time or for other sessions first. Could it go now: {text}" if later else text
    return Why("", "", "", group.name, text, found.hold, found.position, found.waiting, (), _blockers(found), _remedies(found), expected,
               partial=partial)


async def _waiting(context: Context, caller: Caller, row: Row[Any]) -> Why:
    group = row.group or ""
    try:
        prospect = await context.prospects.of(context, row.group_id, {row.id})
        sight = context.sights.of(row.group_id)
    except Failure as failure:
        return Why(row.id, row.name, row.state, group, f"{row.name} waits.", row.hold or failure.message)
    request = sight.snapshot.requests.get(row.id)
    if request is None:  # it waits for a time or for others; the brain does not see it
        after = await context.store.read(lambda connection: _after(connection, caller, row.id))
        text = "As soon as those have ended and there is room." if after else "Not before that, and then as soon as there is room."
        expected = Expected(row.not_before, None, text) if after or row.not_before else None
        return Why(row.id, row.name, row.state, group, place_in(row.name, None, 0, group), row.hold, blockers=after, expected=expected)
    others, own = await _surroundings(context, caller, request, sight, row.type)
    snapshot = _with_idle(sight.snapshot, own)
    found, partial = await context.prospects.work(lambda late: (
        reasons.explain(snapshot, request, sight.scheduler, sight.selector, others, _names(own), late), late()))
    ahead = prospect.forecasts.get(row.id, Forecast())
    expected = expected_of(ahead, prospect.habits, snapshot.view.now, prospect.cut)
    agents = () if found.placed is None else _agents(snapshot, found.placed.agents)
    return Why(row.id, row.name, row.state, group, place_in(row.name, found.position, found.waiting, group), row.hold or found.hold,
               found.position, found.waiting, agents, _blockers(found), _remedies(found), expected, partial=partial)


async def _after(connection: AsyncConnection, caller: Caller, session: str) -> tuple[Blocker, ...]:
    """Say for whose end a session waits, by name where *caller* may see them."""
    unmet = (dependencies.c.session_id == session) & dependencies.c.met.is_(False)
    query = (select(dependencies.c.kind, sessions.c.name, sessions.c.state)
             .select_from(dependencies.outerjoin(sessions, (dependencies.c.on_id == sessions.c.id) & visible(caller)))
             .where(unmet).order_by(dependencies.c.on_id))
    return tuple(Blocker("after", f"{row.name} {ENDS[row.kind]} first; it is {row.state}." if row.name else
                         f"Another session, which you may not see, {ENDS[row.kind]} first.") for row in await connection.execute(query))


async def _surroundings(context: Context, caller: Caller, request: Request, sight: Sight,
                        type: str) -> tuple[dict[str, brain.Other], Mapping[str, Row[Any]]]:
    """Return the groups that it could be in instead, by name, and its owner's sessions that hold something and that *caller* may stop."""
    groups = await context.groups.all(context.store)
    scopes = {EVERYONE, request.user, request.project, request.domain}
    others: dict[str, brain.Other] = {}
    for group in groups.values():
        if group.id == sight.group or not (caller.superadmin or scopes & group.open_to) or type not in group.options.types:
            continue
        with suppress(Failure):  # nobody can plan there, so it would not start there
            if len(others) < OTHERS:
                there = context.sights.of(group.id)
                others[group.name] = brain.Other(there.snapshot, there.scheduler, there.selector)
    mine = [lease.id for lease in sight.snapshot.leases.values() if lease.user == request.user]

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        query = select(sessions).where(sessions.c.id.in_(mine[:500]), sessions.c.state.not_in(FINAL_STATES))
        return (await connection.execute(query)).all()

    rows = await context.store.read(job) if mine else ()
    return others, {row.id: row for row in rows if may(caller, Verb.CHANGE, thing_of(row)) and not row.stop}


def _names(own: Mapping[str, Row[Any]]) -> dict[str, str]:
    return {id: row.name for id, row in own.items()}


def _with_idle(snapshot: Snapshot, own: Mapping[str, Row[Any]]) -> Snapshot:
    """Return *snapshot* with for how long nobody has used the interactive sessions among *own*."""
    now = snapshot.view.now

    def idle(lease: Lease) -> Lease:
        row = own[lease.id]
        since = row.active_at if row.active_at is not None else row.started_at
        return lease if since is None or row.type != "interactive" else replace(lease, idle_s=max(0.0, now - since))

    return replace(snapshot, leases={id: idle(lease) if id in own else lease for id, lease in snapshot.leases.items()}) if own else snapshot


def _agents(snapshot: Snapshot, ids: Sequence[str]) -> tuple[str, ...]:
    names = {agent.id: agent.name for agent in snapshot.agents}
    return tuple(names.get(id, id) for id in ids)


def plain(what: str, amount: int) -> int | float:
    """Return an amount of a slot, or a count, as a plain number."""
    return amount if what in ("", SESSIONS, "containers") else plain_slots({what: amount})[what]


def _blockers(found: reasons.Why) -> tuple[Blocker, ...]:
    return tuple(Blocker(b.kind, b.text, b.what, plain(b.what, b.wanted), plain(b.what, b.most), plain(b.what, b.used), b.short, b.agents)
                 for b in found.blockers)


def _remedies(found: reasons.Why) -> tuple[Remedy, ...]:
    return tuple(Remedy(r.kind, r.text, {**r.change, "slots": plain_slots(r.change["slots"])} if "slots" in r.change else r.change)
                 for r in found.remedies)


def show_decision(row: Row[Any], only: set[str] | None = None) -> Decision:
    """Return a row of ``store.decisions`` as it is shown. only: sessions that may be named, None for all."""
    placed = record.placed_of(row)
    return Decision(row.id, row.at, row.group, row.snapshot, row.scheduler, row.selector,
                    {id: agents for id, agents in placed.items() if only is None or id in only}, bool(row.kept))


async def _replay(context: Context, caller: Caller, session: str, made: Row[Any], decision: Decision) -> Replay:
    packed = await context.store.read(lambda connection: record.frozen_of(connection, made.id))
    if packed is None:
        said = f"The moment of decision {made.id} is not kept any more, only its name {made.snapshot[:16]}; newer ones are."
        raise Failure("not-found", said)
    names = made.scheduler.partition(" (")[0], made.selector.partition(" (")[0]
    options = await context.prospects.work(lambda late: replay_options(packed))
    try:
        scheduler = await context.host.variant(scheduler_v10.SPEC, names[0], options[0])
        selector = await context.host.variant(agentselector_v10.SPEC, names[1], options[1])
    except Missing as error:
        raise Failure("conflict", f"It cannot be decided again: {error}.") from error
    again = await context.prospects.work(lambda late: replay(packed, session, scheduler, selector, late))
    specs = (("scheduler", scheduler_v10.SPEC, names[0], made.scheduler), ("selector", agentselector_v10.SPEC, names[1], made.selector))
    differs = [f"The {kind} was {then} and is {now} now." for kind, spec, name, then in specs
               if (now := label_of(context.host, f"{spec.id}.{name}")[:128]) != then]
    if again.digest != made.snapshot:
        differs.append("The moment does not bear the name that it had then, so it is read differently by this version.")
    there = {placement.session: placement.agents for placement in again.plan.placements}
    wrong = sum(there.get(id) != agents for id, agents in record.placed_of(made).items())
    if wrong:
        differs.append(f"{wrong} of {len(record.placed_of(made))} sessions come to lie elsewhere now.")
    return Replay(decision, not wrong, tuple(differs), await _turns(context, caller, session, again, there),
                  tuple(tuple(Choice(r.agent, r.rank, r.score, r.taken) for r in some) for some in again.choices))


def replay_options(packed: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the plugins' options of the group at the moment that was packed."""
    options = unpack(packed).options
    return options.scheduler, options.selector


async def _turns(context: Context, caller: Caller, session: str, again: Again, placed: Mapping[str, tuple[str, ...]]) -> tuple[Turn, ...]:
    order = again.plan.order
    upto = order[: order.index(session) + 1] if session in order else order
    upto = upto[-TURNS:]

    async def job(connection: AsyncConnection) -> Mapping[str, str]:
        query = select(sessions.c.id, sessions.c.name).where(sessions.c.id.in_(upto), visible(caller))
        return {row.id: row.name for row in await connection.execute(query)}

    known = await context.store.read(job)
    return tuple(Turn(id if id in known else None, known.get(id), _agents(again.snapshot, placed.get(id, ()))) for id in upto)

