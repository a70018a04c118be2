"""Moments to come, by the clock of who reads."""

from __future__ import annotations

import time

from backendai.model.units import format_seconds

SOON_S = 1.5  # what is no further away is now


def at(moment: float, now: float) -> str:
    """Write a moment: the hour, with seconds for the next ten minutes, and the day where it is not today."""
    there, here = time.localtime(moment), time.localtime(now)
    form = "%H:%M:%S" if moment - now < 600 else "%H:%M"
    return time.strftime(form if there[:3] == here[:3] else f"%Y-%m-%d {form}", there)


def interval(earliest: float | None, latest: float | None, now: float | None = None) -> str:
    """Say when something will be, in words; nothing where nobody can say."""
    now = time.time() if now is None else now
    early, last = (None if moment is None else max(0.0, moment - now) for moment in (earliest, latest))
    if early is not None and early <= SOON_S and (last is None or last <= SOON_S):
        return "now"
    if early is not None and last is not None and earliest is not None and latest is not None:
        if latest - earliest < max(1.0, early / 20):
            return f"at about {at(latest, now)}, in {format_seconds(last)}"
        if early <= SOON_S:
            return f"between now and {at(latest, now)}, within {format_seconds(last)}"
        return f"between {at(earliest, now)} and {at(latest, now)}, in {format_seconds(early)} to {format_seconds(last)}"
    if last is not None and latest is not None:
        return f"by {at(latest, now)}, in {format_seconds(last)} or sooner"
    if early is not None and earliest is not None:
        return f"from {at(earliest, now)} on, in {format_seconds(early)} or later"
    return ""


def brief(earliest: float | None, latest: float | None, now: float | None = None) -> str:
    """The same for a column of a table; ``?`` where nobody can say."""
    now = time.time() if now is None else now
    if earliest is not None and earliest - now <= SOON_S and (latest is None or latest - now <= SOON_S):
        return "now"
    if earliest is not None and latest is not None:
        first = "now" if earliest - now <= SOON_S else at(earliest, now)
        return at(latest, now) if latest - earliest < 1.0 else f"{first}-{at(latest, now)}"
    if latest is not None:
        return f"by {at(latest, now)}"
    return "?" if earliest is None else f"from {at(earliest, now)}"
