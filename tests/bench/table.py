"""Measurements beside their floors, as rows of one table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """what: was measured. ours, floor: with their units; floor empty where there is none. aim: in words. met: whether it is."""

    what: str
    ours: str
    floor: str
    ratio: str
    aim: str
    met: bool


def milliseconds(seconds: Sequence[float]) -> str:
    """Say the median of a series, and how many there are."""
    return f"{statistics.median(seconds) * 1000:.1f} ms (n={len(seconds)})"


def at_most(what: str, ours: float, floor: float, factor: float, unit: str = "ms") -> Row:
    """A cost that may be at most *factor* times its floor. ours, floor: in *unit*."""
    return Row(what, f"{ours:.1f} {unit}", f"{floor:.1f} {unit}", f"{ours / floor:.2f}", f"at most {factor:g} x", ours <= factor * floor)


def at_least(what: str, ours: float, floor: float, factor: float, unit: str = "/s") -> Row:
    """A rate that must be at least *factor* times its floor's."""
    return Row(what, f"{ours:.1f} {unit}", f"{floor:.1f} {unit}", f"{ours / floor:.2f}", f"at least {factor:g} x", ours >= factor * floor)


def bound(what: str, ours: float, aim: float, unit: str, low: bool = True) -> Row:
    """A measure beside a fixed number: at most it when *low*, else at least it."""
    words, met = ("at most", ours <= aim) if low else ("at least", ours >= aim)
    return Row(what, f"{ours:.1f} {unit}", "", "", f"{words} {aim:g} {unit}", met)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as an aligned table."""
    cells = [(row.what, row.ours, row.floor, row.ratio, row.aim, "yes" if row.met else "NO") for row in rows]
    cells.insert(0, ("what", "ours", "floor", "ratio", "aim", "met"))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)
