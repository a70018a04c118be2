"""What every plan must keep to, whatever the queue and the cluster look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

import numpy as np
import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import Agent, Lease, Request
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai.spec.scheduler_v10 import Scheduler
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_scheduler.fifo import Fifo
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

T = TypeVar("T")
SLOTS = ("cpu", "mem", "cuda.device")


@dataclass(frozen=True)
class Scene:
    """A queue and a cluster, and what decides about them."""

    waiting: tuple[Request, ...]
    agents: tuple[Agent, ...]
    holding: tuple[Lease, ...]
    scheduler: Scheduler
    selector: AgentSelector

    def plan(self) -> Plan:
        return make_plan(take(1000.0, self.waiting, self.agents, self.holding), self.scheduler, self.selector)


class Wild:
    """A selector whose scores follow from what it sees, and otherwise mean nothing."""

    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        rolled = Random(f"{view.agents}{view.request.tolist()}{view.free.tolist()}{view.last_used.tolist()}")
        return np.array([rolled.random() for _ in view.agents])


STEP = {"cpu": SCALE, "mem": 1 << 30, "cuda.device": SCALE}
amounts = st.dictionaries(st.sampled_from(SLOTS), st.integers(0, 6), max_size=3).map(
    lambda given: {name: n * STEP[name] for name, n in given.items()})


@st.composite
def scenes(draw: st.DrawFn, most_kernels: int = 3) -> Scene:
    agents = []
    for n in range(draw(st.integers(0, 5))):
        capacity = draw(amounts)
        used = {name: STEP[name] * draw(st.integers(0, amount // STEP[name] + 2)) for name, amount in capacity.items()}
        agents.append(Agent(f"a{n}", f"node{n}", capacity, used, draw(st.sampled_from(("", "", "", "it is not connected"))),
                            draw(st.integers(0, 3)), draw(st.integers(0, 3))))
    waiting = [Request(f"s{n}", draw(st.sampled_from("uv")), "", "", draw(st.integers(0, 2)), float(draw(st.integers(0, 3))),
                       tuple(draw(st.lists(amounts, min_size=1, max_size=most_kernels))))
               for n in range(draw(st.integers(0, 8)))]
    holding = [Lease(f"h{n}", "u", "", "", 10, 0.0, (draw(amounts),), ("a0",)) for n in range(draw(st.integers(0, 3)))]
    scheduler: Scheduler = Fifo(Fifo.Config(overtake=draw(st.booleans())))  # type: ignore[assignment]  # plugins have no base class
    selector: AgentSelector = draw(st.sampled_from((Concentrated(), Dispersed(), Wild())))  # type: ignore[assignment]  # as above
    return Scene(tuple(waiting), tuple(agents), tuple(holding), scheduler, selector)


def granted(scene: Scene, plan: Plan) -> Counter[tuple[str, str]]:
    """Add up what *plan* gives away, by agent and slot."""
    sums: Counter[tuple[str, str]] = Counter()
    asked = {request.id: request.kernels for request in scene.waiting}
    for placement in plan.placements:
        for kernel, agent in zip(asked[placement.session], placement.agents, strict=True):
            for name, amount in kernel.items():
                sums[agent, name] += amount
    return sums


@given(scenes())
def test_nothing_is_ever_given_twice(scene: Scene) -> None:
    plan = scene.plan()
    agents = {agent.id: agent for agent in scene.agents}
    for (agent, name), amount in granted(scene, plan).items():
        free = max(0, agents[agent].capacity.get(name, 0) - agents[agent].used.get(name, 0))
        assert amount <= free, f"{agent} gives {amount} of {free} {name}"
        assert not agents[agent].why


@given(scenes())
def test_everybody_is_placed_whole_or_told_why_not(scene: Scene) -> None:
    plan = scene.plan()
    placed = [placement.session for placement in plan.placements]
    assert plan.fault is None
    assert len(set(placed)) == len(placed)
    assert set(placed) | plan.holds.keys() == {request.id for request in scene.waiting}
    assert not set(placed) & plan.holds.keys()
    assert all(said.endswith((".", "!")) and "\n" not in said for said in plan.holds.values())
    kernels = {request.id: len(request.kernels) for request in scene.waiting}
    assert all(len(placement.agents) == kernels[placement.session] for placement in plan.placements)


def backwards(slots: Mapping[str, int]) -> dict[str, int]:
    return dict(reversed(list(slots.items())))


@given(scenes(), st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_what_was_read(scene: Scene, random: Random) -> None:
    def shuffled(items: tuple[T, ...]) -> tuple[T, ...]:
        mixed = list(items)
        random.shuffle(mixed)
        return tuple(mixed)

    agents = tuple(replace(a, capacity=backwards(a.capacity), used=backwards(a.used)) for a in scene.agents)
    other = replace(scene, waiting=shuffled(scene.waiting), agents=shuffled(agents), holding=shuffled(scene.holding))
    assert other.plan() == scene.plan() == scene.plan()


@given(scenes())
def test_a_plan_changes_nothing_that_it_was_made_from(scene: Scene) -> None:
    snapshot = take(0.0, scene.waiting, scene.agents, scene.holding)
    before = (snapshot.view, snapshot.free.copy(), snapshot.kernels.copy(), snapshot.last_used.copy())
    make_plan(snapshot, scene.scheduler, scene.selector)
    assert snapshot.view == before[0]
    for now, then in zip((snapshot.free, snapshot.kernels, snapshot.last_used), before[1:], strict=True):
        assert (now == then).all()


@given(scenes(most_kernels=1))
def test_whoever_lacks_room_would_start_on_an_agent_with_as_much(scene: Scene) -> None:
    """The reason is the whole reason: what it asks for is enough."""
    plan = scene.plan()
    for request in scene.waiting:
        if (said := plan.holds.get(request.id, "")).startswith(("Waits for its turn", "No agent")) or not said:
            continue
        more = Agent("b", "new", request.kernels[0], {})
        alone = replace(scene, waiting=(request,), agents=(*scene.agents, more))
        assert [placement.session for placement in alone.plan().placements] == [request.id], said


MOST = re.compile(r"(?:Waits for|Needs) (.+?): the most that one agent (has free now|has at all) is (\S+) \(agent (\w+)\)")


@given(scenes(most_kernels=1))
@settings(max_examples=150)
def test_a_reason_quotes_the_cluster_as_it_is(scene: Scene) -> None:
    """Without overtaking nobody is placed after the first who is blocked, so what it quotes is what is left at the end."""
    scene = replace(scene, scheduler=Fifo())  # type: ignore[arg-type]  # plugins have no base class
    plan = scene.plan()
    gone = granted(scene, plan)
    left = {agent.name: {name: max(0, agent.capacity[name] - agent.used.get(name, 0)) - gone[agent.id, name] for name in agent.capacity}
            for agent in scene.agents if not agent.why}
    whole = {agent.name: dict(agent.capacity) for agent in scene.agents if not agent.why}
    for request in scene.waiting:
        if (found := MOST.match(plan.holds.get(request.id, ""))) is None:
            continue
        table = left if found[2] == "has free now" else whole
        short = [name for name, amount in request.kernels[0].items()
                 if amount and all(slots.get(name, 0) < amount for slots in table.values())]
        best = {name: max(slots.get(name, 0) for slots in table.values()) for name in short}
        assert any(_number(found[3], name) == best[name] == table[found[4]].get(name, 0) for name in short), plan.holds[request.id]
        assert all(found[1].split()[0] != found[3] for _ in short), "what it has looks like what it lacks"


def _number(text: str, name: str) -> int:
    if name == "mem":
        return int(float(text.rstrip("bkmgt")) * {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1], 1))
    return round(float(text) * SCALE)


@given(scenes(), st.data())
def test_who_is_gone_from_the_queue_changes_no_earlier_decision(scene: Scene, data: st.DataObject) -> None:
    """The last of the queue can be taken away, and everybody before it is decided upon as before."""
    order = sorted(scene.waiting, key=lambda r: (-r.priority, r.submitted_at, r.id))
    if not order:
        return
    keep = data.draw(st.integers(0, len(order) - 1))
    fewer = replace(scene, waiting=tuple(order[:keep]))
    first = {placement.session: placement.agents for placement in scene.plan().placements}
    slots = {name for r in scene.waiting for k in r.kernels for name in k} | {name for a in scene.agents for name in a.capacity}
    known = {name for r in order[:keep] for k in r.kernels for name in k} | {name for a in scene.agents for name in a.capacity}
    if isinstance(scene.selector, Wild) and slots != known:
        return  # it looks at columns that nobody asks for any more
    for placement in fewer.plan().placements:
        assert first[placement.session] == placement.agents


@pytest.mark.parametrize("overtake", [False, True])
@given(scene=scenes())
def test_fifo_lets_nobody_pass_unless_told_to(scene: Scene, overtake: bool) -> None:
    scene = replace(scene, scheduler=Fifo(Fifo.Config(overtake)))  # type: ignore[arg-type]  # plugins have no base class
    plan = scene.plan()
    order = [request.id for request in sorted(scene.waiting, key=lambda r: (-r.priority, r.submitted_at, r.id))]
    placed = [placement.session for placement in plan.placements]
    assert placed == [id for id in order if id in placed], "those who are placed are placed in the queue's order"
    turn = [id for id in order if plan.holds.get(id, "").startswith("Waits for its turn: a session ahead")]
    if overtake:
        assert not turn
    elif turn:
        behind = order[order.index(turn[0]):]
        assert not set(behind) & set(placed), "once somebody waits for room, nobody behind is placed"
