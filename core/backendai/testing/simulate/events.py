"""Virtual time: jobs arrive and end, and between them the production brain decides who starts."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter, thread_time

from backendai.model.errors import Failure
from backendai.model.group import GroupOptions
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import Lease
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler
from backendai.testing.simulate.record import Record
from backendai.testing.simulate.scene import Scene, Task
from backendai.testing.simulate.shares import REFRESH_S, Shares
from backendai.testing.simulate.space import Space
from backendai.testing.simulate.wake import Wake

PATIENCE_S = 10.0  # of a core, for a plan: no plugin that comes to an end takes so long
Tell = Callable[[int, float], None]


def simulate(scene: Scene, scheduler: Scheduler, selector: AgentSelector, options: GroupOptions | None = None,
             tell: Tell = lambda ended, now: None) -> Record:
    """Run every task and return what came of it. Events of one second are one, and one plan follows them.

    tell: is called with the tasks that have ended and the virtual time, often. A ``KeyboardInterrupt`` ends the run with what there is.
    Raise ``Failure('plugin-fault')`` where a plugin breaks a plan off.
    """
    world = _World(scene, scheduler, selector, options or GroupOptions())
    try:
        world.run(tell)
    except KeyboardInterrupt:
        world.record.stopped = True
    world.record.close()
    return world.record


class _World:
    """The cluster, who waits and runs, and the events to come."""

    def __init__(self, scene: Scene, scheduler: Scheduler, selector: AgentSelector, options: GroupOptions) -> None:
        self.record = Record(scene)
        self._tasks: Sequence[Task] = scene.tasks
        self._index = {task.request.id: i for i, task in enumerate(scene.tasks)}
        if len(self._index) < len(scene.tasks):
            raise Failure("invalid-request", "Two jobs of the trace have one id; give each its own.")
        self._scheduler, self._selector, self._options = scheduler, selector, options
        self._cluster = Cluster()
        self._cluster.set_options(options)
        for agent in scene.agents:
            self._cluster.put_agent(agent)
        self._space = Space(scene.agents)
        self._wake = Wake(self._space, (task.request for task in scene.tasks))
        self._shares = Shares(scene.agents, options.half_life_s)
        self._ends: list[tuple[float, int, int]] = []  # when, task, which attempt
        self._leases: dict[int, Lease] = {}
        self._waiting = 0
        self._refreshed = -math.inf

    def run(self, tell: Tell) -> None:
        """Go from event to event until nothing more can happen."""
        tasks, ends, next_one, total = self._tasks, self._ends, 0, len(self._tasks)
        while next_one < total or ends:
            first = min(tasks[next_one].request.submitted_at if next_one < total else math.inf, ends[0][0] if ends else math.inf)
            edge, now, wake = math.floor(first) + 1, first, False
            while ends and ends[0][0] < edge:
                when, i, attempt = heapq.heappop(ends)
                wake, now = self._end(i, attempt, when) or wake, max(now, when)
            while next_one < total and tasks[next_one].request.submitted_at < edge:
                now = max(now, tasks[next_one].request.submitted_at)
                wake = self._arrive(next_one) or wake
                next_one += 1
            if wake and self._waiting:
                self._plan(now)
            self.record.note(now, self._waiting)
            tell(self.record.ended, now)

    def _arrive(self, i: int) -> bool:
        """Put a task into the queue; tell whether that is worth a plan."""
        task = self._tasks[i]
        self._cluster.wait(task.request)
        self.record.arrived(i)
        self._waiting += 1
        return self._wake.comes(task.request) or self._options.preemption.enabled

    def _end(self, i: int, attempt: int, when: float) -> bool:
        """End a task, or send it back to the queue when it has made room; tell whether anything has changed."""
        lease = self._leases.get(i)
        if lease is None or attempt != self.record.attempts[i]:
            return False  # that attempt was cut short before
        del self._leases[i]
        self._cluster.release(lease.id)
        self._space.give_back(lease)
        self._shares.move(lease, when, -1)
        task = self._tasks[i]
        if when < lease.started_at + task.duration_s:  # it was preempted
            self.record.evicted(i)
            self._cluster.wait(task.request)
            self._wake.comes(task.request)
            self._waiting += 1
        else:
            self.record.finished(i, when)
        return True

    def _plan(self, now: float) -> None:
        """Ask the brain, and do what it says."""
        begun, until = thread_time(), perf_counter() + PATIENCE_S
        if now >= self._refreshed + REFRESH_S:
            self._cluster.set_accounts(self._shares.accounts(now))
            self._refreshed = now
        snapshot = self._cluster.freeze(now, lent=True)
        plan = make_plan(snapshot, self._scheduler, self._selector, lambda: perf_counter() > until and thread_time() > begun + PATIENCE_S)
        self.record.planned(thread_time() - begun, len(plan.placements))
        if plan.fault is not None:
            fault = plan.fault
            raise Failure("plugin-fault", f"The {fault.spec} failed in {fault.hook}() at {now:.0f} s of the trace, with {self._waiting:,} "
                                          f"waiting: {type(fault.error).__name__}: {fault.error}. `bai plugin check` tries its laws.")
        self.record.sample(snapshot, now)
        self._follow(plan, now)

    def _follow(self, plan: Plan, now: float) -> None:
        """Start who is placed, and have victims end."""
        for placement in plan.placements:
            i = self._index[placement.session]
            task, request = self._tasks[i], self._tasks[i].request
            limit = request.time_limit_s
            lease = Lease(request.id, request.user, request.project, request.domain, request.priority, now, request.kernels,
                          placement.agents, None if limit is None else now + limit, request.preemptible, placement.units)
            self._cluster.hold(lease)
            self._leases[i] = lease
            self._space.take(lease)
            self._shares.move(lease, now, 1)
            self._wake.goes(request)
            self._waiting -= 1
            heapq.heappush(self._ends, (now + task.duration_s, i, self.record.started(i, now)))
        self._wake.planned(plan)
        for victim in plan.evictions:
            self._evict(self._index[victim.victim], now)
        for session, agents in plan.claims.items():
            request = self._tasks[self._index[session]].request
            self._cluster.wait(replace(request, claim=tuple(agents)))

    def _evict(self, i: int, now: float) -> None:
        """Have a running task end after its grace; until then nobody else may have it make room."""
        lease = self._leases.get(i)
        if lease is None:
            return
        ends = now + self._options.preemption.grace_s
        warned = replace(lease, preemptible=False, ends_by=ends if lease.ends_by is None else min(ends, lease.ends_by))
        self._cluster.hold(warned)
        self._leases[i] = warned
        heapq.heappush(self._ends, (ends, i, self.record.attempts[i]))
