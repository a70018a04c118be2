"""How a session ends, and whether that is the end: pure functions over what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backendai.manager.held import Held, Kernel
from backendai.model.session import DEADLINES, Evicted, Result, SessionState, SessionType, result_of
from backendai.model.slots import format_slots
from backendai.model.units import format_bytes, format_seconds
from backendai.wire.link import Observed

S = SessionState
STOPPED = "It was stopped by its owner."
LATE = "Its agent began it only when it was being called back, and so ended it; ask for it again."
MADE_ROOM = "It made room for more urgent work."
LOST = "lost"  # a kernel's state when nobody will ever say what became of it
_SHELL = {126: ": most likely its program cannot be run", 127: ": most likely there is no such program"}  # what shells mean by them
Verdict = tuple[SessionState, Result | None, str]
Fresh = Callable[[], str]  # makes an id


def verdict(held: Held, one: Kernel, seen: Observed) -> Verdict:
    """Say how a session ended whose kernel *one* did: final state, result, reason; the reason is empty when there is nothing to say."""
    ran = held.started_at is not None
    if seen.exit_code is None or seen.error:
        if held.stop and not ran:
            return _stopped(held, ran)
        if seen.error:
            return S.FAILED, Result.FAILURE, named(held, one, seen.error)
        if held.stop or held.evict:
            return _stopped(held, ran)
        if seen.why not in ("time-limit", "stopped"):
            return S.FAILED, Result.FAILURE, named(held, one, "Its agent ended it without saying why.")
    if seen.why == "stopped":
        return _stopped(held, True) if held.stop or held.evict else (S.FAILED, Result.FAILURE, named(held, one, LATE))
    if seen.why == "time-limit":
        return S.TERMINATED, _regular(held), f"It reached its time limit of {format_seconds(held.asked.time_limit_s or 0)}."
    assert seen.exit_code is not None  # settled above
    said = _by_itself(held, one, seen.exit_code, seen.why)
    if one is not held.main:
        return S.FAILED, Result.FAILURE, named(held, one, said)
    return S.TERMINATED, result_of(seen.exit_code), said


def fails(seen: Observed) -> bool:
    """Tell whether a kernel that is not the main one takes its session with it."""
    return bool(seen.error or seen.why or seen.exit_code != 0)


def named(held: Held, one: Kernel, said: str) -> str:
    """Say which kernel a sentence is about, where there are several."""
    return said if len(held.kernels) == 1 else f"{one.name}: {said}"


def by_record(held: Held, said: str) -> Verdict:
    """Say how a session ended by what was written down while it did. said: the reason where nothing was."""
    if held.result is None:
        return _stopped(held, held.started_at is not None) if held.stop or held.evict else (S.FAILED, Result.FAILURE, held.reason or said)
    wished = bool(held.stop or held.evict) and held.reason == _stopped(held, True)[2]
    if held.exit_code is None and held.result == Result.FAILURE and not wished:
        return S.FAILED, Result.FAILURE, held.reason or said
    return S.TERMINATED, Result(held.result), held.reason


def conclude(held: Held, how: Verdict, fresh: Fresh, now: float) -> Held:
    """Let a session end of which no kernel is left, or return it to the queue where its owner wants that."""
    state, result, reason = how
    if held.stop or state is S.CANCELLED:
        return final(held, state, result, reason, now)
    if held.evict:
        return _evicted(held, how, fresh, now)
    retry = held.asked.retry
    if result is Result.FAILURE and held.type == SessionType.BATCH and held.retried < retry.count and _worth_it(held):
        pause = retry.backoff_s * 2.0 ** held.retried
        said = f"Attempt {held.attempt} failed: {reason} It is tried again in {format_seconds(pause)}."
        return replace(requeue(held, said, fresh, now), retried=held.retried + 1, not_before=now + pause)
    return final(held, state, result, reason, now)


def _evicted(held: Held, how: Verdict, fresh: Fresh, now: float) -> Held:
    """Follow what was wished for one that made room. What ended by itself meanwhile has its own result."""
    why = held.stop_why or MADE_ROOM
    if how[2] != why:
        return final(held, *how, now)
    if held.evict == Evicted.REQUEUE:
        return requeue(held, f"{why} It is back in the queue.", fresh, now)
    return final(held, *how, now)


def _worth_it(held: Held) -> bool:
    """Tell whether a failure is worth another attempt. Reaching a time limit is not: it would be reached again."""
    if any(kernel.state == LOST for kernel in held.kernels):
        return True
    codes = held.asked.retry.exit_codes
    if not codes:
        return not held.reason.startswith("It reached its time limit")
    return any(kernel.exit_code in codes for kernel in held.kernels)


def requeue(held: Held, reason: str, fresh: Fresh, now: float) -> Held:
    """Return a session to the queue for another attempt, with new kernels. It keeps its place: the time of its submission."""
    return replace(
        held, state=S.PENDING, deadline=None, result=None, exit_code=None, reason=reason, hold="", agent_id=None, image=None,
        started_at=None, ended_at=None, evict="", stop_why="", grace_s=None, claim="", net="", expires_at=None, attempt=held.attempt + 1,
        past=tuple(replace(kernel, holds=False) for kernel in held.kernels),
        kernels=tuple(_anew(kernel, fresh(), held.attempt + 1) for kernel in held.kernels))


def again(held: Held, fresh: Fresh) -> Held:
    """Put what was never begun back into the queue; its kernels get other ids, so that a late word about them is nobody's."""
    said = f"Its agent did not begin within {format_seconds(DEADLINES[S.SCHEDULED])}; it is back in the queue."
    return replace(held, state=S.PENDING, deadline=None, reason=said, agent_id=None, image=None, net="",
                   kernels=tuple(_anew(kernel, fresh(), kernel.attempt) for kernel in held.kernels))


