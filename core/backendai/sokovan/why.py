"""Why a session waits: where it stands, what blocks it, and what would let it start now, each of which was really tried.

Sentences name agents, and no session: whoever reads one may not be allowed to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.sokovan.cluster import needs
from backendai.sokovan.forecast import ranks
from backendai.sokovan.phrases import amount_of, listed, number
from backendai.sokovan.plan import Placement, Plan
from backendai.sokovan.remedies import Other, Remedy, remedies
from backendai.sokovan.snapshot import SESSIONS, Array, Quota, Request, Snapshot
from backendai.sokovan.trial import Trial
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler

NAMED = 3  # agents in one sentence
NEVER = ("Needs ", "Asks for more ", "No agent is as ")  # so a hold begins that nothing but another request or another agent ends


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that keeps a session from starting. kind: agents, wishes, slot, together, containers, room, quota, booking, turn,
    never or plugin.

    what: the slot, or what the quota limits. wanted: how much of it the session needs. most: the most that one agent has free, or
    what the quota allows. used: of the quota. short: on how many agents it does not suffice, of how many. Amounts in internal units.
    """

    kind: str
    text: str
    what: str = ""
    wanted: int = 0
    most: int = 0
    used: int = 0
    short: int = 0
    agents: int = 0


@dataclass(frozen=True, slots=True)
class Why:
    """A session's prospects. position: in the order of its group, from 1; None where it does not stand in it. waiting: how many do.

    placed: where it would start now, and then there are no blockers. hold: what the planner says.
    """

    position: int | None
    waiting: int
    hold: str
    placed: Placement | None = None
    blockers: tuple[Blocker, ...] = ()
    remedies: tuple[Remedy, ...] = ()


def explain(snapshot: Snapshot, request: Request, scheduler: Scheduler, selector: AgentSelector, others: Mapping[str, Other] | None = None,
            own: Mapping[str, str] | None = None, late: Callable[[], bool] = lambda: False) -> Why:
    """Explain one session, which waits in *snapshot*, or would be one more.

    others: resource groups that it could be in instead, by name. own: sessions that could be stopped for it, with what to call them.
    late: tells that there is no more time; what was found so far is returned.
    """
    trial = Trial(snapshot, scheduler, selector, late)
    moment, plan = trial.plan(request)
    placed = next((placement for placement in plan.placements if placement.session == request.id), None)
    going = {placement.session for placement in plan.placements if placement.session != request.id}
    order = [id for id in ranks(moment, scheduler, late) if id not in going]
    position = order.index(request.id) + 1 if request.id in order else None
    if placed is not None:
        return Why(position, len(order), "", placed)
    found = blockers(moment, plan, request, trial)
    return Why(position, len(order), plan.holds.get(request.id, ""), None, found, remedies(moment, plan, request, trial, others, own))


def blockers(snapshot: Snapshot, plan: Plan, request: Request, trial: Trial) -> tuple[Blocker, ...]:
    """Return what keeps a session from starting after *plan*, most of all first."""
    if plan.fault is not None and not trial.late():
        return (Blocker("plugin", plan.holds.get(request.id, "")),)
    hold = plan.holds.get(request.id, "")
    if hold.startswith(NEVER):
        return (Blocker("never", hold),)
    found = _quotas(snapshot, request)
    if not len(snapshot.names):
        idle = [f"{name} ({why.rstrip('.')})" for name, why in snapshot.idle]
        text = f"No agent can be used: {listed(_few(idle))}." if idle else "No agent is connected."
        return (*found, Blocker("agents", text))
    mask = eligible(snapshot, request)
    if not mask.all():
        names = [name for name, fits in zip(snapshot.names, mask.tolist(), strict=True) if fits]
        text = f"Where it wants to be leaves {len(names)} of {len(mask)} agents{f': {listed(_few(names))}' if names else ''}."
        found = (*found, Blocker("wishes", text, short=len(mask) - len(names), agents=len(mask)))
    if mask.any():
        room = _room(snapshot, plan, request, mask, trial)
        found = (*found, *(one for one in room if not found or one.kind not in ("room", "turn")))  # what is said is no reason twice
    return found


def eligible(snapshot: Snapshot, request: Request) -> NDArray[np.bool_]:
    """Return for each agent whether a session's strict wishes allow it."""
    wishes = request.wishes
    if not wishes.strict:
        return np.ones(len(snapshot.names), dtype=bool)
    return np.array([(not wishes.agents or name in wishes.agents) and name not in wishes.avoid and wishes.labels.items() <= labels.items()
                     for name, labels in zip(snapshot.names, snapshot.labels, strict=True)], dtype=bool)


def left_over(snapshot: Snapshot, plan: Plan) -> Array:
    """Return what is free once a plan's placements have taken theirs, [A, S]."""
    free = snapshot.free.copy()
    rows = {node.id: row for row, node in enumerate(snapshot.view.nodes)}
    for placement in plan.placements:
        for agent, kernel in zip(placement.agents, snapshot.requests[placement.session].kernels, strict=True):
            free[rows[agent]] -= [kernel.get(slot, 0) for slot in snapshot.view.slots]
    return np.maximum(free, 0)


