"""The life of a session as a pure state machine: what is known, and what happened, give what is to be written.

Each function returns the session as it shall be, or None when nothing changes: a repeated or late word does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from backendai.model.session import DEADLINES, FINAL, PLACED, Result, SessionSpec, SessionState, SessionType, result_of
from backendai.model.slots import format_slots
from backendai.model.units import format_bytes, format_seconds
from backendai.wire.link import KernelState, Observed

S = SessionState
STOPPED = "It was stopped by its owner."
NEVER_RAN = "It was stopped by its owner before it ran."
LATE = "Its agent began it only when it was being called back, and so ended it; ask for it again."
_ORDER = (S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING, S.TERMINATING)
_REACHED = {KernelState.PREPARING: S.PREPARING, KernelState.STARTING: S.STARTING, KernelState.RUNNING: S.RUNNING}
_TOO_LONG = {S.PREPARING: "Fetching its image", S.STARTING: "Making its container"}
_SHELL = {126: ": most likely its program cannot be run", 127: ": most likely there is no such program"}  # what shells mean by them
_spec_decoder = msgspec.json.Decoder(SessionSpec)
_slots_decoder = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Held:
    """A session with its one kernel, as the tables hold them. spec, slots: JSON text."""

    id: str
    name: str
    owner_id: str
    type: str
    spec: str
    priority: int
    state: str
    deadline: float | None
    stop: bool
    result: str | None
    exit_code: int | None
    reason: str
    hold: str
    agent_id: str | None
    image: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    kernel: str
    slots: str
    kernel_agent: str | None
    holds: bool
    kernel_state: str
    kernel_exit: int | None
    container: str
    uid: int
    gid: int

    @property
    def asked(self) -> SessionSpec:
        """Return what its owner asked for."""
        return _spec_decoder.decode(self.spec)

    @property
    def amounts(self) -> dict[str, int]:
        """Return what its kernel takes, by slot."""
        return _slots_decoder.decode(self.slots)

    @property
    def doomed(self) -> bool:
        """Tell whether it is being ended because it failed; the reason is recorded already."""
        return self.state == S.TERMINATING and self.result == Result.FAILURE and self.exit_code is None

    @property
    def recalled(self) -> bool:
        """Tell whether its agent, which has not begun, is to give it back: a command is run at most once, so only then another may."""
        return self.state == S.SCHEDULED and bool(self.reason)


def place(held: Held, agent_id: str, now: float) -> Held:
    """Give a waiting session to an agent."""
    return replace(held, state=S.SCHEDULED, deadline=now + DEADLINES[S.SCHEDULED], hold="", reason="", agent_id=agent_id,
                   kernel_agent=agent_id, holds=True, kernel_state="")


def report(held: Held, seen: Observed, new_kernel: str, now: float) -> Held | None:
    """Take in what an agent says of the kernel. States may be skipped, and never go back. new_kernel: an id for another try."""
    if held.state not in PLACED or not held.holds:
        return None
    started = held.started_at if held.started_at is not None else seen.started_at
    if seen.state is KernelState.RUNNING and started is None:
        started = now
    known = replace(held, kernel_state=_later(held.kernel_state, seen.state), container=seen.container or held.container,
                    image=seen.image or held.image, started_at=started)
    if seen.state is KernelState.GONE:
        given_back = held.recalled and not held.stop and started is None and seen.exit_code is None and not seen.error
        return _again(known, new_kernel) if given_back else _gone(known, seen, now)
    if seen.state is KernelState.EXITED:
        if held.kernel_state != KernelState.EXITED:
            known = _exited(known, seen, now)
    elif not held.recalled and (reached := _REACHED.get(seen.state)) is not None and _ORDER.index(reached) > _ORDER.index(S(held.state)):
        known = replace(known, state=reached, deadline=now + DEADLINES[reached] if reached in DEADLINES else None)
    return None if known == held else known


def refuse(held: Held, said: str, now: float) -> Held | None:
    """Fail a waiting session that a plugin does not let begin. said: the plugin's reason."""
    return _final(held, S.FAILED, Result.FAILURE, said, now) if held.state == S.PENDING else None


def stop(held: Held, now: float) -> Held | None:
    """Follow its owner's wish to end it."""
    if held.state == S.PENDING:
        return _final(held, S.CANCELLED, None, NEVER_RAN, now)
    if held.state not in PLACED or held.state == S.TERMINATING:
        return None
    return replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING] + held.asked.grace_s)


def overdue(held: Held, present: bool, new_kernel: str, now: float) -> Held | None:
    """Act on a state that has lasted too long. present: its agent is connected. new_kernel: an id for another try."""
    if held.deadline is None or held.deadline > now:
        return None
    if not present:  # nobody can say how far it is, and a command is run at most once: wait until the agent is back or lost
        return replace(held, deadline=now + DEADLINES[S(held.state)])
    if held.state == S.SCHEDULED:
        return _slow(held, new_kernel, now)
    if (doing := _TOO_LONG.get(S(held.state))) is not None:
        said = f"{doing} took longer than {format_seconds(DEADLINES[S(held.state)])}."
        return replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING], result=Result.FAILURE, reason=said)
    return _unconfirmed(held, "Its agent did not say in time how it ended.", now) if held.state == S.TERMINATING else None


