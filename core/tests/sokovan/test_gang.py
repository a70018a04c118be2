"""Gangs: whatever a search by brute force finds is found, and what it does not find is not there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from backendai.model.session import Arrange, Wishes, Zone
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Agent, Request
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_scheduler.fifo import Fifo

from core.tests.sokovan.worlds import Rowwise

SEEDS = 500
SLOTS = ("cpu", "mem", "gpu")


def make_gang(random: Random) -> tuple[list[Agent], Request]:
    """Make agents and a gang that they can hardly hold."""
    agents = [Agent(f"a{n}", f"n{n}", {name: random.randint(0, 5) for name in SLOTS}, {}, labels={"zone": random.choice("xyz")})
              for n in range(random.randint(1, 4))]
    kinds = [{name: random.randint(0, 3) for name in SLOTS} for _ in range(random.randint(1, 3))]
    wishes = Wishes(arrange=random.choice((None, None, Arrange.SPREAD)), zone=random.choice((None, None, Zone.SAME, Zone.DIFFERENT)))
    if random.random() < 0.15:
        wishes = Wishes(one_agent=True)
    kernels = tuple(random.choice(kinds) for _ in range(random.randint(2, 5)))
    return agents, Request("g", "u", "", "", 1, 0.0, kernels, wishes=wishes)


def is_good(agents: list[Agent], request: Request, where: tuple[int, ...]) -> bool:
    used: Counter[tuple[int, str]] = Counter()
    for row, kernel in zip(where, request.kernels, strict=True):
        for name, amount in kernel.items():
            used[row, name] += amount
    if any(amount > agents[row].capacity[name] for (row, name), amount in used.items()):
        return False
    wishes, zones = request.wishes, [agents[row].labels["zone"] for row in where]
    if wishes.one_agent:
        return len(set(where)) == 1
    return ((wishes.arrange is not Arrange.SPREAD or len(set(where)) == len(where))
            and (wishes.zone is not Zone.SAME or len(set(zones)) == 1)
            and (wishes.zone is not Zone.DIFFERENT or len(set(zones)) == len(zones)))


def brute_force(agents: list[Agent], request: Request) -> set[tuple[int, ...]]:
    """Return every way in which the gang fits."""
    return {where for where in product(range(len(agents)), repeat=len(request.kernels)) if is_good(agents, request, where)}


@pytest.mark.parametrize("selector", [Concentrated(), Dispersed(), Rowwise()])
def test_a_gang_that_fits_is_found(selector: Any) -> None:
    fifo: Any = Fifo()
    fits = 0
    for seed in range(SEEDS):
        agents, request = make_gang(Random(seed))
        ways = brute_force(agents, request)
        plan = make_plan(take(0.0, [request], agents), fifo, selector)
        assert bool(plan.placements) == bool(ways), f"seed {seed}: {plan}"
        if plan.placements:
            fits += 1
            assert tuple(int(agent[1:]) for agent in plan.placements[0].agents) in ways, f"seed {seed}"
        else:
            assert plan.holds["g"].startswith(("Needs", "No agent")), f"seed {seed}: {plan.holds}"
    assert SEEDS * 0.1 < fits < SEEDS * 0.9, "the cases are of both kinds"


def test_where_the_obvious_way_is_a_dead_end_another_is_found() -> None:
    """Three, three, two, two and two on agents of six each fit one way only."""
    fifo: Any = Fifo()
    selector: Any = Dispersed()
    agents = [Agent(f"a{n}", f"n{n}", {"cpu": 6 * SCALE}, {}) for n in range(2)]
    request = Request("g", "u", "", "", 1, 0.0, tuple({"cpu": n * SCALE} for n in (3, 3, 2, 2, 2)))
    plan = make_plan(take(0.0, [request], agents), fifo, selector)
    assert sorted(Counter(plan.placements[0].agents).values()) == [2, 3]


def test_as_few_agents_as_can_be() -> None:
    fifo: Any = Fifo()
    selector: Any = Dispersed()
    agents = [Agent(f"a{n}", f"n{n}", {"cpu": n * SCALE}, {}) for n in range(1, 7)]
    request = Request("g", "u", "", "", 1, 0.0, ({"cpu": SCALE},) * 9, wishes=Wishes(arrange=Arrange.PACK))
    plan = make_plan(take(0.0, [request], agents), fifo, selector)
    assert len(set(plan.placements[0].agents)) == 2
    busy = [replace(agent, used={"cpu": SCALE}) for agent in agents]
    plan = make_plan(take(0.0, [request], busy), fifo, selector)
    assert len(set(plan.placements[0].agents)) == 2, "five and four are left"
    busy = [replace(agent, used={"cpu": 2 * SCALE}) for agent in agents]
    plan = make_plan(take(0.0, [request], busy), fifo, selector)
    assert not plan.placements and plan.holds["g"] == "Waits for room for all of its 9 containers at once as it asks for."
    prefers = replace(request, wishes=Wishes(arrange=Arrange.PACK, strict=False))
    plan = make_plan(take(0.0, [prefers], busy), fifo, selector)
    assert len(set(plan.placements[0].agents)) == 3


def test_wishes_that_are_no_must_are_followed_where_they_can_be() -> None:
    fifo: Any = Fifo()
    selector: Any = Concentrated()
    agents = [Agent(f"a{n}", f"n{n}", {"cpu": 2 * SCALE}, {}, labels={"zone": "xxy"[n], "kind": "ppq"[n]}) for n in range(3)]

    def where(*cores: int, **wishes: Any) -> list[str]:
        request = Request("g", "u", "", "", 1, 0.0, tuple({"cpu": n * SCALE} for n in cores), wishes=Wishes(strict=False, **wishes))
        return [agent for placement in make_plan(take(0.0, [request], agents), fifo, selector).placements for agent in placement.agents]

    assert where(1, labels={"kind": "q"}) == ["a2"]
    assert where(3, labels={"kind": "q"}) == []
    assert where(2, labels={"kind": "r"}) == ["a0"], "nobody has it, so it does without"
    assert len(set(where(1, 1, 1, arrange=Arrange.SPREAD))) == 3
    assert len(where(1, 1, 1, 1, arrange=Arrange.SPREAD)) == 4, "more containers than agents"
    assert set(where(2, 2, zone=Zone.SAME)) == {"a0", "a1"}
    assert len(where(2, 2, 2, zone=Zone.SAME)) == 3


def test_a_gang_too_large_for_recursion_that_cannot_be_placed_ends_soon() -> None:
    """A search over many containers of several kinds is cut off after a number of steps."""
    fifo: Any = Fifo()
    selector: Any = Rowwise()
    random = Random(3)
    agents = [Agent(f"a{n}", f"n{n}", {"cpu": 700, "gpu": random.randint(1, 2)}, {}) for n in range(300)]
    kernels = tuple({"cpu": random.randint(200, 400), "gpu": random.randint(0, 1)} for _ in range(600))
    plan = make_plan(take(0.0, [Request("g", "u", "", "", 1, 0.0, kernels)], agents), fifo, selector)
    assert plan.fault is None
