"""The life of a session as a pure state machine: what is known, and what happened, give what is to be written.

A session is what its kernels are together: as far as the slowest of them; RUNNING when all run. The end of the main kernel is its
end; another one that fails ends it, too; then the rest are stopped, and it has ended when nothing is left of any of them.

Each function returns the session as it shall be, or None when nothing changes: a repeated or late word does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import msgspec

from backendai.manager.ending import (
    LATE,
    LOST,
    Fresh,
    again,
    by_record,
    conclude,
    end_of,
    fails,
    final,
    named,
    never_ran,
    verdict,
)
from backendai.manager.held import OVER, Held, Kernel
from backendai.model.session import DEADLINES, FINAL, PLACED, Evicted, Result, SessionState
from backendai.model.units import format_seconds
from backendai.wire.link import KernelState, Observed

S = SessionState
BOOTSTRAP_S = 600.0  # that a bootstrap script may take besides making the container
LIMIT_S = 30.0  # after which the manager ends what its agent should have ended at its time limit
_ORDER = (S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING, S.TERMINATING)
_REACHED: Mapping[str, SessionState] = {
    KernelState.PREPARING: S.PREPARING, KernelState.STARTING: S.STARTING, KernelState.RUNNING: S.RUNNING, KernelState.EXITED: S.RUNNING,
    KernelState.GONE: S.RUNNING}  # of the last two: another than the main one may end well before the others do
_TOO_LONG = {S.PREPARING: "Fetching its image", S.STARTING: "Making its container"}
_STATES = tuple(KernelState)


def place(held: Held, agents: Sequence[str], now: float, units: Sequence[Mapping[str, Mapping[str, int]]] = (), net: str = "") -> Held:
    """Give a waiting session to agents, one for each of its kernels. units: what each has of which device. net: its network's plan."""
    given = tuple(units) or ({},) * len(agents)
    kernels = tuple(replace(kernel, agent=agent, holds=True, state="", units=msgspec.json.encode(some).decode())
                    for kernel, agent, some in zip(held.kernels, agents, given, strict=True))
    return replace(held, state=S.SCHEDULED, deadline=now + DEADLINES[S.SCHEDULED], hold="", reason="", agent_id=agents[0],
                   claim="", net=net, kernels=kernels)


def report(held: Held, kernel: str, seen: Observed, fresh: Fresh, now: float) -> Held | None:
    """Take in what an agent says of a kernel. States may be skipped, and never go back. fresh: makes ids for another try."""
    one = held.kernel(kernel)
    if held.state not in PLACED or one is None or not one.holds:
        return None
    over, gone = seen.state in OVER, seen.state is KernelState.GONE
    exit_code = seen.exit_code if seen.exit_code is not None else one.exit_code
    after = replace(one, state=_later(one.state, seen.state), container=seen.container or one.container,
                    exit_code=exit_code if over else one.exit_code, holds=not gone)
    known = _begun(held.with_kernel(after), after, seen, now)
    if over and one.state != KernelState.EXITED:
        known = _over(known, after, seen, now)
    if gone and not known.holds:
        return _finished(known, fresh, now)
    known = _advance(known, now)
    return None if known == held else known


def refuse(held: Held, said: str, now: float) -> Held | None:
    """Fail a waiting session that a plugin does not let begin. said: the plugin's reason."""
    return final(held, S.FAILED, Result.FAILURE, said, now) if held.state == S.PENDING else None


def cancel(held: Held, said: str, now: float) -> Held | None:
    """End a waiting session whose condition can no longer come true."""
    return final(held, S.CANCELLED, None, said, now) if held.state == S.PENDING else None


def stop(held: Held, now: float) -> Held | None:
    """Follow the wish to end it."""
    if held.state == S.PENDING:
        return final(held, S.CANCELLED, None, never_ran(held), now)
    return _ending(held, now)


def evict(held: Held, how: Evicted, grace_s: float, now: float, why: str = "") -> Held | None:
    """Have it make room. grace_s: from SIGTERM to SIGKILL, at most what was asked for. why: a sentence, where it is not for others."""
    return _ending(replace(held, evict=how.value, grace_s=min(held.grace, grace_s), stop_why=why), now)


def overdue(held: Held, present: Collection[str], fresh: Fresh, now: float) -> Held | None:
    """Act on a state that has lasted too long. present: agents that are connected. fresh: makes ids for another try."""
    if held.deadline is None or held.deadline > now:
        return None
    if any(kernel.agent not in present for kernel in held.holding):
        # nobody can say how far it is, and a command is run at most once: wait until the agent is back or lost
        return replace(held, deadline=now + _lasts(held, S(held.state)))
    if held.state == S.SCHEDULED:
        return _slow(held, fresh, now)
    if (doing := _TOO_LONG.get(S(held.state))) is not None:
        slowest = min(held.kernels, key=_progress)
        said = named(held, slowest, f"{doing} took longer than {format_seconds(_lasts(held, S(held.state)))}.")
        return _doom(held, said, now)
    if held.state == S.TERMINATING:
        return conclude(held, by_record(held, "Its agent did not say in time how it ended."), fresh, now)
    return None


def outlived(held: Held, now: float) -> Held | None:
    """End what runs on although its time is up, and its agent did not."""
    limit = held.asked.time_limit_s
    if limit is None or held.started_at is None or held.stop or held.started_at + limit + LIMIT_S > now:
        return None
    return _ending(replace(held, stop=True, stop_why=f"It reached its time limit of {format_seconds(limit)}."), now)