def _quotas(snapshot: Snapshot, request: Request) -> tuple[Blocker, ...]:
    known = {(quota.scope, quota.scope_id, quota.what): quota for quota in snapshot.quotas}
    found = []
    for key, amount in needs(request, request.kernels):
        if (quota := known.get(key)) is not None and not quota.borrow and quota.used + amount > quota.limit:
            found.append(Blocker("quota", _quota(quota, amount), quota.what, amount, quota.limit, quota.used))
    return tuple(found)


def _quota(quota: Quota, amount: int) -> str:
    if quota.scope == "array":
        return f"At most {quota.limit} of its array may run at once, and {quota.used} do."
    if quota.what == SESSIONS:
        return f"Its {quota.scope} may have {quota.limit} sessions running at once, and has {quota.used}."
    limit, used = amount_of(quota.what, quota.limit), number(quota.what, quota.used)
    return f"Its {quota.scope} may use {limit} at once; {used} of that is taken, and it needs {number(quota.what, amount)}."


def _room(snapshot: Snapshot, plan: Plan, request: Request, mask: NDArray[np.bool_], trial: Trial) -> tuple[Blocker, ...]:
    """Say which slots are short on how many of the agents that it may use."""
    after, slots = left_over(snapshot, plan), snapshot.view.slots
    tables = np.array([[kernel.get(slot, 0) for slot in slots] for kernel in request.kernels], dtype=np.int64)
    largest = tables.max(axis=0)
    unknown = [slot for kernel in request.kernels for slot in kernel if slot not in slots]
    if unknown:
        return (Blocker("slot", f"No agent has {unknown[0]}.", unknown[0], short=int(mask.sum()), agents=int(mask.sum())),)
    free, names = after[mask], [name for name, fits in zip(snapshot.names, mask.tolist(), strict=True) if fits]
    short = (free < largest).sum(axis=0)
    rows = [(slot, int(largest[i]), int(free[:, i].max()), names[int(free[:, i].argmax())], int(short[i]))
            for i, slot in enumerate(slots) if largest[i]]
    hard = [row for row in rows if row[4] == len(names)]
    if hard:
        return tuple([Blocker("slot", _slot(*row, len(names)), row[0], row[1], row[2], short=row[4], agents=len(names)) for row in hard])
    if not (free >= largest).all(axis=1).any():
        first, *more = [(amount_of(row[0], row[1]), row[4]) for row in rows if row[4]]
        lacking = [f"{first[0]} are lacking on {first[1]} of {len(names)}", *(f"{wanted} on {count}" for wanted, count in more)]
        text = f"No agent has all of it free at once: {listed(lacking)}."
        return (Blocker("together", text, agents=len(names)),)
    return _order(snapshot, plan, request, free, tables, trial)


def _order(snapshot: Snapshot, plan: Plan, request: Request, free: Array, tables: Array, trial: Trial) -> tuple[Blocker, ...]:
    """Say what keeps a session from room that is there."""
    count = len(tables)
    if count > 1 and (room := _fitting(free, tables)) < count:
        return (Blocker("containers", f"There is room for {room} of its {count} containers now; they start together.", "containers",
                        count, room),)
    now = snapshot.view.now
    end = float("inf") if request.time_limit_s is None else now + request.time_limit_s
    kept = any(b.begins < end and b.ends > now and b.id != request.booking for b in snapshot.bookings)
    if kept and trial.start(request, bookings=False) is not None:
        more = " It has no time limit, so nobody knows whether it would be gone by then." if end == float("inf") else ""
        return (Blocker("booking", f"An advance reservation keeps the agents with room for it.{more}"),)
    hold = plan.holds.get(request.id, "")
    if hold and not hold.startswith("Waits for its turn"):
        return (Blocker("booking" if request.booking else "room", hold),)
    return (Blocker("turn", "There is room for it, and that is kept for sessions ahead of it in the queue."),)


def _fitting(free: Array, tables: Array) -> int:
    """Return how many kernels find room one after the other, each where least is left; a count that a better order may beat."""
    free, count = free.copy(), 0
    for row in tables:
        fits = np.flatnonzero((free >= row).all(axis=1))
        if len(fits):
            at = fits[int((free[fits] - row).sum(axis=1).argmin())]
            free[at] -= row
            count += 1
    return count


def _slot(slot: str, wanted: int, most: int, name: str, short: int, agents: int) -> str:
    free = f"the most that one has free is {number(slot, most)} (agent {name})" if most else "none has any free"
    if agents == 1:
        free = number(slot, most) if most else "none"
        return f"It needs {amount_of(slot, wanted)}, and {name}, the only agent that it may use, has {free} free."
    return f"It needs {amount_of(slot, wanted)} on one agent; none of {agents} has so much free: {free}."


def _few(words: list[str]) -> list[str]:
    return words if len(words) <= NAMED + 1 else [*words[:NAMED], f"{len(words) - NAMED} more"]
