"""Which device of an agent gives what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import Agent, Lease, Request
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo
from numpy.typing import NDArray

GPU = "cuda.shares"
FIFO: Any = Fifo()


class Picking(Concentrated):
    """Picks a device by number."""

    def __init__(self, pick: int) -> None:
        self.pick = pick
        self.seen: list[tuple[int, list[int], tuple[str, ...]]] = []

    def pick_device(self, request: int, free: NDArray[np.int64], view: PlacementView) -> int:
        """Pick it, and remember what was asked."""
        self.seen.append((request, free.tolist(), view.agents))
        return self.pick


def plan_of(selector: Any, held: dict[str, int], *amounts: int, kernels: int = 1) -> Plan:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {GPU: 3 * SCALE}, {}, devices={GPU: {"g0": SCALE, "g1": SCALE, "g2": SCALE}}))
    for device, amount in held.items():
        cluster.hold(Lease(device, "u", "p", "d", 1, 0.0, ({GPU: amount},), ("a",), units=({GPU: {device: amount}},)))
    for n, amount in enumerate(amounts):
        cluster.wait(Request(f"s{n}", "u", "p", "d", 1, float(n), ({GPU: amount},) * kernels))
    return make_plan(cluster.freeze(0.0), FIFO, selector)


def units(plan: Plan) -> list[dict[str, int]]:
    return [dict(unit[GPU]) for placement in plan.placements for unit in placement.units]


@pytest.mark.parametrize(("held", "amount", "gives"), [
    ({"g0": 200, "g1": 500}, 400, {"g1": 400}),  # the fullest that suffices
    ({"g0": 200, "g1": 500}, 600, {"g0": 600}),
    ({"g1": 500}, 2 * SCALE, {"g0": SCALE, "g2": SCALE}),
])
def test_parts_come_from_the_fullest_and_wholes_from_those_that_are_whole(held: dict[str, int], amount: int, gives: dict[str, int]) -> None:
    assert units(plan_of(Concentrated(), held, amount)) == [gives]


@pytest.mark.parametrize(("held", "amount", "says"), [
    ({"g0": 500, "g1": 500, "g2": 500}, 600, "Waits for 0.6 of one cuda.shares on one agent; it is free in parts only."),
    ({"g0": 500, "g1": 500}, 2 * SCALE, "Waits for 2 cuda.shares, each of them whole, on one agent; it is free in parts only."),
])
def test_what_is_free_in_sum_only_does_not_do(held: dict[str, int], amount: int, says: str) -> None:
    plan = plan_of(Concentrated(), held, amount)
    assert not plan.placements and plan.holds == {"s0": says}


def test_a_gang_gets_each_device_once() -> None:
    plan = plan_of(Concentrated(), {}, 600, kernels=3)
    assert units(plan) == [{"g0": 600}, {"g1": 600}, {"g2": 600}]
    assert units(plan_of(Concentrated(), {}, 500, kernels=3)) == [{"g0": 500}, {"g0": 500}, {"g1": 500}]


def test_the_selector_may_pick_the_device() -> None:
    selector = Picking(2)
    assert units(plan_of(selector, {"g0": 200}, 300)) == [{"g2": 300}]
    assert selector.seen == [(300, [800, SCALE, SCALE], ("a",))]
    assert units(plan_of(Picking(2), {}, 2 * SCALE)) == [{"g0": SCALE, "g1": SCALE}], "whole ones it is not asked about"


@pytest.mark.parametrize("pick", [0, 3, -1, "g1", None])
def test_a_pick_that_cannot_be_is_blamed(pick: Any) -> None:
    plan = plan_of(Picking(pick), {"g0": 800}, 300)
    assert not plan.placements and plan.fault is not None
    assert (plan.fault.spec, plan.fault.hook) == ("agentselector", "pick_device")


def test_the_contracts_own_hooks_are_no_hooks() -> None:
    class Whole(AgentSelector):
        def scores(self, view: PlacementView) -> NDArray[np.float64]:
            return np.zeros(len(view.agents))

    assert units(plan_of(Whole(), {}, 300)) == [{"g0": 300}]
