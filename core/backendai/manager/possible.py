"""What a session may ask of slots: amounts that each kind allows, what its image needs, and what some agent of its group has at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.schema import agent_slots, agents, slot_types
from backendai.model.errors import Failure
from backendai.model.slots import SCALE, SlotDecl, SlotKind, Slots, format_slots, parse_amount

if TYPE_CHECKING:
    from backendai.manager.context import Context

FRESH_S = 1.0  # how old what is remembered may be
OURS, THEIRS, RECIPE = "ai.backendai.resource.", "ai.backend.resource.", "ai.backendai.recipe.minimum"  # labels of images
Capacity = Mapping[str, Slots]  # by agent


class Capacities:
    """What each registered agent has in all, by group, and what slots are like; read again when it is older than a second."""

    def __init__(self) -> None:
        self._known: Mapping[str, Capacity] | None = None
        self._types: Mapping[str, SlotDecl] = {}
        self._until = 0.0

    def forget(self) -> None:
        """Look again next time."""
        self._known = None

    async def get(self, context: Context, group: str, *, fresh: bool = False) -> Capacity:
        """Return capacity by slot by agent of a group. fresh: as it is now."""
        return (await self._read(context, fresh)).get(group, {})

    async def types(self, context: Context) -> Mapping[str, SlotDecl]:
        """Return what is known of slots, by name."""
        await self._read(context, False)
        return self._types

    async def _read(self, context: Context, fresh: bool) -> Mapping[str, Capacity]:
        known = self._known
        if fresh or known is None or context.clock() >= self._until:
            found, self._types = await context.store.read(_read_capacities)
            self._known, self._until = found, context.clock() + FRESH_S
            return found
        return known


async def _read_capacities(connection: AsyncConnection) -> tuple[dict[str, dict[str, dict[str, int]]], dict[str, SlotDecl]]:
    query = (select(agents.c.group_id, agent_slots.c.agent_id, agent_slots.c.slot, agent_slots.c.capacity)
             .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id)))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.group_id, {}).setdefault(row.agent_id, {})[row.slot] = row.capacity
    return found, await read_types(connection)


async def read_types(connection: AsyncConnection) -> dict[str, SlotDecl]:
    """Return what agents declared of slots, by name."""
    return {row.name: SlotDecl(row.name, SlotKind(row.kind), row.quantum, row.unit, row.title)
            for row in await connection.execute(select(slot_types).order_by(slot_types.c.name))}


async def check_possible(context: Context, wanted: Sequence[Slots], group: str, title: str = "", together: Slots | None = None) -> None:
    """Raise when no registered agent of *group*, however empty, could hold one of *wanted*. Without agents everything may come true.

    title: the group's name, for the message where there are several. together: what one agent is to hold of all of them.
    """
    types = await context.capacities.types(context)
    for slots in wanted:
        check_amounts(types, slots)
    wanted = [*wanted, *([] if together is None else [together])]
    capacities = await context.capacities.get(context, group)
    if all(_fits(slots, capacities) for slots in wanted):
        return
    capacities = await context.capacities.get(context, group, fresh=True)  # an agent may have joined a moment ago
    misfit = next((slots for slots in wanted if not _fits(slots, capacities)), None)
    if misfit is None:
        return
    where = f" in the group {title}" if title else ""
    known = sorted({name for slots in capacities.values() for name in slots})
    if unknown := sorted(misfit.keys() - set(known)):
        raise Failure("bad-slots", f"No agent{where} has {', '.join(unknown)}; there are: {', '.join(known) or 'none'}.")
    most = {name: max(slots.get(name, 0) for slots in capacities.values()) for name in misfit}
    said = f"No agent{where} has {format_slots(misfit)}; the most that any has of each is {format_slots(most)}. Ask for less."
    raise Failure("impossible", said)


def _fits(wanted: Slots, capacities: Capacity) -> bool:
    return not capacities or any(all(slots.get(n, 0) >= amount for n, amount in wanted.items()) for slots in capacities.values())


def check_amounts(types: Mapping[str, SlotDecl], wanted: Slots) -> None:
    """Raise ``Failure('bad-slots')`` for an amount that the kind of its slot does not allow."""
    for name, amount in wanted.items():
        if (slot := types.get(name)) is None:
            continue
        if slot.kind is SlotKind.UNIQUE and amount != SCALE:
            raise Failure("bad-slots", f"{name} is given once or not at all; write {name}=1.")
        if slot.kind is SlotKind.FRACTION and amount > SCALE and amount % SCALE:
            raise Failure("bad-slots", f"{name} is a share of one device, such as 0.5, or a number of whole devices, such as 2.")
        if amount % slot.quantum:
            step = format_slots({name: slot.quantum}).partition("=")[2]
            raise Failure("bad-slots", f"{format_slots({name: amount})} is not a multiple of {step}; the smallest step of {name} is that.")


def bounds_of(labels: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return what an image's labels say that a container of it needs at least, and may have at most; what cannot be read is left out."""
    bounds: dict[str, dict[str, int]] = {"min": {}, "max": {}}
    given: list[tuple[str, str, Any]] = [("min", name, amount) for name, amount in _recipe(labels.get(RECIPE, ""))]
    for prefix in (THEIRS, OURS):
        given += [(kind, name, amount) for label, amount in labels.items() if label.startswith(prefix)
                  for kind, _, name in [label.removeprefix(prefix).partition(".")] if kind in bounds and name]
    for kind, name, amount in given:
        try:
            bounds[kind][name] = parse_amount(name, amount)
        except Failure:
            continue  # a label that is nonsense binds nobody
    return bounds["min"], bounds["max"]


def check_bounds(image: str, labels: Mapping[str, str], wanted: Slots) -> None:
    """Raise ``Failure('bad-slots')`` that names everything by which *wanted* is too little or too much for *image*."""
    least, most = bounds_of(labels)
    wrong = [f"at least {format_slots({name: amount})}" for name, amount in least.items() if wanted.get(name, 0) < amount]
    wrong += [f"at most {format_slots({name: amount})}" for name, amount in most.items() if wanted.get(name, 0) > amount]
    if wrong:
        raise Failure("bad-slots", f"The image {image} takes {' and '.join(wrong)}; ask for that with -r.")


class KnownImages:
    """Labels of images, as agents told them when they were last asked; a restart forgets them."""

    def __init__(self) -> None:
        self._labels: dict[str, dict[str, Mapping[str, str]]] = {}

    def learn(self, agent: str, images: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Take in what an agent has: name and labels."""
        self._labels[agent] = {name: labels for name, labels in images if labels}

    def labels(self, image: str) -> Mapping[str, str]:
        """Return the labels of an image by name; none when no agent told of it."""
        tagged = ":" in image.rpartition("/")[2]
        names = (image, image.removesuffix(":latest") if tagged else f"{image}:latest")
        return next((some[name] for some in self._labels.values() for name in names if name in some), {})


def _recipe(text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return []
    return list(found.items()) if isinstance(found, dict) else []
