"""Trying a law on many made-up inputs: by hypothesis, which finds the smallest one that breaks it, or without it by fifty seeds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from backendai.testing.laws import Violation

T = TypeVar("T")


def for_all(make: Callable[[Random], T], holds: Callable[[T], None], count: int = 50) -> None:
    """Call *holds* with *count* things that *make* made; the first ``Violation`` ends it and names the thing."""
    broken: list[Violation] = []

    def run(random: Random) -> None:
        thing = make(random)
        try:
            holds(thing)
        except Violation as violation:
            broken.append(Violation(f"{violation}, with {show(thing)}"))
            raise broken[-1] from violation

    try:
        _search(run, count)
    except Exception:
        if broken:  # the last one is the smallest
            raise Violation(*broken[-1].args) from broken[-1].__cause__  # without the notes of hypothesis
        raise


def _search(run: Callable[[Any], None], count: int) -> None:
    try:
        from hypothesis import HealthCheck, Phase, given, settings, strategies
    except ImportError:
        for seed in range(count):
            run(Random(seed))
        return
    quiet = settings(max_examples=count, deadline=None, database=None, derandomize=True, print_blob=False,
                     suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink))
    quiet(given(strategies.randoms(use_true_random=False))(run))()


def show(thing: object) -> str:
    """Return *thing* in a few words."""
    text = repr(thing)
    return text if len(text) <= 600 else f"{text[:600]}…"
