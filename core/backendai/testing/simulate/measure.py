"""What came of a run, in figures: how busy it was, who waited for how long, how fair that was, and what it took to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.testing.simulate.fair import deviation, jain
from backendai.testing.simulate.record import Record

Floats = NDArray[np.float64]
POINTS = 240  # of a line over time
RANKS = (50, 90, 95, 99)
SHORT_S = 10.0  # what is shorter counts as so long in a slowdown, as is usual, or a job of a second would outweigh all
MOST_USERS = 12  # that are told apart; the others are one class


@dataclass(frozen=True, slots=True)
class Waits:
    """Waiting of a class of jobs, seconds. ranks: percentiles by ``RANKS``."""

    jobs: int
    mean_s: float
    ranks: tuple[float, ...]
    most_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """A figure over time. at: hours since the first job. values: of each stretch the mean."""

    at: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one run. Times in seconds, shares from 0 to 1.

    jobs, ended, unstarted, unended: tasks; those that ended, never began, and were running when it was interrupted. jct: completion
    (end less submission). slowdown: completion by duration. fairness: Jain's index over users of how fast their jobs went.
    unfairness: the share of the machine that is not where max-min fairness has it, over time. fragmentation: the share of what is
    free that the mix cannot use. makespan_s: from the first submission to the last end. utilisation: of the unit, over the makespan;
    busy: while jobs still came. decision_s: p50 and p99 of a plan.
    """

    scheduler: str
    selector: str
    unit: str
    jobs: int
    ended: int
    unstarted: int
    unended: int
    evictions: int
    jct_mean_s: float
    jct_ranks: tuple[float, ...]
    slowdown_mean: float
    slowdown_ranks: tuple[float, ...]
    waiting: Waits
    classes: Mapping[str, Mapping[str, Waits]]
    utilisation: float
    busy: float
    fragmentation: float
    fairness: float
    unfairness: float
    makespan_s: float
    plans: int
    decisions: int
    decisions_s: float
    decision_s: tuple[float, float]
    stopped: bool
    lines: Mapping[str, Line]
    curve: Line  # at: hours of waiting; values: the share of jobs that waited no longer


def measure(record: Record, scheduler: str, selector: str) -> Result:
    """Work the figures out."""
    scene = record.scene
    starts, ends = np.array(record.starts), np.array(record.ends)
    submitted = np.array([task.request.submitted_at for task in scene.tasks])
    durations = np.array([task.duration_s for task in scene.tasks])
    done = ~np.isnan(ends)
    jct = (ends - submitted)[done]
    waits = np.maximum(0.0, jct - durations[done])
    slowdown = np.maximum(1.0, jct / np.maximum(durations[done], SHORT_S))
    times = np.array(record.times)
    end = float(times[-1])
    begin, last = float(submitted[0]), float(submitted[-1])
    used = np.array(record.used, dtype=np.float64) / scene.capacity
    planning = float(sum(record.plan_s))
    speeds = np.where(jct > 0, durations[done] / np.maximum(jct, 1e-9), 1.0)
    users = [task.request.user for task, ended in zip(scene.tasks, done, strict=True) if ended]
    return Result(
        scheduler=scheduler, selector=selector, unit=scene.unit, jobs=len(scene.tasks), ended=int(done.sum()),
        unstarted=int(np.isnan(starts).sum()), unended=int((~done & ~np.isnan(starts)).sum()), evictions=record.evictions,
        jct_mean_s=_mean(jct), jct_ranks=_ranks(jct), slowdown_mean=_mean(slowdown), slowdown_ranks=_ranks(slowdown),
        waiting=_waits(waits), classes=_classes(record, done, waits, users), utilisation=average(times, used, begin, end),
        busy=average(times, used, begin, min(last, end)), fragmentation=_over_time(record.fragments),
        fairness=jain(users, speeds), unfairness=_over_time([(at, deviation(has, scene.capacity)) for at, has in record.shares]),
        makespan_s=end - begin, plans=len(record.plan_s), decisions=record.decisions,
        decisions_s=record.decisions / planning if planning else 0.0,
        decision_s=(float(np.percentile(record.plan_s, 50)), float(np.percentile(record.plan_s, 99))) if record.plan_s else (0.0, 0.0),
        stopped=record.stopped, curve=_curve(waits),
        lines={"utilisation": _line(times, used, begin, end),
               "waiting": _line(times, np.array(record.queue, dtype=np.float64), begin, end)})


