"""What to say when a real part cannot be had on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


class Absent(Exception):
    """The part cannot be had here; the text says why, in one line."""


def strict() -> bool:
    """Tell whether a missing part is a failure (``CI=true``) and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def give_up(why: Absent) -> NoReturn:
    """Skip the running test with the reason; fail it where every part must be there."""
    if strict():
        pytest.fail(f"a part is missing, and CI=true forbids to skip: {why}", pytrace=False)
    pytest.skip(str(why))
