"""What would let a session start now: small changes, each tried on the frozen moment before it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backendai.model.session import Wishes, Zone
from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.model.units import format_seconds
from backendai.sokovan.phrases import amount_of, listed, number
from backendai.sokovan.plan import Plan
from backendai.sokovan.snapshot import PLAIN, Request, Snapshot
from backendai.sokovan.trial import Trial
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler

LIMITS = 4  # time limits that are tried
STOPS = 6  # of one's own sessions that are tried
STEPS = ((1 << 40, 1 << 30), (1 << 30, 1 << 28), (1 << 26, 1 << 24))  # of bytes: from so many on, in steps of so many


@dataclass(frozen=True, slots=True)
class Other:
    """Another resource group at the same moment."""

    snapshot: Snapshot
    scheduler: Scheduler
    selector: AgentSelector


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change with which a session would start now. text: continues "It would start now ...".

    kind: slots, containers, limit, wishes, group or stop. change: what to ask for instead; amounts in internal units.
    """

    kind: str
    text: str
    change: Mapping[str, Any] = field(default_factory=dict)


def remedies(snapshot: Snapshot, plan: Plan, request: Request, trial: Trial, others: Mapping[str, Other] | None = None,
             own: Mapping[str, str] | None = None) -> tuple[Remedy, ...]:
    """Return changes that would let *request* start now, each of them alone.

    snapshot: the moment with it in the queue. others, own: as for ``why.explain``.
    """
    found = _less(snapshot, request, trial)
    found += [remedy for remedy in (_fewer(request, trial), _shorter(snapshot, plan, request, trial)) if remedy is not None]
    found += _unwished(request, trial)
    found += [Remedy("group", f"in the group {name}", {"group": name}) for name, other in (others or {}).items()
              if Trial(other.snapshot, other.scheduler, other.selector, trial.late).start(replace(request, booking="", claim=()))]
    return (*found, *_stops(snapshot, request, trial, own or {}))


def _less(snapshot: Snapshot, request: Request, trial: Trial) -> list[Remedy]:
    """Find how much less of each slot alone would do, else of all that are short on the agent that comes nearest."""
    most = _most(request)
    found = [remedy for name in most if (remedy := _less_of(name, most[name], snapshot, request, trial)) is not None]
    alike = all(kernel == request.kernels[0] for kernel in request.kernels)
    if not found and alike and len(most) > 1 and (change := _nearest(snapshot, request, trial)):
        text = f"with {listed(amount_of(name, amount) for name, amount in change.items())} instead of " \
               f"{listed(number(name, most[name]) for name in change)}"
        return [Remedy("slots", text, {"slots": change})]
    return found


