"""Advance reservations: room on agents that is kept for somebody from one moment to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.groups import NAME, find_group
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.groups import Group, read_groups
from backendai.manager.store.quotas import read_quotas
from backendai.manager.store.schema import agent_slots, agents, bookings, sessions, users
from backendai.manager.store.scopes import EVERYONE, Scope, find_scope, read_scopes
from backendai.model.errors import Failure
from backendai.model.session import PLACED
from backendai.model.slots import Slots, format_slots, parse_slots, plain_slots
from backendai.model.views import Booking

LONGEST_S, AHEAD_S = 90 * 86400.0, 366 * 86400.0
SWEEP_S = 60.0  # after its end: the orchestrator has ended what ran in it
_HOLDING = tuple(state.value for state in PLACED)
LATE_S = 60.0  # how far back a beginning may lie: clocks differ
Kept = Mapping[str, Slots]  # by agent
_kept_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])


class CreateBooking(Input, frozen=True):
    """name: lower case. scope: whose sessions may use it, such as ``project:default/ml``. begins, ends: seconds since the epoch.

    agents: by name; or count: so many, with *labels* if they are given. slots: of each agent; all that it has when left out.
    """

    name: str
    scope: str
    begins: float
    ends: float
    group: str = "default"
    agents: tuple[str, ...] = ()
    count: int | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    slots: Mapping[str, str | int | float] | None = None


class OneBooking(Input, frozen=True):
    """name: of the reservation."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """An agent of the group. kept: what reservations hold of it in the window that is asked for, by reservation's name."""

    id: str
    name: str
    labels: Mapping[str, str]
    capacity: Slots
    kept: Mapping[str, Slots]

    def misses(self, wanted: Slots) -> str:
        """Return why it cannot keep *wanted*, empty when it can."""
        sums: Counter[str] = Counter()
        for amounts in self.kept.values():
            sums.update(amounts)
        if any(amount > self.capacity.get(slot, 0) for slot, amount in wanted.items()):
            return f"{self.name} has {format_slots(self.capacity)} in all"
        if any(amount + sums[slot] > self.capacity.get(slot, 0) for slot, amount in wanted.items()):
            return f"{self.name} is kept for {' and '.join(sorted(self.kept))} then"
        return ""


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Booking]:
    """List the reservations that concern you, the next first."""
    return Page(await _show(context, caller))


async def create(context: Context, caller: Caller, input: CreateBooking) -> Booking:
    """Keep room on agents for somebody from one moment to another. Sessions use it by name; others are kept out of its way."""
    if NAME.fullmatch(input.name) is None:
        raise Failure("bad-name", f"{input.name!r} cannot be a reservation's name; use a lower-case letter, then letters, digits, '.-_'.")
    scope = await context.store.read(lambda connection: find_scope(connection, input.scope, caller.domain_id))
    require(caller, Verb.CREATE, scope.thing("booking"))
    now = context.clock()
    _check_times(input, now)
    group, wanted = await find_group(context, input.group), None if input.slots is None else parse_slots(input.slots)
    if wanted is not None and (missing := sorted(context.config.default_slots.keys() - wanted.keys())):
        said = f"slots: every session needs {' and '.join(missing)}, so a reservation without is of no use; name that, too."
        raise Failure("bad-slots", said)
    if not caller.superadmin and not group.open_to & {EVERYONE, scope.id, scope.domain_id}:
        raise Failure("not-found", f"There is no resource group {input.group!r} for {scope.title}; see `bai group ls`.")
    id = context.new_id()

    async def make() -> Booking:
        async def job(tx: Tx) -> None:
            nodes = await _read_nodes(tx.connection, group.id, input.begins, input.ends)
            kept = _pick(nodes, input, wanted)
            if not caller.superadmin:
                await _check_quota(tx.connection, scope, group, kept, input)
            row = {"id": id, "name": input.name, "group_id": group.id, "scope_id": scope.id, "agents": msgspec.json.encode(kept).decode(),
                   "begins": input.begins, "ends": input.ends, "made_by": caller.id, "created_at": now}
            await tx.connection.execute(insert(bookings), [row])
            remember(tx, caller, id, now)
            tx.event("booking.created", id, None, {"by": caller.user.name, "name": input.name, "for": scope.title})
            tx.after(context.bus.wake)

        try:
            await context.store.write(job)
        except IntegrityError as error:
            if violates(error, bookings):
                raise Failure("name-taken", f"There is a reservation {input.name!r} already; choose another name.") from error
            raise
        return await again(id)

    async def again(made: str) -> Booking:
        return next(booking for booking in await _show(context, caller) if booking.id == made)

    return await create_once(context, caller, make, again)