def average(times: Floats, values: Floats, begin: float, end: float) -> float:
    """Return the mean over time of a figure that is *values[i]* from *times[i]* on, between *begin* and *end*."""
    if end <= begin:
        return float(values[-1]) if len(values) else 0.0
    return float(_integral(times, values, np.array([begin, end]))[1] / (end - begin))


def _integral(times: Floats, values: Floats, at: Floats) -> Floats:
    """Return the integral of such a figure from *at[0]* to each of *at*."""
    sums = np.concatenate(([0.0], np.cumsum(values[:-1] * np.diff(times))))
    where = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 1)
    total = sums[where] + values[where] * np.maximum(0.0, at - times[where])
    return np.asarray(total - total[0], dtype=np.float64)


def _line(times: Floats, values: Floats, begin: float, end: float) -> Line:
    edges = np.linspace(begin, max(end, begin + 1), POINTS + 1)
    means = np.diff(_integral(times, values, edges)) / np.diff(edges)
    return Line(tuple(round(float(at - begin) / 3600, 4) for at in edges[:-1]), tuple(round(float(value), 5) for value in means))


def _curve(waits: Floats) -> Line:
    """Return how many have waited no longer, at even steps of the share."""
    if not len(waits):
        return Line((), ())
    shares = np.linspace(0, 100, POINTS // 2 + 1)
    return Line(tuple(round(float(w) / 3600, 5) for w in np.percentile(waits, shares)), tuple(round(float(s) / 100, 4) for s in shares))


def _over_time(samples: Sequence[tuple[float, float]]) -> float:
    """Return the mean over time of what was looked at now and then."""
    if len(samples) < 2:
        return samples[0][1] if samples else 0.0
    times, values = (np.array(column) for column in zip(*samples, strict=True))
    return average(times, values, float(times[0]), float(times[-1]))


def _waits(waits: Floats) -> Waits:
    return Waits(len(waits), _mean(waits), _ranks(waits), float(waits.max(initial=0.0)))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _ranks(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values, RANKS)) if len(values) else (0.0,) * len(RANKS)


def _classes(record: Record, done: NDArray[np.bool_], waits: Floats, users: Sequence[str]) -> dict[str, dict[str, Waits]]:
    """Return the waits by size, user and priority."""
    tasks = [task for task, ended in zip(record.scene.tasks, done, strict=True) if ended]
    step = 1 if kind_of(record.scene.unit) is SlotKind.BYTES else SCALE
    ranks = [_size_rank(task.size / step) for task in tasks]
    priorities = [task.request.priority for task in tasks]
    often: dict[str, int] = {}
    for user in users:
        often[user] = often.get(user, 0) + 1
    named = set(sorted(often, key=lambda user: (-often[user], user))[:MOST_USERS])
    return {"size": _by([(rank, _size_name(rank)) for rank in ranks], waits),
            "user": _by([(-often[user], user) if user in named else (0, "others") for user in users], waits),
            "priority": _by([(-priority, str(priority)) for priority in priorities], waits)}


def _by(keys: Sequence[tuple[int, str]], waits: Floats) -> dict[str, Waits]:
    """Group by what the keys name; their numbers say in which order."""
    groups: dict[tuple[int, str], list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return {key[1]: _waits(waits[groups[key]]) for key in sorted(groups)}


def _size_rank(size: float) -> int:
    """Return 0 for nothing, 1 for less than one, 2 for one, 3 for 2 to 3, 4 for 4 to 7, and so on; 9 for 128 and more."""
    if size <= 0:
        return 0
    return 1 if size < 1 else min(9, int(size).bit_length() + 1)


def _size_name(rank: int) -> str:
    if rank < 3:
        return ("none", "part of one", "1")[rank]
    return "128 and more" if rank == 9 else f"{1 << rank - 2} to {(1 << rank - 1) - 1}"
