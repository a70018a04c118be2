"""What happened in a run, noted as it happens and cheaply; ``measure`` makes figures of it."""

from __future__ import annotations

import math

from backendai.sokovan.snapshot import Snapshot
from backendai.testing.simulate.fragments import Fragments
from backendai.testing.simulate.scene import Scene

SAMPLES = 300  # moments at which fragments and shares are looked at


class Record:
    """Starts and ends of the tasks by their number in the scene (NaN where it never came to that), and what was in use when.

    starts: of the first attempt. attempts: how often a task was started. times, used, queue: after each moment the amount of the unit in
    use and how many wait. fragments: (time, share of what is free that the mix cannot use). shares: (time, used and wanted by user).
    plan_s: seconds that each plan took of a core. stopped: it was interrupted.
    """

    def __init__(self, scene: Scene) -> None:
        count = len(scene.tasks)
        self.scene = scene
        self.starts = [math.nan] * count
        self.ends = [math.nan] * count
        self.attempts = [0] * count
        self.times: list[float] = []
        self.used: list[int] = []
        self.queue: list[int] = []
        self.fragments: list[tuple[float, float]] = []
        self.shares: list[tuple[float, dict[str, tuple[int, int]]]] = []
        self.plan_s: list[float] = []
        self.decisions = self.evictions = self.ended = 0
        self.stopped = False
        self._users = [task.request.user for task in scene.tasks]
        self._sizes = [task.size for task in scene.tasks]
        self._has: dict[str, int] = {}
        self._wants: dict[str, int] = {}
        self._now_used = 0
        self._look = Fragments(scene)
        span = scene.tasks[-1].request.submitted_at - scene.tasks[0].request.submitted_at
        self._step = max(1.0, span / SAMPLES)
        self._next = -math.inf

    def arrived(self, i: int) -> None:
        """Note a task that waits."""
        user = self._users[i]
        self._wants[user] = self._wants.get(user, 0) + self._sizes[i]

    def started(self, i: int, now: float) -> int:
        """Note a start and return the number of the attempt."""
        if not self.attempts[i]:
            self.starts[i] = now
        user, size = self._users[i], self._sizes[i]
        self._wants[user] -= size
        self._has[user] = self._has.get(user, 0) + size
        self._now_used += size
        self.attempts[i] += 1
        return self.attempts[i]

    def finished(self, i: int, now: float) -> None:
        """Note an end."""
        self.ends[i] = now
        self.ended += 1
        self._left(i)

    def evicted(self, i: int) -> None:
        """Note that a task made room and waits again."""
        self.evictions += 1
        self._left(i)
        self.arrived(i)

    def _left(self, i: int) -> None:
        self._has[self._users[i]] -= self._sizes[i]
        self._now_used -= self._sizes[i]

    def note(self, now: float, waiting: int) -> None:
        """Note how full it is after a moment."""
        self.times.append(now)
        self.used.append(self._now_used)
        self.queue.append(waiting)

    def planned(self, seconds: float, placements: int) -> None:
        """Note what a plan took and gave."""
        self.plan_s.append(seconds)
        self.decisions += placements

    def sample(self, snapshot: Snapshot, now: float) -> None:
        """Look at fragments and shares, now and then."""
        if now < self._next:
            return
        self._next = now + self._step
        if (share := self._look.share(snapshot)) is not None:
            self.fragments.append((now, share))
        users = {user for user, size in self._has.items() if size} | {user for user, size in self._wants.items() if size}
        self.shares.append((now, {user: (self._has.get(user, 0), self._wants.get(user, 0)) for user in sorted(users)}))

    def close(self) -> None:
        """End the record: nothing is in use beyond the last moment."""
        if not self.times:
            self.note(0.0, 0)