async def remove(context: Context, caller: Caller, input: OneBooking) -> None:
    """Give up a reservation. What runs in it goes on; what waits for it waits on, and says so."""
    scopes = await context.store.read(read_scopes)
    row = (await context.store.read(lambda connection: connection.execute(select(bookings).where(bookings.c.name == input.name)))).first()
    if row is None or not may(caller, Verb.READ, _thing(row.scope_id, scopes)):
        raise Failure("not-found", f"There is no reservation {input.name!r}; see `bai reservation ls`.")
    require(caller, Verb.CHANGE, _thing(row.scope_id, scopes))

    async def job(tx: Tx) -> None:
        await tx.connection.execute(delete(bookings).where(bookings.c.id == row.id))
        tx.event("booking.deleted", row.id, None, {"by": caller.user.name, "name": row.name})
        tx.after(context.bus.wake)

    await context.store.write(job)


async def sweep(tx: Tx, now: float) -> None:
    """Forget reservations that are over and in which nothing runs any more; the orchestrator ends what does."""
    over = select(bookings.c.id, bookings.c.name).where(bookings.c.ends <= now - SWEEP_S)
    for row in (await tx.connection.execute(over)).all():
        inside = select(sessions.c.id).where(sessions.c.state.in_(_HOLDING), sessions.c.spec.contains(f'"booking":"{row.id}"')).limit(1)
        if (await tx.connection.execute(inside)).first() is None:
            await tx.connection.execute(delete(bookings).where(bookings.c.id == row.id))
            tx.event("booking.ended", row.id, None, {"name": row.name})


def _thing(scope_id: str, scopes: Mapping[str, Scope]) -> Thing:
    scope = scopes.get(scope_id, Scope("", scope_id, scope_id))
    return Thing("booking", None, scope.project_id, scope.domain_id, frozenset({scope_id}))


def _check_times(input: CreateBooking, now: float) -> None:
    if not now - LATE_S <= input.begins <= now + AHEAD_S:
        raise Failure("invalid-request", "begins: must be now or later, and within a year.")
    if not input.begins < input.ends <= input.begins + LONGEST_S or input.ends <= now:
        raise Failure("invalid-request", "ends: must be after it begins, and at most 90 days later.")
    if bool(input.agents) is (input.count is not None):
        raise Failure("invalid-request", "Name its agents, or say how many with count; one of the two.")
    if input.count is not None and input.count < 1:
        raise Failure("invalid-request", "count: must be at least 1.")


def _pick(nodes: Sequence[Node], input: CreateBooking, slots: Slots | None) -> dict[str, Slots]:
    """Return what is kept on which agents; raise ``Failure`` that says which are not to be had, and why."""
    def wanted(node: Node) -> Slots:
        return node.capacity if slots is None else slots

    if input.agents:
        by_name = {name: node for node in nodes for name in (node.id, node.name)}
        if unknown := [name for name in input.agents if name not in by_name]:
            said = f"The group has no agent {', '.join(unknown)}; there are: {', '.join(node.name for node in nodes) or 'none'}."
            raise Failure("not-found", said)
        chosen = list({by_name[name].id: by_name[name] for name in input.agents}.values())
        if wrong := [why for node in chosen if (why := node.misses(wanted(node)))]:
            raise Failure("conflict", f"Not all of that can be kept: {'; '.join(wrong)}. Choose other agents, or another time.")
        return {node.id: dict(wanted(node)) for node in chosen}
    fitting = [node for node in nodes if all(node.labels.get(name) == value for name, value in input.labels.items())]
    free = [node for node in fitting if not node.misses(wanted(node))]
    count = input.count or 0
    if len(free) < count:
        why = "; ".join(node.misses(wanted(node)) for node in fitting if node not in free) or "there are no more"
        raise Failure("conflict", f"Only {len(free)} agents can keep that then, of {len(fitting)} in the group with such labels: {why}.")
    best = sorted(free, key=lambda node: (len(node.kept), sum(node.capacity.values()), node.name))  # the smallest that will do
    return {node.id: dict(wanted(node)) for node in best[:count]}