def _slow(held: Held, new_kernel: str, now: float) -> Held:
    """Call back what its agent has not begun, and do without an answer when that does not come."""
    if not held.recalled:
        said = f"Its agent has not begun within {format_seconds(DEADLINES[S.SCHEDULED])}; it is called back."
        return replace(held, deadline=now + DEADLINES[S.SCHEDULED], reason=said)
    if not held.kernel_state:  # an agent that never said that it has it
        return _again(held, new_kernel)
    return _final(held, S.FAILED, Result.FAILURE, "Its agent has neither begun nor given it back; ask for it again.", now)


def _again(held: Held, new_kernel: str) -> Held:
    """Put it back into the queue."""
    said = f"Its agent did not begin within {format_seconds(DEADLINES[S.SCHEDULED])}; it is back in the queue."
    return replace(held, state=S.PENDING, deadline=None, reason=said, agent_id=None, kernel=new_kernel, kernel_agent=None,
                   holds=False, kernel_state="", container="", image=None)


def lose(held: Held, said: str, now: float) -> Held | None:
    """End what an agent held that will not come back. said: the reason."""
    if held.state not in PLACED or not held.holds:
        return None
    if held.state == S.TERMINATING:
        return _unconfirmed(held, said, now)
    return _final(held, S.FAILED, Result.FAILURE, said, now)


def ended(held: Held) -> bool:
    """Tell whether nothing more will happen to it."""
    return held.state in FINAL


def _later(known: str, seen: KernelState) -> str:
    order = tuple(KernelState)
    return seen if not known or order.index(seen) > order.index(KernelState(known)) else known


def _exited(held: Held, seen: Observed, now: float) -> Held:
    """Record the result; what it used is still being removed."""
    base = replace(held, state=S.TERMINATING, deadline=now + DEADLINES[S.TERMINATING], kernel_exit=seen.exit_code,
                   ended_at=_end(held, seen.ended_at or now))
    if held.doomed:
        return base
    state, result, reason = verdict(held, seen)
    return replace(base, result=result, reason=reason, exit_code=None if state is S.FAILED else seen.exit_code)  # then it is doomed


def _gone(held: Held, seen: Observed, now: float) -> Held:
    """Finish: nothing is left of it but its log."""
    if held.kernel_exit is not None and seen.exit_code is None:
        seen = msgspec.structs.replace(seen, exit_code=held.kernel_exit)
    exited = replace(held, kernel_exit=seen.exit_code, ended_at=held.ended_at or seen.ended_at)
    if held.doomed:
        return _final(exited, S.FAILED, Result.FAILURE, held.reason, now)
    state, result, reason = verdict(held, seen)
    return _final(replace(exited, exit_code=seen.exit_code), state, result, reason, now)


def _unconfirmed(held: Held, said: str, now: float) -> Held:
    """Finish without the agent's word, by what is known. The agent goes on cleaning up."""
    if held.exit_code is not None:
        cancelled = held.started_at is None and held.stop and held.result is None
        return _final(held, S.CANCELLED if cancelled else S.TERMINATED, held.result, held.reason, now)
    if held.result is not None or not held.stop:
        return _final(held, S.FAILED, Result.FAILURE, held.reason or said, now)
    state, result, reason = _stopped(held, held.started_at is not None)
    return _final(held, state, result, reason, now)


def _final(held: Held, state: SessionState, result: Result | str | None, reason: str, now: float) -> Held:
    return replace(held, state=state, result=result, reason=reason, hold="", deadline=None, holds=False,
                   ended_at=_end(held, held.ended_at or now))


def _end(held: Held, at: float) -> float:
    """Return when it ended, never before it began: the two times may come from two clocks."""
    return at if held.started_at is None else max(at, held.started_at)


def verdict(held: Held, seen: Observed) -> tuple[SessionState, Result | None, str]:
    """Say how a session ended: final state, result, reason; the reason is empty when there is nothing to say."""
    ran = held.started_at is not None
    if seen.exit_code is None or seen.error:
        if held.stop and not ran:
            return S.CANCELLED, None, NEVER_RAN
        if seen.error:
            return S.FAILED, Result.FAILURE, seen.error
        if held.stop:
            return _stopped(held, ran)
        if seen.why not in ("time-limit", "stopped"):
            return S.FAILED, Result.FAILURE, "Its agent ended it without saying why."
    regular = Result.SUCCESS if held.type == SessionType.INTERACTIVE else Result.FAILURE
    if seen.why == "stopped":
        return _stopped(held, True) if held.stop else (S.FAILED, Result.FAILURE, LATE)
    if seen.why == "time-limit":
        return S.TERMINATED, regular, f"It reached its time limit of {format_seconds(held.asked.time_limit_s or 0)}."
    assert seen.exit_code is not None  # settled above
    return S.TERMINATED, result_of(seen.exit_code), _by_itself(held, seen.exit_code, seen.why)


def _stopped(held: Held, ran: bool) -> tuple[SessionState, Result | None, str]:
    if not ran:
        return S.CANCELLED, None, NEVER_RAN
    return S.TERMINATED, Result.SUCCESS if held.type == SessionType.INTERACTIVE else Result.FAILURE, STOPPED


def _by_itself(held: Held, exit_code: int, why: str) -> str:
    if exit_code == 0:
        return ""
    if why == "out-of-memory":
        memory = held.amounts.get("mem", 0)
        return f"It ran out of memory ({format_bytes(memory)}); ask for more with -r {format_slots({'mem': memory * 2})}."
    what = "The command" if held.type == SessionType.BATCH else "Its main process"
    return f"{what} ended with {exit_code}{_SHELL.get(exit_code, '')}."
