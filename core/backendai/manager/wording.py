"""What a session does, and when it will start, in sentences. Whoever shows them adds the times, by the clock of who reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backendai.model.explain import Expected
from backendai.model.session import FINAL, SessionState
from backendai.model.units import format_seconds
from backendai.sokovan.forecast import Forecast, Habits
from backendai.sokovan.phrases import listed

S = SessionState
WAYS = {S.SCHEDULED: "has its place on {}, which has not begun with it yet", S.PREPARING: "is being prepared on {}",
        S.STARTING: "starts on {}", S.RUNNING: "runs on {}", S.TERMINATING: "is ending on {}"}
LATER = "Whoever comes later and goes first may make it later."


def ordinal(number: int) -> str:
    """Write a number as a place in a row: ``1st``, ``12th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def state_of(name: str, row: Any, agents: Sequence[str], now: float) -> str:
    """Say what a session that is not waiting does, or how it ended. row: of ``sessions``."""
    state = S(row.state)
    if state in WAYS:
        time = f" for {format_seconds(max(0.0, now - row.started_at))}" if state is S.RUNNING and row.started_at else ""
        return f"{name} {WAYS[state].format(listed(agents) or 'its agent')}{time}.{_because(row.reason)}"
    if state in FINAL:
        ran = f" after running for {format_seconds(max(0.0, row.ended_at - row.started_at))}" if row.started_at and row.ended_at else ""
        end = {S.TERMINATED: f"has ended with {row.result}" if row.result else "has ended", S.CANCELLED: "was cancelled before it ran"}
        return f"{name} {end.get(state, 'has failed')}{ran}.{_because(row.reason)}"
    return f"{name} waits."


def place_in(name: str, position: int | None, waiting: int, group: str) -> str:
    """Say where a session stands that waits."""
    if position is None:
        return f"{name} waits, and does not stand in the queue of the group {group} yet."
    of = "alone" if waiting == 1 else f"{ordinal(position)} of {waiting}"
    return f"{name} waits, {of} in the queue of the group {group}."


def expected_of(forecast: Forecast, habits: Habits, now: float, cut: bool = False) -> Expected:
    """Say on what a forecast rests. cut: there was no time to work everything out."""
    early, last = forecast.earliest, forecast.latest
    ran = f"as soon as a quarter of the last {habits.runs} sessions did"
    if early is not None and early <= now:
        return Expected(now, last, "There is room for it: it starts with the next plan.")
    if early is not None and last is not None:
        text = f"The first if those before it end {ran}, the second if all of them use up their time limits. {LATER}"
    elif last is not None:
        text = f"That is if all those before it use up their time limits; it is sooner if they end sooner. {LATER}"
    elif early is not None:
        text = f"That is if those before it end {ran}; some have no time limit, so nobody can say when it must be. {LATER}"
    elif cut:
        text = "There was no time to work it out; ask again when less is going on."
    else:
        text = "Nobody can say: it waits for sessions without a time limit to end, or for an agent that can take it."
    return Expected(early, last, text)


def basis_of(habits: Habits) -> str:
    """Say in one sentence on what the expected starts of a queue rest."""
    if not habits.runs:
        return "Starts are the latest ones, if everybody uses up their time limits; whoever comes later may go first."
    return f"The first if others end as soon as a quarter of the last {habits.runs} sessions did, the second if they use up their limits."


def _because(reason: str) -> str:
    return f" {reason}" if reason else ""