async def _read_nodes(connection: AsyncConnection, group: str, begins: float, ends: float) -> list[Node]:
    """Return the agents of a group, by name, with what other reservations keep between the two moments."""
    kept: dict[str, dict[str, Slots]] = {}
    for row in await connection.execute(select(bookings).where(bookings.c.begins < ends, bookings.c.ends > begins)):
        for agent, amounts in _kept_decoder.decode(row.agents).items():
            kept.setdefault(agent, {})[row.name] = amounts
    capacity: dict[str, dict[str, int]] = {}
    for row in await connection.execute(select(agent_slots.c.agent_id, agent_slots.c.slot, agent_slots.c.capacity)):
        capacity.setdefault(row.agent_id, {})[row.slot] = row.capacity
    query = select(agents.c.id, agents.c.name, agents.c.labels).where(agents.c.group_id == group).order_by(agents.c.name)
    return [Node(row.id, row.name, msgspec.json.decode(row.labels), capacity.get(row.id, {}), kept.get(row.id, {}))
            for row in await connection.execute(query)]


async def _check_quota(connection: AsyncConnection, scope: Scope, group: Group, kept: Kept, input: CreateBooking) -> None:
    """Raise ``Failure`` unless what is kept for *scope* in the window is within its quota, and its domain's."""
    sums = _total(kept.values())
    query = select(bookings).where(bookings.c.scope_id == scope.id, bookings.c.begins < input.ends, bookings.c.ends > input.begins)
    for row in await connection.execute(query):
        sums.update(_total(_kept_decoder.decode(row.agents).values()))
    lines = [line for line in await read_quotas(connection)
             if line.scope_id in (scope.id, scope.domain_id) and line.group_id in ("", group.id)]
    if lacking := sorted(sums.keys() - {line.what for line in lines if line.scope_id == scope.id}):
        said = f"{scope.title} has no quota of {', '.join(lacking)} there, and a reservation must be within one; ask a superadmin."
        raise Failure("forbidden", said)
    over = sorted({f"{line.what} {format_slots({line.what: line.limit}).partition('=')[2]}" for line in lines
                   if sums.get(line.what, 0) > line.limit})
    if over:
        raise Failure("rejected", f"Quotas do not allow {format_slots(sums)} at that time; they end at {', '.join(over)}. Ask for less.")


def _total(some: Iterable[Slots]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for amounts in some:
        sums.update(amounts)
    return sums


async def _show(context: Context, caller: Caller) -> tuple[Booking, ...]:
    now = context.clock()

    async def job(connection: AsyncConnection) -> tuple[Booking, ...]:
        scopes = await read_scopes(connection)
        groups = {group.id: group.name for group in await read_groups(connection)}
        nodes = {row.id: row.name for row in await connection.execute(select(agents.c.id, agents.c.name))}
        makers = {row.id: row.name for row in await connection.execute(select(users.c.id, users.c.name))}
        rows = (await connection.execute(select(bookings).order_by(bookings.c.begins, bookings.c.name))).all()
        return tuple(Booking(
            id=row.id, name=row.name, group=groups.get(row.group_id, row.group_id),
            scope=scopes[row.scope_id].title if row.scope_id in scopes else row.scope_id,
            agents={nodes.get(agent, agent): plain_slots(amounts) for agent, amounts in _kept_decoder.decode(row.agents).items()},
            begins=row.begins, ends=row.ends, state="coming" if now < row.begins else "open" if now < row.ends else "over",
            made_by=makers.get(row.made_by, row.made_by)) for row in rows if may(caller, Verb.READ, _thing(row.scope_id, scopes)))

    return await context.store.read(job)


OPERATIONS = (
    declare("bookings.list", list_, "GET", "/v1/reservations"),
    declare("bookings.create", create, "POST", "/v1/reservations", status=201, mutates=True, creates=True),
    declare("bookings.delete", remove, "DELETE", "/v1/reservations/{name}", status=204, mutates=True),
)
