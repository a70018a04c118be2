"""The Standard Workload Format, version 2: 18 numbers in a line, -1 for what is not known, and a head of comments.

https://www.cs.huji.ac.il/labs/parallel/workload/swf.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from backendai.model.slots import SCALE
from backendai.testing.simulate.columns import real
from backendai.testing.simulate.trace import Job, Kind, Tally, Trace, at, by_submission, number

COLUMNS = ("job number", "submit time", "wait time", "run time", "allocated processors", "average CPU time", "used memory",
           "requested processors", "requested time", "requested memory", "status", "user", "group", "executable", "queue", "partition",
           "preceding job", "think time")
LEAST = 5  # columns without which nothing can be said of a job
KIB = 1 << 10
UNIT = "cpu"
_HEAD = re.compile(r";\s*([A-Za-z]+)\s*:\s*(.*?)\s*")
_NUMBERS = re.compile(r"[-+\d.eE\s]+")


class _Line(NamedTuple):
    """What of a line is used. Times in seconds, memory in KiB of a processor."""

    job: float
    submit: float
    run: float
    allocated: float
    requested: float
    limit: float
    memory: float
    user: float
    group: float


def is_swf(text: str) -> bool:
    """Tell by the first line that is no comment: numbers, parted by spaces."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(";")), "")
    return len(first.split()) >= LEAST and _NUMBERS.fullmatch(first) is not None


def read_swf(name: str, text: str) -> Trace:
    """Read a trace. A job gets the processors that it asked for, or else those that it had; one that never ran is left out."""
    tally, jobs = Tally(), []
    head: dict[str, str] = {}
    for at_line, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith(";"):
            if (found := _HEAD.fullmatch(bare)) is not None:
                head.setdefault(found[1].lower(), found[2])
        elif bare and (job := _job(_line(name, at_line, bare), at_line, tally)) is not None:
            jobs.append(job)
    nodes, note = machine(head)
    return Trace("swf", by_submission(jobs), UNIT, splits=True, nodes=nodes, notes=(*tally.notes(), *note))


def _line(name: str, line: int, text: str) -> _Line:
    words = text.split()
    if len(words) < LEAST:
        raise at(name, line, f"it has {len(words)} columns; write {len(COLUMNS)} of them, -1 for what is not known, "
                             "or begin the line with ; for a comment.")
    values = [number(name, line, COLUMNS[i] if i < len(COLUMNS) else f"column {i + 1}", word, real) for i, word in enumerate(words)]
    values += [-1.0] * (len(COLUMNS) - len(values))
    return _Line(values[0], values[1], values[3], values[4], values[7], values[8], values[9], values[11], values[12])


def _job(line: _Line, at_line: int, tally: Tally) -> Job | None:
    processors = int(line.requested if line.requested > 0 else line.allocated)
    if processors <= 0 or line.run < 0:
        tally.add("never ran, or had no processors, and was left out|never ran, or had no processors, and were left out")
        return None
    wants = {UNIT: processors * SCALE}
    if line.memory > 0:
        wants["mem"] = int(line.memory) * KIB * processors
    return Job(f"job-{int(line.job)}" if line.job > 0 else f"line-{at_line}", f"user-{int(line.user)}" if line.user >= 0 else "unknown",
               max(0.0, line.submit), line.run, (wants,), project=f"group-{int(line.group)}" if line.group >= 0 else "",
               limit_s=line.limit if line.limit > 0 else None)


def machine(head: Mapping[str, str]) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    """Return the nodes that a head names, and what to say of them; none where it names none."""
    processors, count = _count(head.get("maxprocs")), _count(head.get("maxnodes"))
    if processors is None:
        return (), ()
    if count is None or processors % count:
        why = "does not say on how many nodes" if count is None else f"says they are on {count} nodes, which does not divide"
        return (Kind(1, {UNIT: processors * SCALE}, "machine"),), (
            f"The head names {processors:,} processors and {why}: they are taken as one node; --nodes says otherwise.",)
    if count == processors:  # which is the same, as a job takes them whole, and much quicker
        return (Kind(1, {UNIT: processors * SCALE}, "machine"),), (f"The {count:,} nodes of one processor are taken as one of {count:,}.",)
    return (Kind(count, {UNIT: processors // count * SCALE}),), ()


def _count(text: str | None) -> int | None:
    """Return the number at the beginning of *text*: heads say such as ``128 (plus 2 for logging in)``."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) or None if found is not None else None
