"""A resource group's options: what its operator may choose, and the rules for the sessions in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Preemption:
    """Whether urgent sessions may have others make room.

    enabled: for priority. reclaim: for projects that find their own quota borrowed by others. least_run_s: how long a session is safe
    after its start. grace_s: from SIGTERM to SIGKILL, at most what the victim asked for.
    """

    enabled: bool = False
    reclaim: bool = False
    least_run_s: float = 0.0
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class IdleRule:
    """A rule that ends interactive sessions which nobody uses.

    kind: ``lifetime`` (of running, whatever it does), ``network`` (nobody was connected or typed for so long) or ``utilization`` (the
    mean over *after_s* stays below every threshold). after_s: seconds. grace_s: nothing is judged so soon after the start.
    thresholds: for ``utilization``: ``cpu`` and ``mem`` or an accelerator's slot, as a share of what was given, 0 to 1.
    scope_id: a domain, project or user that it is for; empty for everyone in the group. warn_s: how long before it is announced.
    """

    kind: str
    after_s: float
    grace_s: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    scope_id: str = ""
    warn_s: float = 300.0


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """Options of a resource group. scheduler, selector: options of the plugins, in place of the manager's.

    half_life_s: after which past usage counts half in fair sharing. types: what kinds of sessions it takes.
    """

    scheduler: Mapping[str, Any] = field(default_factory=dict)
    selector: Mapping[str, Any] = field(default_factory=dict)
    preemption: Preemption = Preemption()
    idle: tuple[IdleRule, ...] = ()
    half_life_s: float = 7 * 86400.0
    types: tuple[str, ...] = ("interactive", "batch")