def lose(held: Held, kernels: Collection[str], said: str, fresh: Fresh, now: float) -> Held | None:
    """End a session some of whose kernels (ids) will not come back. said: the reason."""
    lost = [kernel for kernel in held.holding if kernel.id in kernels]
    if held.state not in PLACED or not lost:
        return None
    harmed = [kernel for kernel in lost if kernel.state != KernelState.EXITED]
    after = held
    for kernel in lost:
        after = after.with_kernel(replace(kernel, holds=False, state=LOST if kernel in harmed else kernel.state))
    if held.state == S.TERMINATING:
        return after if after.holds else conclude(after, by_record(held, said), fresh, now)
    if not harmed:
        return after
    why = named(held, harmed[0], said)
    return _doom(after, why, now) if after.holds else conclude(after, (S.FAILED, Result.FAILURE, why), fresh, now)


def ended(held: Held) -> bool:
    """Tell whether nothing more will happen to it."""
    return held.state in FINAL


def _ending(held: Held, now: float) -> Held | None:
    if held.state not in PLACED or held.state == S.TERMINATING:
        return None
    return replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING] + held.grace)


def _doom(held: Held, said: str, now: float) -> Held:
    """Have a session that has failed end everywhere."""
    grace = held.grace if len(held.kernels) > 1 else 0.0
    return replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING] + grace, result=Result.FAILURE, exit_code=None,
                   reason=said)


def _begun(held: Held, one: Kernel, seen: Observed, now: float) -> Held:
    """Note when the first of its kernels began, until when it may run, and which image it has."""
    started = held.started_at if held.started_at is not None else seen.started_at
    if seen.state is KernelState.RUNNING and started is None:
        started = now
    known = replace(held, started_at=started, image=seen.image or held.image if one.id == held.main.id else held.image)
    if started is not None and held.started_at is None and (limit := held.asked.time_limit_s) is not None:
        known = replace(known, expires_at=min(started + limit, held.expires_at or started + limit))
    return known


def _over(held: Held, one: Kernel, seen: Observed, now: float) -> Held:
    """Record what the end of a kernel means for its session; what it used is still being removed."""
    main = one.id == held.main.id
    unused = held.started_at is None and seen.exit_code is None and not seen.error
    if held.recalled and not held.stop and unused and seen.state is KernelState.GONE:
        return held  # given back
    if main:
        held = replace(held, ended_at=end_of(held, seen.ended_at or now))
    if held.doomed or (held.state == S.TERMINATING and (held.result is not None or not main)) or not (main or fails(seen)):
        return held
    if one.exit_code is not None and seen.exit_code is None:
        seen = msgspec.structs.replace(seen, exit_code=one.exit_code)
    state, result, reason = verdict(held, one, seen)
    grace = held.grace if len(held.kernels) > 1 else 0.0  # the others are stopped, with theirs
    return replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING] + grace, result=result, reason=reason,
                   exit_code=seen.exit_code if state is S.TERMINATED else None)


def _finished(held: Held, fresh: Fresh, now: float) -> Held:
    """Finish: nothing is left of any kernel but its log."""
    if held.state == S.TERMINATING:
        return conclude(held, by_record(held, "Its agent ended it without saying why."), fresh, now)
    if held.started_at is None and not held.stop:
        return again(held, fresh)
    return conclude(held, (S.FAILED, Result.FAILURE, LATE), fresh, now)


def _lasts(held: Held, state: SessionState) -> float:
    """Return how many seconds a state may last."""
    return DEADLINES[state] + (BOOTSTRAP_S if state is S.STARTING and held.asked.bootstrap else 0.0)


def _advance(held: Held, now: float) -> Held:
    """Bring a session as far as the slowest of its kernels is."""
    if held.state == S.TERMINATING or held.recalled:
        return held
    reached = min((_REACHED.get(kernel.state, S.SCHEDULED) for kernel in held.kernels), key=_ORDER.index)
    if _ORDER.index(reached) <= _ORDER.index(S(held.state)):
        return held
    return replace(held, state=reached, deadline=now + _lasts(held, reached) if reached in DEADLINES else None)


def _slow(held: Held, fresh: Fresh, now: float) -> Held:
    """Call back what its agents have not begun, and do without an answer when that does not come."""
    within = format_seconds(DEADLINES[S.SCHEDULED])
    if not held.recalled:
        if held.started_at is not None:  # of a cluster: what has begun is not begun again
            late = min(held.kernels, key=_progress)
            return _doom(held, f"{late.name}: Its agent has not begun within {within}, so all were ended.", now)
        return replace(held, deadline=now + DEADLINES[S.SCHEDULED], reason=f"Its agent has not begun within {within}; it is called back.")
    if held.started_at is None and not any(kernel.state for kernel in held.holding):  # agents that never said that they have it
        return again(held, fresh)
    said = "Its agent has neither begun nor given it back; ask for it again."
    return conclude(held, (S.FAILED, Result.FAILURE, said), fresh, now)


def _progress(kernel: Kernel) -> int:
    return _STATES.index(KernelState(kernel.state)) if kernel.state and kernel.state != LOST else -1


def _later(known: str, seen: KernelState) -> str:
    return seen if not known or _STATES.index(seen) > _STATES.index(KernelState(known)) else known
