"""Identifiers: 26 characters, sortable by time of making, safe in paths, host names and container names."""

from __future__ import annotations

import re

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_ID = re.compile(f"[{_ALPHABET}]{{26}}")


def make_id(now_ms: int, randomness: int) -> str:
    """Encode 48 bits of *now_ms* (milliseconds since the epoch) and 80 bits of *randomness*, as ULID does."""
    value = (now_ms & (1 << 48) - 1) << 80 | randomness & (1 << 80) - 1
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Tell whether *text* has the form of an identifier."""
    return _ID.fullmatch(text) is not None
