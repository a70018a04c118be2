"""The machine: nodes as the command line writes them, or from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.model.slots import SCALE, Slots, parse_slot_text, parse_slots
from backendai.testing.simulate.columns import head_of
from backendai.testing.simulate.lines import is_json, items
from backendai.testing.simulate.openb import is_nodes, read_nodes
from backendai.testing.simulate.trace import Kind, at

_PART = re.compile(r"(\d+)\s*[xX*]\s*(.+)")
_HOW = "write COUNTxSIZE such as 75x8, or COUNTxSLOTS such as 75xcpu=64,mem=256g,cuda.device=8; several kinds are joined by +"


def nodes_from(text: str, unit: str) -> tuple[Kind, ...]:
    """Return the nodes of a file, or those that *text* itself names. unit: the slot that ``75x8`` means.

    A file is openb's CSV (``sn,cpu_milli,memory_mib,gpu,model``), or JSON: what ``bai agents --json`` prints, or a line
    ``{"count": 75, "slots": {"cpu": 64, "cuda.device": 8}}`` for each kind.
    """
    if (path := Path(text)).is_file():
        kinds = read_file(str(path), path.read_text(errors="replace"))
    elif _PART.match(text.strip()) is None:
        raise Failure("invalid-request", f"--nodes {text}: there is no such file; name one, or {_HOW}.")
    else:
        kinds = tuple(_part(part.strip(), unit) for part in text.split("+"))
    if not kinds:
        raise Failure("invalid-request", f"--nodes {text} names no node; {_HOW}.")
    return kinds


def read_file(name: str, text: str) -> tuple[Kind, ...]:
    """Read nodes as CSV or JSON."""
    if is_json(text):
        return tuple(kind(name, line, item) for line, item in items(name, text))
    if is_nodes(head_of(text)):
        return read_nodes(name, text)
    raise at(name, 1, "these are no nodes; the first line must name the columns sn,cpu_milli,memory_mib,gpu,model, or each line must be "
                      'an object such as {"count": 75, "slots": {"cpu": 64, "cuda.device": 8}}.')


def kind(name: str, line: int, item: Mapping[str, Any]) -> Kind:
    """Read one kind of node, or an agent as the API writes it."""
    given = item.get("slots", item.get("capacity"))
    if not isinstance(given, dict):
        raise at(name, line, 'slots is missing; write an object such as {"count": 75, "slots": {"cpu": 64, "cuda.device": 8}}.')
    try:
        slots = parse_slots({slot: amount for slot, amount in given.items() if amount})
    except Failure as failure:
        raise at(name, line, failure.message) from None
    count = item.get("count", 1)
    if not isinstance(count, int) or count < 0:
        raise at(name, line, f"count is {count!r}; write a number of nodes.")
    return Kind(count, slots, str(item.get("name", f"node-{line}")), str(item.get("model", "")), devices_of(slots))


def devices_of(slots: Slots) -> dict[str, int]:
    """Return how many devices lie behind the slots that are lent in parts, by their names: ``cuda.shares``."""
    return {slot: amount // SCALE for slot, amount in slots.items() if slot.endswith(".shares") and amount % SCALE == 0}


def _part(text: str, unit: str) -> Kind:
    found = _PART.fullmatch(text)
    if found is None or not int(found[1]):
        raise Failure("invalid-request", f"--nodes {text}: {_HOW}.")
    try:
        slots = parse_slot_text(found[2] if "=" in found[2] else f"{unit}={found[2]}")
    except Failure as failure:
        raise Failure("invalid-request", f"--nodes {text}: {failure.message}") from None
    return Kind(int(found[1]), slots, devices=devices_of(slots))


def count(kinds: Iterable[Kind]) -> int:
    """Return how many nodes there are."""
    return sum(kind.count for kind in kinds)
