"""The loop behind the idle rules: it reads who runs, judges them all, writes deadlines down, announces them, and ends what is over."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.context import Context
from backendai.manager.idle import NOTICE_S, Use, Verdict, Window, judge, longest
from backendai.manager.store.engine import Tx
from backendai.manager.store.placement import wish_stop
from backendai.manager.store.schema import kernels, sessions
from backendai.model.group import IdleRule
from backendai.model.session import SessionSpec, SessionState, SessionType
from backendai.model.slots import Slots

JUDGE_S, LEAST_S = 15.0, 0.5  # between two rounds, at most and at least
WORTH_S = 30.0  # a deadline that moves by less is not written again
_RUNNING = select(
    sessions.c.id, sessions.c.name, sessions.c.owner_id, sessions.c.project_id, sessions.c.domain_id, sessions.c.group_id, sessions.c.spec,
    sessions.c.started_at, sessions.c.active_at, sessions.c.expires_at, sessions.c.expires_why, kernels.c.id.label("kernel"),
    kernels.c.slots,
).select_from(sessions.join(kernels, (kernels.c.session_id == sessions.c.id) & kernels.c.holds.is_(True))).where(
    sessions.c.state == SessionState.RUNNING.value, sessions.c.type == SessionType.INTERACTIVE.value, sessions.c.stop.is_(False))
_spec_decoder = msgspec.json.Decoder(SessionSpec)
_slots_decoder = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Running:
    """An interactive session that runs, as the tables have it."""

    id: str
    name: str
    owner: str
    group: str
    use: Use
    kernels: tuple[str, ...]
    expires_at: float | None
    expires_why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written of a session. active_at: None when there is nothing new."""

    session: Running
    expires_at: float | None
    why: str
    active_at: float | None


