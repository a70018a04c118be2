"""The figures of one run or several as rows for people, and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backendai.model.units import format_seconds
from backendai.testing.simulate.measure import RANKS, Result, Waits


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. of: its value in a result. shown: how it is written. ratio: whether runs are compared by it."""

    name: str
    of: Callable[[Result], float]
    shown: Callable[[float], str]
    ratio: bool = True


def percent(share: float) -> str:
    """Write a share."""
    return f"{share * 100:.1f} %"


def count(number: float) -> str:
    """Write a whole number."""
    return f"{number:,.0f}"


def seconds(value: float) -> str:
    """Write a duration; a short one with a decimal."""
    return format_seconds(value) if value >= 10 else f"{value:.1f}s".replace(".0s", "s")


def times(value: float) -> str:
    """Write a factor."""
    return f"{value:,.2f}"


def _rank(i: int, of: Callable[[Result], Sequence[float]]) -> Callable[[Result], float]:
    return lambda result: of(result)[i]


FIGURES: tuple[Figure, ...] = (
    Figure("jobs that ended", lambda r: r.ended, count, ratio=False),
    Figure("jobs that never began", lambda r: r.unstarted, count, ratio=False),
    Figure("jobs that still ran", lambda r: r.unended, count, ratio=False),
    Figure("preempted", lambda r: r.evictions, count, ratio=False),
    Figure("in use until the last end", lambda r: r.utilisation, percent),
    Figure("in use while jobs came", lambda r: r.busy, percent),
    Figure("makespan", lambda r: r.makespan_s, seconds),
    Figure("completion, mean", lambda r: r.jct_mean_s, seconds),
    *(Figure(f"completion, {rank} % within", _rank(i, lambda r: r.jct_ranks), seconds) for i, rank in enumerate(RANKS)),
    Figure("waiting, mean", lambda r: r.waiting.mean_s, seconds),
    *(Figure(f"waiting, {rank} % within", _rank(i, lambda r: r.waiting.ranks), seconds) for i, rank in enumerate(RANKS)),
    Figure("waiting, longest", lambda r: r.waiting.most_s, seconds),
    Figure("slowdown, mean", lambda r: r.slowdown_mean, times),
    Figure("slowdown, 95 % within", lambda r: r.slowdown_ranks[2], times),
    Figure("fairness among users (Jain)", lambda r: r.fairness, times),
    Figure("away from fair shares", lambda r: r.unfairness, percent),
    Figure("fragmented, of what is free", lambda r: r.fragmentation, percent),
    Figure("plans", lambda r: r.plans, count),
    Figure("decisions", lambda r: r.decisions, count, ratio=False),
    Figure("decisions a second", lambda r: r.decisions_s, count),
    Figure("a plan, median", lambda r: r.decision_s[0] * 1000, lambda ms: f"{ms:.2f} ms"),
    Figure("a plan, 99 % within", lambda r: r.decision_s[1] * 1000, lambda ms: f"{ms:.2f} ms"),
)


def figures(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: a column for each run, those after the first with the ratio to it. What is 0 in all is left out."""
    heads = ["", *(name_of(result) for result in results)]
    rows = [[figure.name, *_cells(figure, results)] for figure in FIGURES
            if figure.ratio or figure.name == FIGURES[0].name or any(figure.of(result) for result in results)]
    return heads, rows


def _cells(figure: Figure, results: Sequence[Result]) -> list[str]:
    first = figure.of(results[0])
    return [figure.shown(value) + (f"  ({value / first:.2f} x)" if i and figure.ratio and first else "")
            for i, value in enumerate(figure.of(result) for result in results)]


def classes(results: Sequence[Result], title: str) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of waiting by ``size``, ``user`` or ``priority``."""
    many = len(results) > 1
    heads = [title, *(["policy"] if many else []), "jobs", "mean", *(f"{rank} %" for rank in RANKS), "longest"]
    names = [name for result in results for name in result.classes[title]]
    rows = []
    for name in dict.fromkeys(names):
        for i, result in enumerate(results):
            if (waits := result.classes[title].get(name)) is not None:
                rows.append([name if not i else "", *([name_of(result)] if many else []), *_row(waits)])
    return heads, rows


def _row(waits: Waits) -> list[str]:
    return [count(waits.jobs), seconds(waits.mean_s), *(seconds(value) for value in waits.ranks), seconds(waits.most_s)]


def name_of(result: Result) -> str:
    """Return scheduler and selector of a run."""
    return f"{result.scheduler}/{result.selector}"


def plain(result: Result) -> dict[str, Any]:
    """Return everything as plain values, percentiles by name."""
    found = asdict(result)
    for name in ("jct_ranks", "slowdown_ranks"):
        found[name] = _named(found[name])
    found["decision_s"] = {"p50": result.decision_s[0], "p99": result.decision_s[1]}
    found["waiting"] = _plain_waits(result.waiting)
    found["classes"] = {title: {name: _plain_waits(waits) for name, waits in each.items()} for title, each in result.classes.items()}
    return found


def _plain_waits(waits: Waits) -> dict[str, Any]:
    return {"jobs": waits.jobs, "mean_s": waits.mean_s, "ranks_s": _named(waits.ranks), "most_s": waits.most_s}


def _named(ranks: Sequence[float]) -> dict[str, float]:
    return {f"p{rank}": value for rank, value in zip(RANKS, ranks, strict=True)}
