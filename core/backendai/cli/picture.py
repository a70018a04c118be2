"""What ``bai top`` shows: an overview as lines of text, cut to a terminal's size. Pure: the same overview gives the same picture."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backendai.cli.agents import state
from backendai.cli.screen import amount, plain
from backendai.cli.when import brief
from backendai.model.units import format_bytes, format_seconds

WIDTH = 10  # of a bar
LEAST = 3  # lines that a part keeps as long as there are any
ALMOST, HALF = 0.9, 0.6  # from where on a bar is red, and yellow
RESET, BOLD, DIM, RED, YELLOW, GREEN = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m"
Overview = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A table of the picture. rows: cells, which may hold colours; a row of one cell is a remark."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def draw(overview: Overview, before: Overview | None = None, rows: int = 0, columns: int = 0, colours: bool = False) -> list[str]:
    """Return the picture's lines. before: an earlier overview, for rates. rows, columns: of the terminal, 0 for no limit."""
    paint = _Paint(colours)
    queues = [_queue(queue, overview["at"]) for queue in overview["queues"]]
    whole = _groups(overview, paint), _agents(overview, paint), _busy(overview, before), *queues
    parts = [part for part in whole if part.rows]
    heights = share([len(part.rows) for part in parts], rows - 1 - 2 * len(parts)) if rows else [len(part.rows) for part in parts]
    lines = [paint.of(BOLD, _head(overview))]
    for part, height in zip(parts, heights, strict=True):
        lines += ["", *_table(part, height, paint)]
    lines = lines[:rows] if rows else lines
    return [cut(line, columns) for line in lines] if columns else lines


