"""Our own format, JSON lines, and what the API says of sessions, which is the same with other names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from backendai.model.errors import Failure
from backendai.model.slots import Slots, parse_slots, plain_slots
from backendai.testing.simulate.trace import Job, Tally, Trace, at, by_submission

EXAMPLE = '{"id": "a", "user": "kim", "submitted_at": 0, "duration_s": 60, "slots": {"cpu": 1}}'
_PLAIN = ("cpu", "mem")


def is_json(text: str) -> bool:
    """Tell by the first letter."""
    return text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")


def read_lines(name: str, text: str) -> Trace:
    """Read jobs, one JSON object to a line, or sessions as ``bai ps -a --json`` prints them."""
    return read_items(name, items(name, text))


def read_items(name: str, found: Iterable[tuple[int, Mapping[str, Any]]]) -> Trace:
    """Read objects, each with the number of its line."""
    tally = Tally()
    jobs = [job for line, item in found if (job := _job(name, line, item, tally)) is not None]
    return Trace("jsonl", by_submission(jobs), unit_of(jobs), notes=tally.notes())


def write_lines(trace: Trace) -> str:
    """Write a trace as ``read_lines`` reads it."""
    return "".join(json.dumps(_plain(job)) + "\n" for job in trace.jobs)


def _plain(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {"id": job.id, "user": job.user, "project": job.project, "domain": job.domain, "priority": job.priority,
                             "submitted_at": job.submitted_at, "duration_s": job.duration_s, "time_limit_s": job.limit_s,
                             "preemptible": job.preemptible, "models": list(job.models)}
    same = all(kernel == job.kernels[0] for kernel in job.kernels)
    slots = {"slots": plain_slots(job.kernels[0])} if same else {}
    parts: Any = len(job.kernels) if same else [{"slots": plain_slots(kernel)} for kernel in job.kernels]
    said = {name: value for name, value in found.items() if value is not None and value is not False and value not in ("", [])}
    return {**said, **slots, "kernels": parts}


def items(name: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line, object) of JSON lines; of one document that is a list or has ``items``, their numbers instead of lines."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None  # several lines, or none that can be read
    if isinstance(whole, dict):
        whole = whole.get("items", [whole])
    found = enumerate(whole, 1) if isinstance(whole, list) else _each_line(name, text)
    for line, item in found:
        if not isinstance(item, dict):
            raise at(name, line, f"it is no object; write one such as {EXAMPLE}.")
        yield line, item


def _each_line(name: str, text: str) -> Iterator[tuple[int, Any]]:
    for line, bare in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if bare.strip():
            try:
                yield line, json.loads(bare)
            except ValueError as error:
                raise at(name, line, f"it is no JSON ({error}); write an object such as {EXAMPLE}.") from None


def _job(name: str, line: int, item: Mapping[str, Any], tally: Tally) -> Job | None:
    submitted = _moment(name, line, item, "submitted_at", "created_at")
    if submitted is None:
        raise at(name, line, f"submitted_at is missing; write seconds, as in {EXAMPLE}.")
    duration = _duration(name, line, item)
    if duration is None:
        tally.add("never ran, or has not ended, and was left out|never ran, or have not ended, and were left out")
        return None
    limit = item.get("time_limit_s")
    return Job(str(item.get("id", f"line-{line}")), str(item.get("user", item.get("owner", "all"))), submitted, duration,
               _kernels(name, line, item), project=str(item.get("project", "")), domain=str(item.get("domain", "")),
               priority=int(_number(name, line, "priority", item.get("priority", 10))),
               limit_s=None if limit is None else _number(name, line, "time_limit_s", limit),
               preemptible=bool(item.get("preemptible", item.get("evicted") is not None)), models=tuple(item.get("models", ())))


def _duration(name: str, line: int, item: Mapping[str, Any]) -> float | None:
    """Return how long it ran, None where it did not or nobody knows yet."""
    if item.get("duration_s") is not None:
        return max(0.0, _number(name, line, "duration_s", item["duration_s"]))
    if not {"duration_s", "started_at", "ended_at"} & item.keys():
        raise at(name, line, f"duration_s is missing; write seconds, as in {EXAMPLE}.")
    began, ended = (_moment(name, line, item, column) for column in ("started_at", "ended_at"))
    return None if began is None or ended is None else max(0.0, ended - began)


def _moment(name: str, line: int, item: Mapping[str, Any], *columns: str) -> float | None:
    """Return the first of *columns* that is there: seconds, or a date and time in ISO 8601."""
    for column in columns:
        value = item.get(column)
        if isinstance(value, str):
            try:
                found = datetime.fromisoformat(value)
            except ValueError:
                raise at(name, line, f"{column} is {value!r}; write seconds or 2026-01-31T12:00:00Z.") from None
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        if value is not None:
            return _number(name, line, column, value)
    return None


def _kernels(name: str, line: int, item: Mapping[str, Any]) -> tuple[Slots, ...]:
    """Return what each container needs: the session's own slots so many times, or those of each part."""
    own, given = item.get("slots") or {}, item.get("kernels") or 1
    if isinstance(given, int):
        return (_slots(name, line, own),) * max(1, given)
    parts = [part if isinstance(part, dict) else {} for part in given]
    found: list[Slots] = []
    for part in parts:
        found += [_slots(name, line, part.get("slots") or own)] * int(_number(name, line, "count", part.get("count", 1)))
    return tuple(found)


def _slots(name: str, line: int, given: Any) -> dict[str, int]:
    """Read slots as ``-r`` and the API write them: cores, sizes, devices. What is 0 is left out."""
    if not isinstance(given, dict):
        raise at(name, line, 'slots must be an object such as {"cpu": 1, "mem": "1g"}.')
    try:
        return parse_slots({slot: amount for slot, amount in given.items() if amount})
    except Failure as failure:
        raise at(name, line, failure.message) from None


def _number(name: str, line: int, column: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise at(name, line, f"{column} is {value!r}; write a number.")
    return float(value)


def unit_of(jobs: list[Job]) -> str:
    """Return the slot that jobs are about: the accelerator that is used for the longest, or cores where there is none."""
    used: dict[str, float] = {}
    for job in jobs:
        for kernel in job.kernels:
            for slot, amount in kernel.items():
                if slot not in _PLAIN and not slot.endswith(".mem"):
                    used[slot] = used.get(slot, 0.0) + amount * max(1.0, job.duration_s)
    return max(used, key=lambda slot: (used[slot], slot), default="cpu")
