"""On which terms a session is accepted: its resource group, its preset, its reservation, its quotas, and what its image needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller
from backendai.manager.context import Context
from backendai.manager.possible import check_bounds, check_possible
from backendai.manager.store.admission import Asking, admit, longest
from backendai.manager.store.groups import Group, choose
from backendai.manager.store.owners import Place
from backendai.manager.store.quotas import SESSIONS, Line, Taker
from backendai.manager.store.schema import bookings, presets
from backendai.model.errors import Failure
from backendai.model.session import SessionSpec
from backendai.model.slots import Slots


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for by name. group: a resource group. preset: a bundle of slots. reservation: an advance one to run in."""

    group: str | None = None
    preset: str | None = None
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a session of *user* in *place*. slots: what its preset gives each kernel. booking: the id of its reservation."""

    user: str
    place: Place
    group: Group
    several: bool  # there are other groups
    slots: Mapping[str, int] = field(default_factory=dict)
    lines: Sequence[Line] = ()
    booking: str | None = None

    def apply(self, spec: SessionSpec) -> SessionSpec:
        """Return *spec* under these terms: with the longest time that its owner may have, where it names none."""
        limit = spec.time_limit_s if spec.time_limit_s is not None else longest(self.lines)
        return replace(spec, time_limit_s=limit, booking=self.booking)

    async def check(self, context: Context, spec: SessionSpec) -> None:
        """Raise ``Failure`` for what no agent of the group could hold, or what an image does not take."""
        for image, slots in images_of(spec):
            if image is not None and (labels := context.images.labels(image)):
                check_bounds(image, labels, slots)
        each = kernels_of(spec)
        together: Counter[str] = Counter()
        for slots in each if spec.wishes.one_agent else ():
            together.update(slots)
        different = list({tuple(sorted(slots.items())): slots for slots in each}.values())
        await check_possible(context, different, self.group.id, self.group.name if self.several else "", together or None)

    async def admit(self, context: Context, connection: AsyncConnection, spec: SessionSpec, count: int = 1) -> bool:
        """Hold *count* such sessions against their owners' quotas; see ``store.admission.admit``."""
        if not self.lines:
            return False
        each, amounts = kernels_of(spec), Counter({SESSIONS: 1})
        for slots in each:
            amounts.update(slots)
        taker = Taker(self.user, self.place.id, self.place.domain_id, self.group.id, amounts)
        return await admit(connection, self.lines, Asking(taker, count, len(each), spec.time_limit_s))


def kernels_of(spec: SessionSpec) -> list[Slots]:
    """Return what each kernel of a session needs."""
    return [slots for _, slots in images_of(spec)]


def images_of(spec: SessionSpec) -> list[tuple[str | None, Slots]]:
    """Return the image and the slots of each kernel of a session."""
    if not spec.cluster:
        return [(spec.image, spec.slots)]
    return [(part.image or spec.image, spec.slots if part.slots is None else part.slots)
            for part in spec.cluster for _ in range(part.count)]


async def find_terms(context: Context, caller: Caller, place: Place, type: str, choice: Choice) -> Terms:
    """Return on which terms *caller* may ask for a session in *place*; raise ``Failure`` when they name what is not theirs to use."""
    scopes, now = (caller.id, place.id, place.domain_id), context.clock()
    slots: Mapping[str, int] = {}
    booking: str | None = None
    only: dict[str, str | None] = {}  # groups that the preset or the reservation is for
    if (preset := choice.preset) is not None:
        slots, only[f"preset: {preset}"] = await context.store.read(lambda connection: read_preset(connection, preset))
    if (name := choice.reservation) is not None:
        booking, only[f"reservation: {name}"] = await context.store.read(lambda connection: find_booking(connection, name, scopes, now))
    known = await context.groups.all(context.store)
    wanted = choice.group or next((id for id in only.values() if id), None)
    group = choose(known.values(), scopes, caller.superadmin, wanted, type)
    for what, id in only.items():
        if id not in (None, group.id):
            raise Failure("invalid-request", f"{what} is for another group than {group.name}.")
    lines = await context.limits.of(context.store, scopes, group.id)
    return Terms(caller.id, place, group, len(known) > 1, slots, lines, booking)


async def read_preset(connection: AsyncConnection, name: str) -> tuple[dict[str, int], str | None]:
    """Return a preset's slots, and the id of the only group that it is for."""
    row = (await connection.execute(select(presets).where(presets.c.name == name))).first()
    if row is None:
        there = (await connection.execute(select(presets.c.name).order_by(presets.c.name))).scalars().all()
        raise Failure("not-found", f"There is no preset {name!r}; there are: {', '.join(there) or 'none'}.")
    return msgspec.json.decode(row.slots, type=dict[str, int]), row.group_id


async def find_booking(connection: AsyncConnection, name: str, scopes: Sequence[str], now: float) -> tuple[str, str]:
    """Return the ids of a reservation that *scopes* may use, and of its group."""
    row = (await connection.execute(select(bookings).where(bookings.c.name == name, bookings.c.scope_id.in_(scopes)))).first()
    if row is None:
        raise Failure("not-found", f"There is no reservation {name!r} for you in this project; see `bai reservation ls`.")
    if row.ends <= now:
        raise Failure("conflict", f"The reservation {name} is over.")
    return row.id, row.group_id