def share(wanted: Sequence[int], room: int) -> list[int]:
    """Return how many lines each part gets of *room*: the small ones theirs, the others the rest in equal parts."""
    given = [min(want, LEAST, max(0, room // len(wanted))) for want in wanted]
    while (left := room - sum(given)) > 0 and (short := [i for i, want in enumerate(wanted) if given[i] < want]):
        each = max(1, left // len(short))
        for i in short[:left]:
            given[i] += min(each, wanted[i] - given[i], max(0, room - sum(given)))
    return given


def bar(used: float, capacity: float, paint: _Paint) -> str:
    """Draw how much of something is used."""
    part = min(1.0, used / capacity) if capacity else 0.0
    filled = round(part * WIDTH) or (1 if part else 0)
    colour = RED if part >= ALMOST else YELLOW if part >= HALF else GREEN
    return f"[{paint.of(colour, '|' * filled)}{' ' * (WIDTH - filled)}]"


def cut(line: str, columns: int) -> str:
    """Cut a line at a terminal's edge; colours take no room, and end with it."""
    shown, out, at = 0, "", 0
    while at < len(line):
        if line[at] == "\x1b":
            end = line.index("m", at) + 1
            out, at = out + line[at:end], end
            continue
        if shown == columns:
            return out + (RESET if "\x1b" in out else "")
        out, at, shown = out + line[at], at + 1, shown + 1
    return out


class _Paint:
    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def of(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self._colours and text else text


def _head(overview: Overview) -> str:
    groups = overview["groups"]
    well, nodes = sum(group["well"] for group in groups), sum(group["agents"] for group in groups)
    runs, waits = sum(group["running"] for group in groups), sum(group["waiting"] for group in groups)
    clock = time.strftime("%H:%M:%S", time.localtime(overview["at"]))
    return f"{clock}   agents {well}/{nodes}   running {runs}   waiting {waits}"


def _slots(capacity: Mapping[str, float], used: Mapping[str, float], paint: _Paint) -> str:
    return "  ".join(f"{name} {bar(used.get(name, 0), most, paint)} {amount(name, used.get(name, 0))}/{amount(name, most)}"
                     for name, most in capacity.items())


def _groups(overview: Overview, paint: _Paint) -> Part:
    return Part(("GROUP", "SCHEDULER", "AGENTS", "RUN", "WAIT", "IN USE"), tuple(
        (plain(group["name"]), plain(group["scheduler"]), f"{group['well']}/{group['agents']}", str(group["running"]),
         str(group["waiting"]), _slots(group["capacity"], group["used"], paint)) for group in overview["groups"]))


def _agents(overview: Overview, paint: _Paint) -> Part:
    rows = []
    for agent in overview["agents"]:
        how = "draining" if agent["draining"] else "cordoned" if agent["cordoned"] else state(agent)
        rows.append((plain(agent["name"]), plain(agent["group"]), paint.of(GREEN if how == "healthy" else RED, how), str(agent["kernels"]),
                     _slots(agent["capacity"], agent["used"], paint) + (f"  {plain(agent['why'])}" if agent["why"] else "")))
    left = sum(group["agents"] for group in overview["groups"]) - len(rows)
    return Part(("AGENT", "GROUP", "STATE", "RUN", "IN USE"), (*rows, *(((f"({left} more)",),) if left > 0 else ())))


def _busy(overview: Overview, before: Overview | None) -> Part:
    earlier = {one["session"]: one["usage"] for one in (before or {}).get("busy", ()) if one["usage"]}
    rows = tuple((plain(one["name"]), plain(one["owner"]), one["state"].lower(), ", ".join(one["agents"]),
                  _cores(one["usage"], earlier.get(one["session"])), f"/{amount('cpu', one['slots'].get('cpu', 0))}", _memory(one["usage"]),
                  f"/{amount('mem', one['slots'].get('mem', 0))}", format_seconds(max(0.0, overview["at"] - one["since"])))
                 for one in overview["busy"])
    return Part(("SESSION", "OWNER", "STATE", "AGENT", "CORES", "", "MEMORY", "", "FOR"), rows + _unseen(overview["hidden"]))


def _cores(usage: Mapping[str, Any] | None, earlier: Mapping[str, Any] | None) -> str:
    """Say how many cores a session has used since the picture before."""
    if usage is None or earlier is None or usage["cpu_s"] is None or earlier["cpu_s"] is None or usage["at"] <= earlier["at"]:
        return "-"
    return f"{max(0.0, usage['cpu_s'] - earlier['cpu_s']) / (usage['at'] - earlier['at']):.2f}"


def _memory(usage: Mapping[str, Any] | None) -> str:
    return "-" if usage is None or usage["memory"] is None else format_bytes(usage["memory"])


def _queue(queue: Mapping[str, Any], now: float) -> Part:
    rows = tuple(("-" if one["position"] is None else str(one["position"]), plain(one["name"]), plain(one["owner"]),
                  format_seconds(max(0.0, now - one["since"])), brief(one["earliest"], one["latest"], now), plain(one["hold"]))
                 for one in queue["items"])
    return Part(("#", f"WAITS IN {plain(queue['group'])}", "OWNER", "SINCE", "STARTS", "WHY"), rows + _unseen(queue["hidden"]))


def _unseen(count: int) -> tuple[tuple[str, ...], ...]:
    return ((f"({count} not yours to see)",),) if count else ()


def _table(part: Part, height: int, paint: _Paint) -> list[str]:
    """Write a part; the last line says how much is left out."""
    fits = len(part.rows) <= height
    rows = part.rows if fits else part.rows[: max(0, height - 1)]
    widths = [max([len(head), *(_length(row[i]) for row in rows if len(row) > 1)]) for i, head in enumerate(part.heads)]
    lines = [paint.of(DIM, "  ".join(head.ljust(width) for head, width in zip(part.heads, widths, strict=True)).rstrip())]
    lines += ["  ".join(cell + " " * (width - _length(cell)) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return lines if fits else [*lines, paint.of(DIM, f"... {len(part.rows) - len(rows)} more")]


def _length(cell: str) -> int:
    length, at = 0, 0
    while at < len(cell):
        if cell[at] == "\x1b":
            at = cell.index("m", at)
        else:
            length += 1
        at += 1
    return length