class Sweeper:
    """Judges every interactive session that runs by the rules of its group."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._windows: dict[str, Window] = {}
        self._announced: dict[str, float] = {}  # session to when
        self._next = 0.0  # when somebody's time is up next, if that is soon

    async def run(self) -> None:
        """Judge for ever."""
        while True:
            next_s = await self.judge_once()
            await asyncio.sleep(min(JUDGE_S, max(LEAST_S, next_s)))

    async def judge_once(self) -> float:
        """Judge everybody, write what has changed, and ask for the end of those whose time is up; return the seconds until the next."""
        context, now = self._context, self._context.clock()
        groups = await context.groups.all(context.store)
        rules = {id: group.options.idle for id, group in groups.items() if group.options.idle}
        found = await context.store.read(lambda connection: _read(connection, rules.keys()))
        self._measure(found, rules, now)
        changes, over, soon = self._weigh(found, rules, now)
        if changes or over or soon:
            await context.store.write(lambda tx: self._write(tx, changes, over, soon))
        for change in changes:
            if change.active_at is not None and change.active_at < now:
                context.activity.forget(change.session.id)
        return self._next - now

    def _measure(self, found: Sequence[Running], rules: Mapping[str, Sequence[IdleRule]], now: float) -> None:
        """Take a sample of each session that a rule wants to know more of."""
        far = longest(rules)
        here = {one.id: one for one in found}
        for gone in (self._windows.keys() | self._announced.keys()) - here.keys():
            self._windows.pop(gone, None)
            self._announced.pop(gone, None)
        for one in found:
            if any(rule.kind == "utilization" for rule in rules.get(one.group, ())):
                usages = [self._context.live.usage.get(kernel) for kernel in one.kernels]
                if any(usage is not None for usage in usages):
                    self._windows.setdefault(one.id, Window()).add(now, usages, far)

    def _weigh(self, found: Sequence[Running], rules: Mapping[str, Sequence[IdleRule]],
               now: float) -> tuple[list[Change], list[tuple[Running, Verdict]], list[tuple[Running, Verdict]]]:
        """Return what to write, who is over, and whose end is to be announced."""
        self._next = now + JUDGE_S
        changes: list[Change] = []
        over: list[tuple[Running, Verdict]] = []
        soon: list[tuple[Running, Verdict]] = []
        for one in found:
            last = self._context.activity.last(one.id, now)
            window = self._windows.get(one.id, Window())
            use = replace(one.use, active_at=max(one.use.active_at or 0.0, last or 0.0) or None, series=tuple(window.samples))
            verdict = judge(use, rules.get(one.group, ()), now)
            if verdict is not None:
                verdict = self._announce(one, verdict, now, soon)
                if verdict.at <= now:
                    over.append((one, verdict))
                else:
                    self._next = min(self._next, verdict.at)
            else:
                self._announced.pop(one.id, None)
            at, why = _first(verdict, use.limit_at)
            active = last if last is not None and last - (one.use.active_at or 0.0) >= WORTH_S else None
            if why != one.expires_why or active is not None or _moved(at, one.expires_at):
                changes.append(Change(one, at, why, active))
        return changes, over, soon

    def _announce(self, one: Running, verdict: Verdict, now: float, soon: list[tuple[Running, Verdict]]) -> Verdict:
        """Return *verdict* at the earliest moment that its announcement allows; whoever uses the session calls it off."""
        if not verdict.warn_s:
            return verdict
        said = self._announced.get(one.id)
        if verdict.at - now > verdict.warn_s:
            if said is not None and verdict.at - now > verdict.warn_s + WORTH_S:
                del self._announced[one.id]
            return verdict
        notice = min(verdict.warn_s, NOTICE_S)
        if said is None:
            said = self._announced[one.id] = now
            verdict = replace(verdict, at=max(verdict.at, now + notice))
            soon.append((one, verdict))
        return replace(verdict, at=max(verdict.at, said + notice))

    async def _write(self, tx: Tx, changes: Sequence[Change], over: Sequence[tuple[Running, Verdict]],
                     soon: Sequence[tuple[Running, Verdict]]) -> None:
        bus = self._context.bus
        for change in changes:
            values: dict[str, Any] = {"expires_at": change.expires_at, "expires_why": change.why}
            if change.active_at is not None:
                values["active_at"] = change.active_at
            mine = (sessions.c.id == change.session.id, sessions.c.state == SessionState.RUNNING.value)
            await tx.connection.execute(update(sessions).where(*mine).values(values))
        for one, verdict in soon:
            tx.event("session.expiring", one.id, one.owner, {"name": one.name, "at": verdict.at, "reason": verdict.why})
        by_why: defaultdict[str, list[str]] = defaultdict(list)
        for one, verdict in over:
            by_why[verdict.why].append(one.id)
            tx.event("session.stop", one.id, one.owner, {"by": "rule", "name": one.name, "state": "RUNNING", "reason": verdict.why})
        for why, ids in by_why.items():
            await wish_stop(tx, ids, why)
        if over:
            tx.after(lambda: bus.wake(due=[one.id for one, _ in over]))
        for one in [*(change.session for change in changes), *(one for one, _ in over)]:
            tx.after(partial(bus.changed, one.id))


def _first(verdict: Verdict | None, limit_at: float | None) -> tuple[float | None, str]:
    """Return when a session ends and by which rule; empty for its own time limit."""
    if verdict is None or (limit_at is not None and limit_at <= verdict.at):
        return limit_at, ""
    return verdict.at, verdict.why


def _moved(at: float | None, before: float | None) -> bool:
    return at is not before if at is None or before is None else abs(at - before) >= WORTH_S


async def _read(connection: AsyncConnection, groups: Any) -> list[Running]:
    """Return the interactive sessions that run in *groups*, and those elsewhere that still bear a rule's deadline."""
    rows = (await connection.execute(_RUNNING.where(or_(sessions.c.group_id.in_(list(groups)), sessions.c.expires_why != "")))).all()
    parts: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        parts[row.id].append(row)
    return [_running(some) for some in parts.values()]


def _running(rows: Sequence[Any]) -> Running:
    row, slots = rows[0], defaultdict[str, int](int)
    for each in rows:
        for name, amount in _slots_decoder.decode(each.slots).items():
            slots[name] += amount
    limit, started = _spec_decoder.decode(row.spec).time_limit_s, row.started_at or 0.0
    amounts: Slots = dict(slots)
    use = Use(frozenset({row.owner_id, row.project_id, row.domain_id}), amounts, started, row.active_at,
              None if limit is None else started + limit)
    return Running(row.id, row.name, row.owner_id, row.group_id, use, tuple(each.kernel for each in rows), row.expires_at, row.expires_why)
