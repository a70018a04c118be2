"""Resource groups: sets of agents with a scheduler, a selector and rules of their own, and who may use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.groups import Group as Row
from backendai.manager.store.groups import read_groups
from backendai.manager.store.schema import DEFAULT, agent_slots, agents, group_access, groups, quotas, sessions, shares
from backendai.manager.store.scopes import Scope, find_scope, find_scopes, read_scopes, titles
from backendai.manager.store.sessions import FINAL_STATES
from backendai.model.errors import Failure
from backendai.model.group import GroupOptions, IdleRule, Preemption
from backendai.model.session import SessionType
from backendai.model.slots import plain_slots
from backendai.model.views import Group
from backendai.plugin.errors import Incompatible, Missing
from backendai.spec import Spec, agentselector_v10, scheduler_v10

NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
RULES = ("lifetime", "network", "utilization")
_encoder = msgspec.json.Encoder()


class PreemptionInput(Input, frozen=True):
    """What is left out stays. enabled: for priority. reclaim: of what was borrowed. least_run_s: safe after the start. grace_s."""

    enabled: bool | None = None
    reclaim: bool | None = None
    least_run_s: float | None = None
    grace_s: float | None = None


class IdleInput(Input, frozen=True):
    """kind: lifetime, network or utilization. thresholds: for utilization, by slot, 0 to 1. scope: whom it is for; empty for all."""

    kind: str
    after_s: float
    grace_s: float = 0.0
    thresholds: Mapping[str, float] = msgspec.field(default_factory=dict)
    scope: str = ""
    warn_s: float = 300.0


class CreateGroup(Input, frozen=True):
    """name: lower case. scheduler, selector: names of plugins; empty for the manager's own. scheduler_options, selector_options: theirs.

    idle: rules that end what nobody uses. half_life_s: of past usage. types: of sessions that it takes. allow: who may use it.
    """

    name: str
    scheduler: str | None = None
    selector: str | None = None
    scheduler_options: Mapping[str, Any] | None = None
    selector_options: Mapping[str, Any] | None = None
    preemption: PreemptionInput | None = None
    idle: tuple[IdleInput, ...] | None = None
    half_life_s: float | None = None
    types: tuple[SessionType, ...] | None = None
    allow: tuple[str, ...] | None = None


class ChangeGroup(CreateGroup, frozen=True):
    """What is left out stays; what is given replaces what was there. See create."""


class OneGroup(Input, frozen=True):
    """name: of the group."""

    name: str


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Group]:
    """List the resource groups that you may use, an administrator all."""
    return Page(await show_groups(context, caller))


async def get(context: Context, caller: Caller, input: OneGroup) -> Group:
    """Show a resource group: its options, who may use it, its agents and how full they are."""
    return (await show_groups(context, caller, input.name))[0]


async def create(context: Context, caller: Caller, input: CreateGroup) -> Group:
    """Make a resource group. Nobody but administrators may use it until ``allow`` says who may."""
    require(caller, Verb.CREATE, Thing("group"))
    if NAME.fullmatch(input.name) is None:
        raise Failure("bad-name", f"{input.name!r} cannot be a group's name; use a lower-case letter, then letters, digits, '.-_'.")
    id, now = context.new_id(), context.clock()
    blank = Row(id, input.name, "", "", GroupOptions(), frozenset(), now)
    changed = await _changed(context, caller, blank, input)

    async def make() -> Group:
        async def job(tx: Tx) -> None:
            await tx.connection.execute(insert(groups), [_values(changed) | {"id": id, "name": input.name, "created_at": now}])
            await _write_access(tx.connection, changed)
            remember(tx, caller, id, now)
            _follow(context, tx, "group.created", caller, changed)

        try:
            await context.store.write(job)
        except IntegrityError as error:
            if violates(error, groups):
                raise Failure("name-taken", f"There is a group {input.name!r} already; choose another name.") from error
            raise
        return (await show_groups(context, caller, input.name))[0]

    async def again(made: str) -> Group:
        return (await show_groups(context, caller, made))[0]

    return await create_once(context, caller, make, again)


async def change(context: Context, caller: Caller, input: ChangeGroup) -> Group:
    """Change a resource group; what is decided from now on follows it."""
    require(caller, Verb.CHANGE, Thing("group"))
    changed = await _changed(context, caller, await find_group(context, input.name), input)

    async def job(tx: Tx) -> None:
        await tx.connection.execute(update(groups).where(groups.c.id == changed.id).values(_values(changed)))
        await tx.connection.execute(delete(group_access).where(group_access.c.group_id == changed.id))
        await _write_access(tx.connection, changed)
        _follow(context, tx, "group.changed", caller, changed)

    await context.store.write(job)
    return (await show_groups(context, caller, changed.id))[0]


async def remove(context: Context, caller: Caller, input: OneGroup) -> None:
    """Remove a resource group that has neither agents nor sessions. Its quotas, presets and reservations go with it."""
    require(caller, Verb.CHANGE, Thing("group"))
    group = await find_group(context, input.name)
    if group.id == DEFAULT:
        raise Failure("conflict", "The first group stays: agents join it. Take its users away with --allow, or its agents.")

    async def job(tx: Tx) -> None:
        for table, where, what in ((agents, agents.c.group_id == group.id, "agents; move them with `bai agent set NAME --group G`"),
                                   (sessions, (sessions.c.group_id == group.id) & sessions.c.state.not_in(FINAL_STATES),
                                    "active sessions; stop them, or wait for their end")):
            count = (await tx.connection.execute(select(func.count()).select_from(table).where(where))).scalar()
            if count:
                raise Failure("conflict", f"The group {group.name} has {count} {what}.")
        for table in (quotas, shares):  # what else is in it goes by itself
            await tx.connection.execute(delete(table).where(table.c.group_id == group.id))
        await tx.connection.execute(delete(groups).where(groups.c.id == group.id))
        tx.after(context.limits.forget)
        _follow(context, tx, "group.deleted", caller, group)

    await context.store.write(job)


async def find_group(context: Context, name_or_id: str) -> Row:
    """Return a group as it is now; raise ``Failure('not-found')`` with those that there are."""
    found = await context.store.read(read_groups)
    for group in found:
        if name_or_id in (group.id, group.name):
            return group
    raise Failure("not-found", f"There is no resource group {name_or_id!r}; there are: {', '.join(group.name for group in found)}.")


async def show_groups(context: Context, caller: Caller, name: str | None = None) -> tuple[Group, ...]:
    """Return the groups that *caller* may see, or the one that is meant."""
    counts = select(sessions.c.group_id, sessions.c.state, func.count()).where(sessions.c.state.not_in(FINAL_STATES)).group_by(
        sessions.c.group_id, sessions.c.state)
    sums = (select(agents.c.group_id, agent_slots.c.slot, func.sum(agent_slots.c.capacity), func.sum(agent_slots.c.used))
            .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id))
            .group_by(agents.c.group_id, agent_slots.c.slot).order_by(agent_slots.c.slot))

    async def job(connection: AsyncConnection) -> tuple[Group, ...]:
        scopes = await read_scopes(connection)
        rows = [group for group in await read_groups(connection)
                if (name is None or name in (group.id, group.name)) and _sees(caller, group, scopes)]
        states = [tuple(row) for row in await connection.execute(counts)]
        slots = [tuple(row) for row in await connection.execute(sums)]
        nodes = [tuple(row) for row in await connection.execute(select(agents.c.group_id, agents.c.name).order_by(agents.c.name))]
        shown = [_show(group, scopes, states, slots, nodes) for group in rows]
        return tuple(replace(one, decided_by=(one.scheduler or context.config.scheduler, one.selector or context.config.selector))
                     for one in shown)

    found = await context.store.read(job)
    if name is not None and not found:
        raise Failure("not-found", f"There is no resource group {name!r} for you; see `bai group ls`.")
    return found


def _sees(caller: Caller, group: Row, scopes: Mapping[str, Scope]) -> bool:
    """Tell whether *caller* may use a group somewhere, or administers the domain of a project that may."""
    domains = {scope.domain_id for id in group.open_to if (scope := scopes.get(id)) is not None and scope.kind == "project"}
    open_to = group.open_to | (caller.domains & domains and {caller.domain_id})
    return may(caller, Verb.READ, Thing("group", open_to=open_to, name=group.name))


def _show(group: Row, scopes: Mapping[str, Scope], states: Iterable[Any], slots: Iterable[Any], nodes: Iterable[Any]) -> Group:
    rules = tuple(replace(rule, scope_id=scopes[rule.scope_id].title if rule.scope_id in scopes else rule.scope_id)
                  for rule in group.options.idle)
    mine = [(slot, int(capacity), int(used)) for of, slot, capacity, used in slots if of == group.id]
    counts = {state: count for of, state, count in states if of == group.id}
    return Group(
        id=group.id, name=group.name, scheduler=group.scheduler, selector=group.selector, options=replace(group.options, idle=rules),
        allow=titles(group.open_to, dict(scopes)), agents=tuple(name for of, name in nodes if of == group.id),
        waiting=counts.get("PENDING", 0), running=sum(counts.values()) - counts.get("PENDING", 0),
        capacity=plain_slots({slot: capacity for slot, capacity, _ in mine}), used=plain_slots({slot: used for slot, _, used in mine}),
        created_at=group.created_at)


async def _changed(context: Context, caller: Caller, group: Row, input: CreateGroup) -> Row:
    """Return *group* as *input* wants it; raise ``Failure`` with what there is when it names something that there is not."""
    old = group.options
    idle = old.idle if input.idle is None else tuple([await _rule(context, caller, rule) for rule in input.idle])
    options = GroupOptions(
        scheduler=old.scheduler if input.scheduler_options is None else input.scheduler_options,
        selector=old.selector if input.selector_options is None else input.selector_options,
        preemption=_preemption(old.preemption, input.preemption), idle=idle,
        half_life_s=old.half_life_s if input.half_life_s is None else input.half_life_s,
        types=old.types if input.types is None else tuple(type.value for type in input.types))
    if not 60 <= options.half_life_s <= 10 * 366 * 86400:
        raise Failure("invalid-request", "half_life_s: must be from a minute to ten years.")
    scheduler = group.scheduler if input.scheduler is None else input.scheduler
    selector = group.selector if input.selector is None else input.selector
    check_plugin(context, scheduler_v10.SPEC, scheduler or context.config.scheduler, options.scheduler)
    check_plugin(context, agentselector_v10.SPEC, selector or context.config.selector, options.selector)
    allow = input.allow
    open_to = group.open_to if allow is None else await context.store.read(lambda c: find_scopes(c, allow, caller.domain_id))
    return replace(group, scheduler=scheduler, selector=selector, options=options, open_to=open_to)


def check_plugin(context: Context, spec: Spec[Any], name: str, options: Mapping[str, Any]) -> None:
    """Raise ``Failure`` when there is no such plugin, or when it would not take *options*; say what there is."""
    try:
        context.host.check(spec, name, options)
    except Missing as error:
        there = ", ".join(context.host.each(spec)) or "none"
        raise Failure("invalid-request", f"{error}; there are: {there}.") from error
    except Incompatible as error:
        raise Failure("invalid-request", f"{spec.id}.{name}: {error}.") from error


def _preemption(old: Preemption, given: PreemptionInput | None) -> Preemption:
    values = {} if given is None else {n: v for n in given.__struct_fields__ if (v := getattr(given, n)) is not None}
    new = replace(old, **values)
    if new.least_run_s < 0 or not 0 <= new.grace_s <= 3600:
        raise Failure("invalid-request", "preemption: least_run_s must not be below 0, and grace_s must be from 0 to 3600.")
    return new


async def _rule(context: Context, caller: Caller, given: IdleInput) -> IdleRule:
    if given.kind not in RULES:
        raise Failure("invalid-request", f"idle: {given.kind!r} is no rule; there are: {', '.join(RULES)}.")
    if not 1 <= given.after_s <= 366 * 86400 or given.grace_s < 0 or given.warn_s < 0:
        raise Failure("invalid-request", "idle: after_s must be from 1 to a year, grace_s and warn_s not below 0.")
    if (given.kind == "utilization") is not bool(given.thresholds):
        raise Failure("invalid-request", 'idle: thresholds, such as {"cpu": 0.05}, belong to the rule utilization, and it needs them.')
    if any(not 0 < share <= 1 for share in given.thresholds.values()):
        raise Failure("invalid-request", "idle: each threshold is a share of what was given, above 0 and at most 1.")
    scope = ""
    if given.scope:
        scope = (await context.store.read(lambda connection: find_scope(connection, given.scope, caller.domain_id))).id
    return IdleRule(given.kind, given.after_s, given.grace_s, dict(given.thresholds), scope, given.warn_s)


def _values(group: Row) -> dict[str, Any]:
    return {"scheduler": group.scheduler, "selector": group.selector, "options": _encoder.encode(group.options).decode()}


async def _write_access(connection: AsyncConnection, group: Row) -> None:
    if group.open_to:
        await connection.execute(insert(group_access), [{"group_id": group.id, "scope_id": id} for id in sorted(group.open_to)])


def _follow(context: Context, tx: Tx, event: str, caller: Caller, group: Row) -> None:
    """Tell the log, and have everybody who remembers groups look again."""
    tx.event(event, group.id, None, {"by": caller.user.name, "name": group.name})
    tx.after(context.groups.forget)
    tx.after(context.bus.wake)


OPERATIONS = (
    declare("groups.list", list_, "GET", "/v1/groups"),
    declare("groups.create", create, "POST", "/v1/groups", status=201, mutates=True, creates=True),
    declare("groups.get", get, "GET", "/v1/groups/{name}"),
    declare("groups.update", change, "PATCH", "/v1/groups/{name}", mutates=True),
    declare("groups.delete", remove, "DELETE", "/v1/groups/{name}", status=204, mutates=True),
)
