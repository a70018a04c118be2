"""``bai info``: one session in full."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.screen import age, clock, connect, expiry, names_sessions, show_facts, show_json, slots
from backendai.cli.when import interval
from backendai.client import calls
from backendai.model.units import format_seconds


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    names_sessions(parser)


def run(options: Namespace) -> int:
    """Print what is known of the session."""
    with connect() as client:
        session = client.raw(calls.get_session(options.session))
        queues = client.raw(calls.get_queue(session=session["id"]))["items"] if session["state"] == "PENDING" and not options.json else []
    if options.json:
        return show_json(session)
    show_facts(facts(session, next((entry for queue in queues for entry in queue["items"]), None)))
    return 0


def facts(session: dict[str, Any], entry: dict[str, Any] | None = None) -> dict[str, str]:
    """Return what to show of a session, by name; what there is nothing to say of is empty. entry: in the queue, if it waits."""
    code, limit = session["exit_code"], session["time_limit_s"]
    return {
        "name": session["name"],
        "id": session["id"],
        "owner": session["owner"],
        "type": session["type"],
        "state": session["state"],
        "result": session["result"] or "",
        "exit code": "" if code is None else str(code),
        "reason": session["reason"],
        "waits for": session["hold"],
        "starts": "" if entry is None else interval(entry["earliest"], entry["latest"]) or "nobody can say; see `bai why`",
        "ends": "" if session.get("expires_at") is None else f"{clock(session['expires_at'])}; {expiry(session)}",
        "progress": session["progress"],
        "image": session["image"] or "the agent's default",
        "command": shlex.join(session["command"]),
        "slots": slots(session["slots"]),
        **{kernel["name"]: _kernel(kernel) for kernel in session.get("kernels") or ()},
        "agent": session["agent"] or "",
        "network": session["network"],
        "mounts": ", ".join(f"{m['source']}:{m['target']}{':ro' if m['readonly'] else ''}" for m in session["mounts"]),
        "environment": " ".join(f"{name}={shlex.quote(value)}" for name, value in session["env"].items()),
        "priority": str(session["priority"]),
        "attempt": "" if session.get("attempt", 1) == 1 else str(session["attempt"]),
        "not before": "" if session.get("not_before") is None else clock(session["not_before"]),
        "after": ", ".join(f"{after['session']} ({after['kind']})" for after in session.get("after") or ()),
        "preemptible": session.get("evicted") or "",
        "array": _array(session.get("array")),
        "time limit": "" if limit is None else format_seconds(limit),
        "tags": ", ".join(session["tags"]),
        "created": _moment(session["created_at"]),
        "started": _moment(session["started_at"]),
        "ended": _moment(session["ended_at"]),
    }


def _moment(at: float | None) -> str:
    return "" if at is None else f"{clock(at)} ({age(at)} ago)"


def _kernel(kernel: dict[str, Any]) -> str:
    code = kernel["exit_code"]
    words = (kernel["state"] or "waits", kernel["agent"] and f"on {kernel['agent']}", code is not None and f"exit {code}",
             slots(kernel["slots"]))
    return ", ".join(word for word in words if word)


def _array(array: dict[str, Any] | None) -> str:
    return "" if array is None else f"{array['id']}, number {array['index']} of {array['size']}"
