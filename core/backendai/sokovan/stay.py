"""A container that a plan has placed, and until when it may stay."""

from __future__ import annotations

from dataclasses import dataclass

from backendai.sokovan.table import Parts, Want

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Stay:
    """row: of its agent. parts: what it has of devices. until: seconds since the epoch."""

    row: int
    want: Want
    parts: Parts
    until: float