def _less_of(name: str, wanted: int, snapshot: Snapshot, request: Request, trial: Trial) -> Remedy | None:
    if name not in snapshot.view.slots:
        return None
    column = snapshot.free[:, snapshot.view.slots.index(name)]
    amounts = {_rounded(name, amount) for amount in (*np.unique(column).tolist(), wanted * 3 // 4, wanted // 2, wanted // 4)}
    amount = _largest(sorted(amount for amount in amounts if 0 < amount < wanted),
                      lambda amount: trial.start(_with(request, {name: amount})) is not None)
    if amount is None:
        return None
    return Remedy("slots", f"with {amount_of(name, amount)} instead of {number(name, wanted)}", {"slots": {name: amount}})


def _nearest(snapshot: Snapshot, request: Request, trial: Trial) -> dict[str, int]:
    """Return what the agent that lacks least has free of each slot that is short there; nothing when that does not help."""
    names = [name for name in request.kernels[0] if name in snapshot.view.slots]
    wanted = np.array([max(1, request.kernels[0][name]) for name in names], dtype=np.int64)
    free = snapshot.free[:, [snapshot.view.slots.index(name) for name in names]]
    if not len(free):
        return {}
    row = free[int(np.minimum(1.0, free / wanted).prod(axis=1).argmax())].tolist()
    change = {name: _rounded(name, have) for name, have, want in zip(names, row, wanted.tolist(), strict=True) if have < want}
    helps = bool(change) and all(change.values()) and trial.start(_with(request, change)) is not None
    return change if helps else {}


def _fewer(request: Request, trial: Trial) -> Remedy | None:
    """Find how many of its kernels would find room."""
    counts = list(range(1, len(request.kernels)))
    found = _largest(counts, lambda count: trial.start(replace(request, kernels=request.kernels[:count], claim=())) is not None)
    if found is None:
        return None
    text = f"with {found} container{'' if found == 1 else 's'} instead of {len(request.kernels)}"
    return Remedy("containers", text, {"containers": found})


def _shorter(snapshot: Snapshot, plan: Plan, request: Request, trial: Trial) -> Remedy | None:
    """Find a time limit by which it would be gone before somebody needs the room."""
    now = snapshot.view.now
    moments = {*plan.starts.values(), *(booking.begins for booking in snapshot.bookings)}
    limits = sorted({(at - now) // 60 * 60 for at in moments if at - now >= 60}, reverse=True)
    limits = [limit for limit in limits if request.time_limit_s is None or limit < request.time_limit_s]
    for limit in limits[:LIMITS]:
        if trial.start(replace(request, time_limit_s=limit)) is not None:
            instead = "" if request.time_limit_s is None else f" instead of {format_seconds(request.time_limit_s)}"
            return Remedy("limit", f"with a time limit of {format_seconds(limit)}{instead}", {"time_limit_s": limit})
    return None


def _unwished(request: Request, trial: Trial) -> list[Remedy]:
    """Find which of its wishes to give up, one by one, else all of them."""
    if request.wishes == PLAIN:
        return []
    found = [Remedy("wishes", f"without {said}", {"without": name}) for name, said, wishes in _given_up(request.wishes)
             if trial.start(replace(request, wishes=wishes)) is not None]
    if not found and trial.start(replace(request, wishes=PLAIN)) is not None:
        return [Remedy("wishes", "without any wish for where to be", {"without": "wishes"})]
    return found


def _given_up(wishes: Wishes) -> Iterator[tuple[str, str, Wishes]]:
    """Yield each wish by its name and in words, with the wishes that are left without it."""
    if wishes.agents:
        yield "agents", f"asking for {listed(wishes.agents, 'or')}", replace(wishes, agents=())
    if wishes.avoid:
        yield "avoid", f"avoiding {listed(wishes.avoid)}", replace(wishes, avoid=())
    for name, value in wishes.labels.items():
        rest = {key: each for key, each in wishes.labels.items() if key != name}
        yield f"label {name}", f"asking for the label {name}={value}", replace(wishes, labels=rest)
    if wishes.arrange is not None:
        yield "arrange", f"asking to {wishes.arrange.value} its containers", replace(wishes, arrange=None)
    if wishes.zone is not None:
        said = "one failure domain" if wishes.zone is Zone.SAME else "different failure domains"
        yield "zone", f"asking for {said}", replace(wishes, zone=None)
    if wishes.one_agent:
        yield "one_agent", "asking for one agent for all its containers", replace(wishes, one_agent=False)


def _stops(snapshot: Snapshot, request: Request, trial: Trial, own: Mapping[str, str]) -> list[Remedy]:
    """Find which sessions to stop: single ones, those idle for longest first; else as many as it takes."""
    mine = [snapshot.leases[id] for id in own if id in snapshot.leases and id != request.id]
    mine.sort(key=lambda lease: (-(lease.idle_s or 0.0), -lease.started_at, lease.id))
    mine = mine[:STOPS]

    def said(count: int, names: Sequence[str]) -> str:
        return f"if the session{'' if count == 1 else 's'} {listed(names)} were stopped"

    def named(id: str) -> str:
        idle = snapshot.leases[id].idle_s
        return own[id] if not idle or idle < 60 else f"{own[id]}, idle for {format_seconds(idle)},"

    found = [Remedy("stop", said(1, [named(lease.id)]), {"stop": (lease.id,)}) for lease in mine
             if trial.start(request, without=(lease.id,)) is not None]
    for count in range(2, len(mine) + 1 if not found else 0):
        ids = tuple(lease.id for lease in mine[:count])
        if trial.start(request, without=ids) is not None:
            return [Remedy("stop", said(count, [own[id] for id in ids]), {"stop": ids})]
    return found


def _with(request: Request, change: Mapping[str, int]) -> Request:
    kernels = tuple([{**kernel, **{name: min(kernel[name], amount) for name, amount in change.items() if name in kernel}}
                     for kernel in request.kernels])
    return replace(request, kernels=kernels, claim=())


def _largest(amounts: Sequence[int], starts: Callable[[int], bool]) -> int | None:
    """Return the largest amount with which it starts, taking it that less is never worse; None where the smallest does not help."""
    if not amounts or not starts(amounts[0]):
        return None
    low, high = 0, len(amounts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if starts(amounts[middle]) else (low, middle - 1)
    return amounts[low]


def _most(request: Request) -> dict[str, int]:
    """Return the most that a kernel of a session needs of each slot."""
    most: dict[str, int] = {}
    for kernel in request.kernels:
        for name, amount in kernel.items():
            most[name] = max(amount, most.get(name, 0))
    return {name: amount for name, amount in most.items() if amount}


def _rounded(name: str, amount: int) -> int:
    """Return an amount as one would ask for it: no more than this, and no odd bytes or thousandths."""
    if kind_of(name) is SlotKind.BYTES:
        step = next((step for least, step in STEPS if amount >= least), 1 << 20)
        return amount // step * step
    return amount // SCALE * SCALE if amount >= SCALE else amount // 100 * 100
