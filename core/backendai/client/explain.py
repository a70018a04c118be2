"""Calls by which the platform explains itself. Use them as ``backendai.client.calls``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from backendai.client.call import Call

if TYPE_CHECKING:
    from backendai.client.calls import NewSession
    from backendai.model.explain import Decision, Overview, Queue, Why


def why_session(session: str, replay: bool = False) -> Call[Why]:
    return Call("GET", f"/v1/sessions/{quote(session, safe='')}/why", "Why", {"replay": replay or None})


def dry_run(new: NewSession) -> Call[Why]:
    return Call("POST", "/v1/sessions/dry-run", "Why", body=new.body())


def get_queue(group: str | None = None, session: str | None = None, limit: int | None = None) -> Call[tuple[Queue, ...]]:
    return Call("GET", "/v1/queue", "Queue", {"group": group, "session": session, "limit": limit}, many=True)


def list_decisions(group: str | None = None, session: str | None = None, before: int | None = None,
                   limit: int | None = None) -> Call[tuple[Decision, ...]]:
    return Call("GET", "/v1/decisions", "Decision", {"group": group, "session": session, "before": before, "limit": limit}, many=True)


def get_overview(limit: int | None = None) -> Call[Overview]:
    return Call("GET", "/v1/overview", "Overview", {"limit": limit})
