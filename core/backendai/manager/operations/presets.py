"""Slots: what agents lend, and presets, which are named bundles of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.groups import NAME, find_group
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.possible import check_amounts, read_types
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import agent_slots, groups, presets
from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl, kind_of, parse_slots, plain_slots
from backendai.model.views import Preset, SlotType


class CreatePreset(Input, frozen=True):
    """name: lower case. slots: such as ``{"cpu": 4, "mem": "16g"}``. group: the only one that it is for. about: for people."""

    name: str
    slots: Mapping[str, str | int | float]
    group: str | None = None
    about: str = ""


class OnePreset(Input, frozen=True):
    """name: of the preset."""

    name: str


async def slots(context: Context, caller: Caller, input: Nothing) -> Page[SlotType]:
    """List the slots that agents lend, by name, and how much of each is in use."""
    sums = select(agent_slots.c.slot, func.sum(agent_slots.c.capacity), func.sum(agent_slots.c.used)).group_by(agent_slots.c.slot)

    async def job(connection: AsyncConnection) -> tuple[dict[str, SlotDecl], dict[str, tuple[int, int]]]:
        return await read_types(connection), {row[0]: (int(row[1]), int(row[2])) for row in await connection.execute(sums)}

    types, amounts = await context.store.read(job)
    found = []
    for name in sorted(types.keys() | amounts.keys()):
        slot = types.get(name) or SlotDecl(name, kind_of(name))
        quantum, capacity, used = (plain_slots({name: amount})[name] for amount in (slot.quantum, *amounts.get(name, (0, 0))))
        found.append(SlotType(name, slot.kind.value, quantum, slot.unit, slot.title, capacity, used))
    return Page(tuple(found))


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Preset]:
    """List the presets, by name."""
    return Page(await context.store.read(read_presets))


async def create(context: Context, caller: Caller, input: CreatePreset) -> Preset:
    """Make a preset. Sessions name it in place of amounts."""
    require(caller, Verb.CREATE, Thing("preset"))
    if NAME.fullmatch(input.name) is None:
        raise Failure("bad-name", f"{input.name!r} cannot be a preset's name; use a lower-case letter, then letters, digits, '.-_'.")
    amounts = parse_slots(input.slots)
    if not amounts:
        raise Failure("bad-slots", "A preset needs slots, such as cpu=4,mem=16g.")
    check_amounts(await context.capacities.types(context), amounts)
    group = None if input.group is None else (await find_group(context, input.group)).id
    id = context.new_id()

    async def make() -> Preset:
        async def job(tx: Tx) -> None:
            row = {"id": id, "name": input.name, "slots": msgspec.json.encode(amounts).decode(), "group_id": group, "about": input.about}
            await tx.connection.execute(insert(presets), [row])
            remember(tx, caller, id, context.clock())
            tx.event("preset.created", id, None, {"by": caller.user.name, "name": input.name})

        try:
            await context.store.write(job)
        except IntegrityError as error:
            if violates(error, presets):
                raise Failure("name-taken", f"There is a preset {input.name!r} already; choose another name, or remove it.") from error
            raise
        return await _one(context, id)

    return await create_once(context, caller, make, lambda made: _one(context, made))


async def remove(context: Context, caller: Caller, input: OnePreset) -> None:
    """Remove a preset. Sessions that were made with it keep what they have."""
    require(caller, Verb.CHANGE, Thing("preset"))

    async def job(tx: Tx) -> None:
        id = (await tx.connection.execute(select(presets.c.id).where(presets.c.name == input.name))).scalar()
        if id is None:
            raise Failure("not-found", f"There is no preset {input.name!r}; see `bai preset ls`.")
        await tx.connection.execute(delete(presets).where(presets.c.id == id))
        tx.event("preset.deleted", id, None, {"by": caller.user.name, "name": input.name})

    await context.store.write(job)


async def read_presets(connection: AsyncConnection) -> tuple[Preset, ...]:
    """Return every preset, by name."""
    query = (select(presets, groups.c.name.label("group")).select_from(presets.outerjoin(groups, presets.c.group_id == groups.c.id))
             .order_by(presets.c.name))
    return tuple(Preset(row.id, row.name, plain_slots(msgspec.json.decode(row.slots)), row.group or "", row.about)
                 for row in await connection.execute(query))


async def _one(context: Context, id: str) -> Preset:
    return next(preset for preset in await context.store.read(read_presets) if preset.id == id)


OPERATIONS = (
    declare("slots.list", slots, "GET", "/v1/slots"),
    declare("presets.list", list_, "GET", "/v1/presets"),
    declare("presets.create", create, "POST", "/v1/presets", status=201, mutates=True, creates=True),
    declare("presets.delete", remove, "DELETE", "/v1/presets/{name}", status=204, mutates=True),
)
