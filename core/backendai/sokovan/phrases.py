"""How amounts are written for people, in every sentence that a decision comes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.model.units import format_bytes


def number(name: str, amount: int) -> str:
    """Write an amount of a slot without its name: ``0.5``, ``512m``."""
    if kind_of(name) is SlotKind.BYTES:
        return format_bytes(amount)
    return str(amount // SCALE) if amount % SCALE == 0 else f"{amount / SCALE:.3f}".rstrip("0")


def amount_of(name: str, amount: int) -> str:
    """Write an amount of a slot: ``4 cores``, ``512m of memory``, ``2 cuda.device``."""
    written = number(name, amount)
    if name == "cpu":
        return f"{written} core" if written == "1" else f"{written} cores"
    return f"{written} of memory" if name == "mem" else f"{written} {name}"


def amounts_of(amounts: Mapping[str, int]) -> str:
    """Write several amounts: ``4 cores, 8g of memory and 1 cuda.device``."""
    return listed([amount_of(name, amount) for name, amount in amounts.items()])


def listed(words: Iterable[str], last: str = "and") -> str:
    """Write a list as a sentence has it: ``a, b and c``."""
    *first, end = list(words) or [""]
    return f"{', '.join(first)} {last} {end}" if first else end
