"""Where each session stands in the queue, and when it will start: the same plugins, let loose on the time to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Placement, make_plan
from backendai.sokovan.snapshot import Lease, Request, Snapshot
from backendai.sokovan.trial import thaw
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Attempt, Outcome, Scheduler

STEPS = 2000  # moments that are planned, at most
EXACT, ABOUT = 100, 0.01  # so many of them one by one; later ones are put together, as far as that is a hundredth of the time until then
SOON_S = 1.0  # who has had its usual time already ends within a moment


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a waiting session will start, seconds since the epoch; None where nobody can say.

    earliest: when others run for as long as they usually do. latest: when all of them use their time limits to the end. Whoever comes
    later and goes first may make it later still.
    """

    earliest: float | None = None
    latest: float | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """How long sessions run. share: what they use of their time limit, 0 to 1. open_s: how long those without one run, None for ever.

    runs: how many ended sessions that was seen in; 0 when nothing is known and *share* and *open_s* are for certain.
    """

    share: float = 1.0
    open_s: float | None = None
    runs: int = 0


def forecast(snapshot: Snapshot, scheduler: Scheduler, selector: AgentSelector, habits: Habits = Habits(),
             late: Callable[[], bool] = lambda: False, half: Callable[[], bool] | None = None, only: str = "") -> Mapping[str, Forecast]:
    """Return when each waiting session will start. late: tells that there is no more time; the rest is then left open.

    half: tells that half of the time is over, so that as much is left for the other of two futures. only: stop when this one starts.
    """
    alone = habits == Habits()
    surely = _starts(snapshot, scheduler, selector, Habits(), late if alone or half is None else half, only)
    usual = surely if alone else _starts(snapshot, scheduler, selector, habits, late, only)
    found = {}
    for id in snapshot.requests:
        early, last = usual.get(id), surely.get(id)
        if early is not None and last is not None and last < early:
            early, last = last, early  # more room sooner can change the order of things
        found[id] = Forecast(early if habits.runs or early == snapshot.view.now else None, last)
    return found


def ranks(snapshot: Snapshot, scheduler: Scheduler, late: Callable[[], bool] = lambda: False) -> tuple[str, ...]:
    """Return the waiting sessions in the order in which the scheduler would have them start, were there room for all.

    Those that it never names come last, in the order of asking.
    """
    waiting = {w.id for w in snapshot.view.waiting}
    found = {id: None for id in _named(snapshot, scheduler, late) if id in waiting}
    rest = sorted((request.submitted_at, id) for id, request in snapshot.requests.items() if id not in found)
    return (*found, *(id for _, id in rest))


def _named(snapshot: Snapshot, scheduler: Scheduler, late: Callable[[], bool]) -> list[str]:
    """Return whom the scheduler names, if everybody whom it names is placed."""
    found: list[str] = []
    try:
        talk = scheduler.attempts(snapshot.view)
        wish = next(talk, None)
        while wish is not None and not late():
            if isinstance(wish, Attempt):
                found.append(wish.session)
            wish = talk.send(Outcome.PLACED if isinstance(wish, Attempt) else Outcome.UNKNOWN)
    except StopIteration:
        return found
    except Exception:  # a plugin may raise anything, and the planner blames it for that; whom it named stands
        return found
    return found


def _starts(snapshot: Snapshot, scheduler: Scheduler, selector: AgentSelector, habits: Habits,
            late: Callable[[], bool], only: str) -> dict[str, float]:
    """Return when each session starts that does, if sessions run for as long as *habits* says."""
    now, cluster, left = snapshot.view.now, thaw(snapshot), dict(snapshot.requests)
    ends = [(end, lease.id) for lease in snapshot.leases.values() if (end := _end(lease, now, habits)) is not None]
    ends += [(at, "") for booking in snapshot.bookings for at in (booking.begins, booking.ends) if at > now]
    heapify(ends)
    starts: dict[str, float] = {}
    for step in range(STEPS):
        plan = make_plan(cluster.freeze(now), scheduler, selector, late)
        for placement in plan.placements:
            starts[placement.session] = now
            lease = _lease(left.pop(placement.session), placement, now, snapshot)
            cluster.hold(lease)
            if (end := _end(lease, now, habits)) is not None:
                heappush(ends, (end, lease.id))
        for id, agents in plan.claims.items():
            left[id] = replace(left[id], claim=agents)
            cluster.wait(left[id])
        for eviction in plan.evictions:
            heappush(ends, (now + max(SOON_S, snapshot.options.preemption.grace_s), eviction.victim))
        if not left or not ends or only in starts or plan.fault is not None or late():
            break
        now = _pass(cluster, ends, now, 0.0 if step < EXACT else (now - snapshot.view.now) * ABOUT)
    return starts


def _pass(cluster: Cluster, ends: list[tuple[float, str]], now: float, about: float) -> float:
    """Let time pass to the next end, and to those that follow within *about* seconds; return what time it is then."""
    until = max(now, ends[0][0]) + about
    while ends and ends[0][0] <= until:
        at, id = heappop(ends)
        now = max(now, at)
        cluster.release(id)
    return now


def _lease(request: Request, placement: Placement, now: float, snapshot: Snapshot) -> Lease:
    limit = None if request.time_limit_s is None else now + request.time_limit_s
    booked = [booking.ends for booking in snapshot.bookings if booking.id == request.booking]
    return Lease(request.id, request.user, request.project, request.domain, request.priority, now, request.kernels, placement.agents,
                 min([*booked, limit]) if limit is not None else min(booked, default=None), request.preemptible, placement.units,
                 request.booking, request.array)


def _end(lease: Lease, now: float, habits: Habits) -> float | None:
    """Return when a session will end that holds capacity *now*; None when nobody can say."""
    if lease.ends_by is None:
        return None if habits.open_s is None else max(now + SOON_S, lease.started_at + habits.open_s)
    whole = lease.ends_by - lease.started_at
    return max(now + SOON_S, min(lease.ends_by, lease.started_at + habits.share * whole))
