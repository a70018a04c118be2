"""Microsoft's Philly trace as CSV: ``timestamp,duration,num_gpus[,gpu_time][,cluster]``, one line for each job, in any order."""

from __future__ import annotations

from datetime import UTC, datetime

from backendai.model.slots import SCALE
from backendai.testing.simulate.columns import Cells, real, rows, whole
from backendai.testing.simulate.trace import Job, Tally, Trace, at, by_submission

NEEDS = ("timestamp", "duration", "num_gpus")
UNIT = "cuda.device"
OMITTED = "has no accelerators or a negative duration, and was left out|have no accelerators or a negative duration, and were left out"


def is_philly(head: list[str]) -> bool:
    """Tell by the names of the columns."""
    return set(NEEDS) <= set(head)


def read_philly(name: str, text: str) -> Trace:
    """Read a trace; users and projects are its virtual clusters. Jobs without accelerators are left out: nothing else is asked for."""
    tally, jobs = Tally(), []
    for row in rows(name, text, NEEDS):
        gpus, duration = row.read("num_gpus", whole), row.read("duration", real)
        if gpus <= 0 or duration < 0:
            tally.add(OMITTED)
            continue
        cluster = row.text("cluster", "all")
        jobs.append(Job(f"philly-{row.line - 1}", row.text("user", cluster), _moment(row), duration, ({UNIT: gpus * SCALE},),
                        project=cluster))
    return Trace("philly", by_submission(jobs), UNIT, splits=True, notes=tally.notes())


def _moment(row: Cells) -> float:
    """Read ``2017-10-09 07:01:55``, which is taken as UTC, or seconds."""
    text = row.text("timestamp")
    try:
        return real(text)
    except ValueError:
        pass  # then it is a date
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise at(row.name, row.line, f"timestamp is {text!r}; write 2017-10-09 07:01:55 or seconds.") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
