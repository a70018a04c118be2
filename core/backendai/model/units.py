"""Sizes and durations as people write them. Bytes are int, durations are seconds as float."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_STEP = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_bytes(text: str) -> int:
    """Read ``512m``, ``1.5g``, ``4096``; the steps are 1024. Raise ValueError on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 512m, 1.5g or a number of bytes")
    from fractions import Fraction  # here, because most commands read no size

    return int(Fraction(match[1]) * 1024 ** _STEP[match[2].lower()])  # exact: a float forgets bytes beyond 8 PiB


def format_bytes(amount: int) -> str:
    """Write *amount* with the largest step that leaves at most one decimal, as ``parse_bytes`` reads it."""
    value, step = float(amount), 0
    while value >= 1024 and step < 5:
        value, step = value / 1024, step + 1
    return f"{value:.1f}".removesuffix(".0") + ["", "k", "m", "g", "t", "p"][step]


def parse_seconds(text: str) -> float:
    """Read ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``. Raise ValueError on anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write 90s, 10m, 1h30m or 2d")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def format_seconds(seconds: float) -> str:
    """Write a duration with its two largest parts: ``1h30m``, ``42s``."""
    rest = int(seconds)
    parts = []
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts[:2]) or "0s"


def format_time(at: float) -> str:
    """Write a moment, in seconds since the epoch: ``2026-11-26 03:00 UTC``."""
    from datetime import UTC, datetime  # here, because most commands write none

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
