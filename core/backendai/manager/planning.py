"""One resource group's planner: it wakes, freezes its mirror, lets the brain decide in a thread, asks the site's vetoes, and commits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from backendai.manager import faults
from backendai.manager.context import Context
from backendai.manager.decisions import Note, Recorder
from backendai.manager.mirror import Mirror, Side
from backendai.manager.placing import Placing, Proposal
from backendai.manager.settle import Settler
from backendai.manager.sights import Sight, labels_of
from backendai.manager.worker import Worker
from backendai.model.units import format_time
from backendai.plugin.errors import Incompatible, Missing, PluginFault
from backendai.sokovan.plan import Fault, Plan, make_plan
from backendai.spec import agentselector_v10, scheduler_v10
from backendai.spec.agentselector_v10 import AgentSelector

log = logging.getLogger(__name__)
PLAN_S = 1.0  # as the contract of ``scheduler`` says
SLACK_S = 0.5  # from a plugin's deadline until it is given up in the middle of a call
AGAIN_S = 0.1  # after a lost race
HOLD_S = 1.0  # a hold that changes is written at most this often; the first one at once
ASK = "ask your administrator to look at `bai plugin ls`"


@dataclass(slots=True)
class _Turn:
    """What the thread is doing. until: when it shall come to an end (monotonic). at: which plugin has the word. late: it was cut short."""

    plugins: tuple[str, str] = ("", "")
    until: float = 0.0
    at: str = "scheduler"
    late: bool = False

    def is_late(self) -> bool:
        """Tell whether the time is up."""
        self.late = self.late or time.monotonic() > self.until
        return self.late


@dataclass(frozen=True, slots=True)
class _Found:
    """What the thread has found. holds: of those who were asked for."""

    plan: Plan
    holds: Mapping[str, str] = field(default_factory=dict)
    note: Note | None = None


class Planner:
    """Decides for one resource group. pause: seconds until the next round without an event, None for none."""

    def __init__(self, context: Context, settler: Settler, mirror: Mirror, side: Side,
                 make_worker: Callable[[str], Worker] = Worker) -> None:
        self._make_worker = make_worker
        self._context = context
        self._settler = settler
        self._mirror = mirror
        self._placing = Placing(context, settler, mirror, side)
        self._worker: Worker | None = None
        self._drivers: tuple[Any, Any] | None = None
        self._said_at = float("-inf")
        self._turn = _Turn()
        self._recorder = Recorder()
        self.side = side
        self.pause: float | None = None

    async def run(self) -> None:
        """Plan whenever there is a reason to, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    await self.side.bell.wait()
            began = time.monotonic()
            if not await self.round():
                await asyncio.sleep(time.monotonic() - began)  # planning in vain takes at most half of the time

    async def round(self) -> bool:
        """Make one plan and commit what still holds; who lost a race is in the next one again. Tell whether anybody was placed."""
        side, now = self.side, self._context.clock()
        side.bell.clear()
        self.pause = None
        if (soonest := self._mirror.admit(side, now)) is not None:
            self._wait_at_most(soonest - now)
        if not side.waiting:
            return True
        began = time.monotonic()
        proposal = await self.propose()
        missed = await self._placing.commit(proposal, self._worth_saying(proposal.holds))
        self._context.metrics.planned(side.group.name, time.monotonic() - began, placed=len(proposal.placements) - missed, missed=missed,
                                      refused=len(proposal.refused), evicted=len(proposal.plan.evictions))
        if missed:
            self._wait_at_most(AGAIN_S)
        return len(proposal.placements) > missed

    def close(self) -> None:
        """Let go of the thread."""
        if self._worker is not None:
            self._worker.close()
            self._worker, self._recorder = None, Recorder()

    def sight(self) -> Sight:
        """Freeze the group as it is now; raise ``Missing`` when a plugin of choice is not there."""
        scheduler, selector = self._drivers or self._find_drivers()
        group, config = self.side.group, self._context.config
        labels = labels_of(self._context.host, group.scheduler or config.scheduler, group.selector or config.selector)
        return Sight(group.id, self.side.cluster.freeze(self._context.clock()), scheduler, selector, labels)

    async def propose(self) -> Proposal:
        """Plan until no plugin objects any more. An objection leaves room, so the others are planned again without that session."""
        side, notices = self.side, self._settler.notices
        if len(side.aside) == len(side.waiting):
            return Proposal(holds=self._aside(()))
        vetoed: dict[str, str] = {}
        refused: dict[str, str] = {}
        allowed: set[tuple[str, tuple[str, ...]]] = set()
        while True:
            sight, found = await self._plan()
            placements = [p for p in found.plan.placements if p.session in side.waiting and self._mirror.nodes.keys() >= set(p.agents)]
            asked = {p.session: p.agents for p in placements if (p.session, p.agents) not in allowed}
            told = {id: [self._mirror.nodes[agent].agent.name for agent in agents] for id, agents in asked.items()}
            no = await notices.ask("predicate", told)
            no |= self._placing.unconnected([p for p in placements if p.session in asked.keys() - no.keys()])
            never = await notices.ask("pre_start_session", {id: agents for id, agents in told.items() if id not in no})
            vetoed |= no
            refused |= never
            for id in (*no, *never):  # they are brought in again by the next round
                side.put_aside(id)
            if not no and not never:
                break
            allowed |= {(id, agents) for id, agents in asked.items() if id not in no and id not in never}
        holds = {id: self._mirror.say(id, text) for id, text in found.holds.items()}
        return Proposal(sight, found.note, found.plan, tuple(placements), {**holds, **self._aside(vetoed), **vetoed}, refused)

    async def _plan(self) -> tuple[Sight | None, _Found]:
        group, config, host = self.side.group, self._context.config, self._context.host
        try:
            self._drivers = (await host.variant(scheduler_v10.SPEC, group.scheduler or config.scheduler, group.options.scheduler),
                             await host.variant(agentselector_v10.SPEC, group.selector or config.selector, group.options.selector))
        except (Missing, Incompatible) as error:
            return None, _Found(Plan(), dict.fromkeys(self.side.waiting.keys() - self.side.aside, f"{error}; {ASK}."))
        sight = self.sight()
        return sight, await self._decide(sight)

    def _aside(self, vetoed: Collection[str]) -> dict[str, str]:
        """Say why those wait that no plan sees."""
        side, now, said = self.side, self._context.clock(), {}
        for id in [id for id in side.unsaid if id in side.aside and id not in vetoed]:
            held = side.waiting[id]
            if many := self._mirror.unmet(id):
                said[id] = "Waits for another session to end." if many == 1 else f"Waits for {many} other sessions to end."
            elif held.not_before is not None and held.not_before > now:
                said[id] = f"Waits until {format_time(held.not_before)}."
            if side.said.get(id) == said.get(id):
                side.unsaid.discard(id)
        return said

    def _find_drivers(self) -> tuple[Any, Any]:
        group, config, host = self.side.group, self._context.config, self._context.host
        return (host.one(scheduler_v10.SPEC, group.scheduler or config.scheduler),
                host.one(agentselector_v10.SPEC, group.selector or config.selector))

    async def _decide(self, sight: Sight) -> _Found:
        """Let the brain decide in the group's thread, and give it up when it does not come to an end."""
        if self._worker is not None and self._worker.busy:
            if sight.plugins == self._turn.plugins:
                return _Found(Plan(), self._hung(self._turn))
            self.close()  # others were chosen; the thread ends should they ever come back
        if self._worker is None:
            self._worker = self._make_worker(f"plan-{self.side.group.name}")
        turn = self._turn = _Turn(sight.plugins, time.monotonic() + PLAN_S)
        wanted = self._wanted()
        try:
            async with asyncio.timeout(PLAN_S + SLACK_S):
                found = await self._worker.run(lambda: _work(sight, wanted, turn, self._recorder))
        except TimeoutError:
            turn.until = 0.0
            hook = "attempts" if turn.at == "scheduler" else "scores"
            self._blame(Fault(turn.at, hook, TimeoutError("no end within its deadline")))
            return _Found(Plan(), self._hung(turn))
        if found.plan.fault is not None:
            if turn.late and found.plan.placements:
                self.side.bell.set()  # it got somewhere, and goes on from there
            else:
                self._blame(found.plan.fault)
        return found

    def _hung(self, turn: _Turn) -> dict[str, str]:
        """Say what everybody waits for while a plugin does not come back."""
        name = turn.plugins[0 if turn.at == "scheduler" else 1]
        said = f"The {turn.at} plugin {name} does not come to an end; {ASK} and the manager's log."
        return dict.fromkeys(self.side.waiting.keys() - self.side.aside, said)

    def _wanted(self) -> Callable[[Plan], Mapping[str, str]]:
        """Return how to pick the holds that are worth working out: first ones always, all of them once a second."""
        side = self.side
        if self._context.clock() - self._said_at >= self._often:
            return lambda plan: dict(plan.holds)
        first = list(side.unsaid)
        if len(first) < len(side.waiting) - len(side.aside):
            self._wait_at_most(self._often)
        return lambda plan: {id: plan.holds[id] for id in first if id in plan.holds}

    def _worth_saying(self, holds: Mapping[str, str]) -> Mapping[str, str]:
        """Return the holds to write now: first ones always, changed ones once a second for all."""
        now, known = self._context.clock(), self.side.said
        changed = {id: said for id, said in holds.items() if id in known and known[id] != said}
        if now - self._said_at >= self._often:
            if any(known[id] for id in changed):
                self._said_at = now
            return changed
        first = {id: said for id, said in changed.items() if not known[id]}
        if len(first) < len(changed):
            self._wait_at_most(self._often)
        return first

    @property
    def _often(self) -> float:
        """Return how many seconds lie between two times at which all holds are worked out: more in a long queue."""
        return HOLD_S * max(1.0, len(self.side.waiting) / 2000)

    def _wait_at_most(self, seconds: float) -> None:
        self.pause = max(seconds, 0.01) if self.pause is None else min(self.pause, max(seconds, 0.01))

    def _blame(self, fault: Fault) -> None:
        """Count a fault that the host could not see, as it came while the plugin was being iterated."""
        if isinstance(fault.error, PluginFault):
            return
        config, group = self._context.config, self.side.group
        spec, name = ((scheduler_v10.SPEC, group.scheduler or config.scheduler) if fault.spec == "scheduler"
                      else (agentselector_v10.SPEC, group.selector or config.selector))
        id = f"{spec.id}.{name}"
        dist = next((f"{row.dist} {row.version}" for row in self._context.host.rows if row.id == id), "")
        error = PluginFault(id, dist, fault.hook, f"{type(fault.error).__name__}: {fault.error}")
        error.__cause__ = fault.error
        log.warning("%s", error, exc_info=fault.error)
        faults.plugin_fault(self._context, error)


class _Watched:
    """A selector whose turns are noted, so that one that hangs is blamed, and not the scheduler."""

    def __init__(self, selector: Any, turn: _Turn) -> None:
        for name in agentselector_v10.SPEC.hooks():
            if (call := getattr(selector, name, None)) is not None:
                setattr(self, name, _noted(call, turn))


def _noted(call: Callable[..., Any], turn: _Turn) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        turn.at = "agentselector"
        answer = call(*given)
        turn.at = "scheduler"
        return answer

    return noted


def _work(sight: Sight, wanted: Callable[[Plan], Mapping[str, str]], turn: _Turn, recorder: Recorder) -> _Found:
    """Decide; this runs in the thread."""
    plan = make_plan(sight.snapshot, sight.scheduler, cast(AgentSelector, _Watched(sight.selector, turn)), turn.is_late)
    return _Found(plan, wanted(plan), recorder.note(sight.snapshot, plan))
