"""A trace: jobs that were asked for somewhere, and the machine that is to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from backendai.model.errors import Failure
from backendai.model.slots import Slots

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was asked for. submitted_at: seconds, on the trace's own clock. duration_s: how long it truly runs.

    kernels: what each of its containers needs, in internal units. limit_s: the time limit that its user gave, None where none is known.
    models: the node models that it may run on; empty for any.
    """

    id: str
    user: str
    submitted_at: float
    duration_s: float
    kernels: tuple[Slots, ...]
    project: str = ""
    domain: str = ""
    priority: int = 10
    limit_s: float | None = None
    preemptible: bool = False
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """So many equal nodes. devices: of each slot that is lent in fractions, how many devices a node has.

    name: of a node; numbered where there are several.
    """

    count: int
    slots: Slots
    name: str = "node"
    model: str = ""
    devices: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a reader found. jobs: in the order of submission. unit: the slot that the trace is about, such as its accelerators.

    splits: whether a job larger than a node stands for several containers; readers whose format knows nodes say no. nodes: those that
    the trace itself names. notes: sentences on what was left out, and why.
    """

    format: str
    jobs: tuple[Job, ...]
    unit: str
    splits: bool = False
    nodes: tuple[Kind, ...] = ()
    notes: tuple[str, ...] = ()


class Tally:
    """Counts what is left out of a trace, by reason."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, why: str, count: int = 1) -> None:
        """Count *count* jobs more for a reason, which completes "N jobs ...". A singular and a plural are parted by ``|``."""
        self._counts[why] = self._counts.get(why, 0) + count

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason."""
        return tuple(f"{n:,} {'job' if n == 1 else 'jobs'} {why.partition('|')[0 if n == 1 or '|' not in why else 2]}."
                     for why, n in self._counts.items() if n)


def at(name: str, line: int, what: str) -> Failure:
    """Return what to raise for a line that cannot be read: file, line, and what to write instead."""
    return Failure("invalid-request", f"{name}:{line}: {what}")


def number(name: str, line: int, column: str, text: str, convert: Callable[[str], T]) -> T:
    """Read a number of a column, or raise ``Failure('invalid-request')`` that says where."""
    try:
        return convert(text)
    except ValueError:
        raise at(name, line, f"{column} is {text.strip()!r}; write a number.") from None


def by_submission(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return *jobs* in the order of submission; those of one moment stay as they stood."""
    return tuple(sorted(jobs, key=lambda job: job.submitted_at))
