"""``bai stats``: what sessions use."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backendai.cli.ps import collect
from backendai.cli.screen import complete_sessions, connect, show_json, show_table
from backendai.client import calls
from backendai.client.sync import Client
from backendai.model.errors import Failure
from backendai.model.units import format_bytes

_SIZES = ("memory", "memory_peak", "io_read", "io_write", "net_rx", "net_tx")


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    action = parser.add_argument("session", nargs="?", metavar="SESSION", help="its id or its name; all that run when left out")
    action.completer = complete_sessions  # type: ignore[attr-defined]  # argcomplete looks for it


def run(options: Namespace) -> int:
    """Print what was measured last."""
    with connect() as client:
        if options.session is not None:
            name = client.raw(calls.get_session(options.session))["name"]
            found = [(name, client.raw(calls.stats_of_session(options.session)))]
        else:
            found = _all(client)
    if options.json:
        return show_json({"items": [stats for _, stats in found]} if options.session is None else found[0][1])
    show_table(("SESSION", "AGENT", "CPU S", "MEMORY", "PEAK", "DISK READ", "WRITTEN", "NET IN", "OUT", "PIDS"),
               [_row(name, kernel) for name, stats in found for kernel in stats["kernels"]])
    return 0


def _all(client: Client) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for session in collect(client, False, None)["items"]:
        try:
            if session["state"] == "RUNNING":
                found.append((session["name"], client.raw(calls.stats_of_session(session["id"]))))
        except Failure as failure:
            if failure.code != "not-found":  # it has gone meanwhile
                raise
    return found


def _row(name: str, kernel: dict[str, Any]) -> tuple[str, ...]:
    usage = kernel["usage"] or {}
    sizes = [format_bytes(usage[key]) if usage.get(key) is not None else "-" for key in _SIZES]
    cpu, pids = usage.get("cpu_s"), usage.get("pids")
    return (name, kernel["agent"] or "-", "-" if cpu is None else f"{cpu:.1f}", *sizes, "-" if pids is None else str(pids))