def _anew(kernel: Kernel, id: str, attempt: int) -> Kernel:
    return replace(kernel, id=id, agent=None, holds=False, state="", exit_code=None, container="", units="{}", attempt=attempt)


def final(held: Held, state: SessionState, result: Result | str | None, reason: str, now: float) -> Held:
    """Let it end. Whatever of it is left somewhere is no longer wanted."""
    return replace(held, state=state, result=result, reason=reason, hold="", deadline=None, claim="", expires_at=None,
                   ended_at=end_of(held, held.ended_at or now), kernels=tuple(replace(kernel, holds=False) for kernel in held.kernels))


def end_of(held: Held, at: float) -> float:
    """Return when it ended, never before it began: the two times may come from two clocks."""
    return at if held.started_at is None else max(at, held.started_at)


def never_ran(held: Held) -> str:
    """Say why what was stopped before it ran did."""
    return f"{(held.stop_why or STOPPED).removesuffix('.')} before it ran."


def _stopped(held: Held, ran: bool) -> Verdict:
    if held.evict and not held.stop:
        return S.TERMINATED, _regular(held), held.stop_why or MADE_ROOM
    if not ran:
        return S.CANCELLED, None, never_ran(held)
    return S.TERMINATED, _regular(held), held.stop_why or STOPPED


def _regular(held: Held) -> Result:
    """Return the result of a session that somebody or a rule ended: what was only to be there has been."""
    return Result.SUCCESS if held.type == SessionType.INTERACTIVE else Result.FAILURE


def _by_itself(held: Held, one: Kernel, exit_code: int, why: str) -> str:
    if exit_code == 0:
        return ""
    if why == "out-of-memory":
        memory = one.amounts.get("mem", 0)
        return f"It ran out of memory ({format_bytes(memory)}); ask for more with -r {format_slots({'mem': memory * 2})}."
    what = "The command" if held.type == SessionType.BATCH else "Its main process"
    return f"{what} ended with {exit_code}{_SHELL.get(exit_code, '')}."
