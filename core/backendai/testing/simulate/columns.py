"""CSV with named columns: which there are, and what to say of one that is missing."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from backendai.testing.simulate.trace import at, number

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cells:
    """One line of a CSV file, by column."""

    name: str
    line: int
    cells: Mapping[str, str]

    def text(self, column: str, default: str = "") -> str:
        """Return what stands in a column, or *default* where it is empty or there is no such column."""
        return self.cells.get(column, "").strip() or default

    def read(self, column: str, convert: Callable[[str], T], default: str | None = None) -> T:
        """Read a number; without a default, an empty cell is a ``Failure('invalid-request')``."""
        text = self.text(column) or default
        if text is None:
            raise at(self.name, self.line, f"{column} is empty; write a number.")
        return number(self.name, self.line, column, text, convert)


def head_of(text: str) -> list[str]:
    """Return the names in the first line, in small letters."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return [cell.strip().strip('"').lower() for cell in first.lstrip("\ufeff").split(",")]


def rows(name: str, text: str, needs: tuple[str, ...]) -> Iterator[Cells]:
    """Yield the lines below the head; raise ``Failure('invalid-request')`` when a needed column is missing. Empty lines are skipped."""
    reader = csv.reader(text.lstrip("\ufeff").splitlines())
    head = [cell.strip().lower() for cell in next(reader, [])]
    if missing := [column for column in needs if column not in head]:
        raise at(name, 1, f"there is no column {', '.join(missing)}; the first line must name the columns, at least {','.join(needs)}.")
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield Cells(name, reader.line_num, dict(zip(head, cells, strict=False)))


def whole(text: str) -> int:
    """Read an integer that may be written ``8.0``; raise ValueError where it is none."""
    value = float(text)
    if not value.is_integer():
        raise ValueError
    return int(value)


def real(text: str) -> float:
    """Read a finite number; raise ValueError where it is none."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError
    return value
