"""What a node can lend, in exact integers.

An amount is an int everywhere inside: bytes for a ``BYTES`` slot, thousandths for every other kind (one core is 1000). At the edges
(REST, CLI) it is a plain number: ``{"cpu": 0.5, "mem": 536870912}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from backendai.model.errors import Failure
from backendai.model.units import format_bytes, parse_bytes

SCALE = 1000
_NAME = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*")
Slots = Mapping[str, int]  # slot name to amount, in the slot's internal unit


class SlotKind(StrEnum):
    """How a slot is counted."""

    COUNT = "count"  # divisible in thousandths unless its quantum says otherwise: cores
    BYTES = "bytes"
    UNIQUE = "unique"  # at most one to a kernel
    FRACTION = "fraction"  # a share of one device


@dataclass(frozen=True, slots=True)
class SlotDecl:
    """A slot as its accelerator plugin declares it.

    name: ``cpu``, ``mem``, ``cuda.device``. quantum: the smallest step, in the internal unit. unit, title: for people.
    """

    name: str
    kind: SlotKind
    quantum: int = 1
    unit: str = ""
    title: str = ""


CPU = SlotDecl("cpu", SlotKind.COUNT, quantum=1, unit="core", title="CPU")
MEM = SlotDecl("mem", SlotKind.BYTES, quantum=1, unit="byte", title="Memory")


def kind_of(name: str) -> SlotKind:
    """Return the kind by which amounts of *name* are read and written where no declaration is at hand."""
    return SlotKind.BYTES if name == "mem" or name.endswith(".mem") else SlotKind.COUNT


def parse_amount(name: str, text: str | int | float) -> int:
    """Read one amount at the edge into the internal unit; raise ``Failure('bad-slots')`` with what to write instead."""
    try:
        if kind_of(name) is SlotKind.BYTES:
            amount = parse_bytes(str(text))
        else:
            exact = Decimal(str(text)) * SCALE
            amount = int(exact)
            if exact != amount:
                raise ValueError
    except (ValueError, ArithmeticError):  # decimal's own errors are the latter
        hint = "a size such as 512m" if kind_of(name) is SlotKind.BYTES else "a number with at most three decimals"
        raise Failure("bad-slots", f"{name}={text} is not an amount; write {hint}.") from None
    if amount <= 0 or amount >= 1 << 62:
        raise Failure("bad-slots", f"{name}={text} must be more than zero and less than the universe holds.")
    return amount


def parse_slots(given: Mapping[str, str | int | float]) -> dict[str, int]:
    """Read a request such as ``{"cpu": 1, "mem": "512m"}``."""
    for name in given:
        if _NAME.fullmatch(name) is None:
            raise Failure("bad-slots", f"{name!r} is not the name of a slot; `bai agents` shows the names.")
    return {name: parse_amount(name, amount) for name, amount in given.items()}


def parse_slot_text(text: str) -> dict[str, int]:
    """Read the command line's ``cpu=1,mem=512m``."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    for name, equals, amount in pairs:
        if not equals or not amount:
            raise Failure("bad-slots", f"{name!r} lacks an amount; write {name}=1.")
    return parse_slots({name.strip(): amount.strip() for name, _, amount in pairs})


def plain_slots(slots: Slots) -> dict[str, int | float]:
    """Return *slots* as plain numbers for the edge: cores and devices, bytes."""
    return {name: amount if kind_of(name) is SlotKind.BYTES else _plain(amount) for name, amount in slots.items()}


def format_slots(slots: Slots) -> str:
    """Write *slots* for people, as ``parse_slot_text`` reads it: ``cpu=1,mem=512m``."""
    return ",".join(f"{n}={format_bytes(a) if kind_of(n) is SlotKind.BYTES else _plain(a)}" for n, a in slots.items())


def _plain(amount: int) -> int | float:
    return amount // SCALE if amount % SCALE == 0 else amount / SCALE
