"""A resource group in miniature, on which schedulers are taken at their word: one slot, sessions of one container, true time limits.

It answers wishes by the book and knows nothing of the platform's own brain, so that the one can be held against the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from backendai.spec.scheduler_v10 import Attempt, Holding, Node, Outcome, QueueView, Reserve, Scheduler, Waiting

START = 1_800_000_000.0


@dataclass(frozen=True, slots=True)
class Job:
    """A session to be. at: the second in which it is asked for. size: thousandths. runs: seconds, and its time limit, None for ever."""

    id: str
    at: int
    size: int
    runs: int | None
    user: str = "user0"
    priority: int = 10


@dataclass(frozen=True, slots=True)
class _Taken:
    """Room of an agent from one second until before another; inf: for ever."""

    agent: int
    begins: float
    ends: float
    size: int


class ToyGroup:
    """sizes: of its agents, in thousandths. shapes: whether sessions are told to be alike that are."""

    def __init__(self, sizes: Sequence[int], shapes: bool = True) -> None:
        self._sizes = sizes
        self._shapes = shapes
        self._now = 0
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Job, _Taken]] = {}
        self._kept: list[_Taken] = []
        self.started: dict[str, int] = {}
        self.tried: list[str] = []  # in the last look
        self.head: tuple[str, int] | None = None  # who found no room first of all, and when it would start if nobody else did

    def run(self, scheduler: Scheduler, jobs: Iterable[Job], until: int, done: Callable[[], bool] = lambda: False) -> None:
        """Let seconds pass until *until* or until *done*; in each, sessions end and come, and the scheduler is asked."""
        coming = sorted(jobs, key=lambda job: (job.at, job.id))
        while self._now < until and not done():
            self._running = {id: held for id, held in self._running.items() if held[1].ends > self._now}
            while coming and coming[0].at <= self._now:
                self._waiting.append(coming.pop(0))
            self.look(scheduler)
            self._now += 1

    def look(self, scheduler: Scheduler) -> None:
        """Hold one conversation, and start whoever was placed."""
        self._kept, self.tried = [], []
        talk = scheduler.attempts(self.view())
        answer: Outcome | None = None
        waiting = {job.id: job for job in self._waiting}
        for _ in range(3 * len(waiting) + 8):
            try:
                wish = next(talk) if answer is None else talk.send(answer)
            except StopIteration:
                break
            job = waiting.get(getattr(wish, "session", ""))
            if job is None or job.id in self._running:  # laws of their own look at that
                answer = Outcome.BLOCKED
            else:
                answer = self._reserve(job) if isinstance(wish, Reserve) else self._try(job, wish)
        talk.close()
        self._waiting = [job for job in self._waiting if job.id not in self._running]

    def view(self) -> QueueView:
        """Return what the scheduler sees."""
        nodes = tuple(Node(f"agent{at}", (size,), (self._free(at, self._now),)) for at, size in enumerate(self._sizes))
        holding = tuple(Holding(job.id, job.user, "project0", job.priority, START + taken.begins, ((job.size,),), (f"agent{taken.agent}",),
                                None if job.runs is None else START + taken.ends) for job, taken in self._running.values())
        waiting = tuple(Waiting(job.id, job.user, "project0", job.priority, START + job.at, ((job.size,),), job.runs,
                                shape=job.size if self._shapes else number) for number, job in enumerate(self._waiting, 1))
        return QueueView(START + self._now, ("slot",), waiting, holding, nodes, total=(sum(self._sizes),))

    def _try(self, job: Job, wish: Attempt) -> Outcome:
        self.tried.append(job.id)
        if job.size > max(self._sizes):
            return Outcome.IMPOSSIBLE
        ends = float("inf") if job.runs is None else self._now + job.runs
        for at in range(len(self._sizes)):
            moments = [self._now, *(kept.begins for kept in self._kept if kept.agent == at and self._now < kept.begins < ends)]
            if f"agent{at}" not in wish.avoid and all(self._free(at, moment) >= job.size for moment in moments):
                self._running[job.id] = (job, _Taken(at, self._now, ends, job.size))
                self.started[job.id] = self._now
                return Outcome.PLACED
        if self.head is None and (due := self._first_fit(job)) is not None:
            self.head = (job.id, due)
        return Outcome.BLOCKED

    def _reserve(self, job: Job) -> Outcome:
        ends = [t.ends for t in (*(held for _, held in self._running.values()), *self._kept) if t.ends < float("inf")]
        for time in sorted({self._now + 1, *ends}):
            for at in range(len(self._sizes)):
                later = [time, *(kept.begins for kept in self._kept if kept.agent == at and kept.begins > time)]
                if all(self._free(at, moment) >= job.size for moment in later):
                    self._kept.append(_Taken(at, time, float("inf") if job.runs is None else time + job.runs, job.size))
                    return Outcome.RESERVED
        return Outcome.UNKNOWN

    def _first_fit(self, job: Job) -> int | None:
        """Return when there will be room for it first if nobody else starts, None where nobody can tell."""
        times = sorted({self._now, *(int(t.ends) for _, t in self._running.values() if t.ends < float("inf"))})
        return next((time for time in times for at in range(len(self._sizes)) if self._free(at, time) >= job.size), None)

    def _free(self, at: int, moment: float) -> int:
        """Return what is free of an agent in a second, as far as it is known."""
        taken = [*(held for _, held in self._running.values()), *self._kept]
        return self._sizes[at] - sum(one.size for one in taken if one.agent == at and one.begins <= moment < one.ends)
