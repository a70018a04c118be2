"""The history of a platform that runs, as its API tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backendai.model.errors import Failure
from backendai.testing.simulate.lines import read_items
from backendai.testing.simulate.nodes import kind
from backendai.testing.simulate.trace import Trace


def from_platform(name: str, sessions: Sequence[Mapping[str, Any]], agents: Sequence[Mapping[str, Any]]) -> Trace:
    """Return the sessions that ran and have ended as a trace, with the agents as its nodes. name: of the platform, for messages."""
    trace = read_items(name, enumerate(sessions, 1))
    if not trace.jobs:
        raise Failure("invalid-request", f"{name} remembers no session that ran and has ended; run some, or name a file with --trace.")
    return replace(trace, format="live", nodes=tuple(kind(name, i, agent) for i, agent in enumerate(agents, 1)))
