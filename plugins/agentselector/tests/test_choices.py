"""Whom the selectors choose, alone and over many containers, and what must not change their mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import pytest
from backendai.spec.agentselector_v10 import PlacementView
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_agentselector.fragmentation import Fragmentation
from backendai_agentselector.roundrobin import RoundRobin
from hypothesis import assume, given
from hypothesis import strategies as st

SLOTS = ("cpu", "mem", "gpu")
GIB = 1 << 30
Amounts = Mapping[str, int]
Selector = Concentrated | Dispersed | Fragmentation | RoundRobin


def row(amounts: Amounts) -> list[int]:
    return [amounts.get(slot, 0) for slot in SLOTS]


def view(request: Amounts, agents: Sequence[tuple[Amounts, Amounts]], kernels: Sequence[int] = (),
         last: Sequence[int] = ()) -> PlacementView:
    """Return what a selector sees. agents: (capacity, free) of each."""
    count = len(agents)
    arrays = [np.array(row(request)), np.array([row(capacity) for capacity, _ in agents]), np.array([row(free) for _, free in agents]),
              np.array(kernels or [0] * count), np.array(last or [0] * count)]
    for array in arrays:
        array.setflags(write=False)
    return PlacementView(SLOTS, tuple(f"agent{n}" for n in range(count)), *arrays)


def chosen(selector: Selector, seen: PlacementView) -> int:
    """Return the agent that the platform would take: the highest score, and among equals the first."""
    return int(np.argmax(selector.scores(seen)))


CPU: Amounts = {"cpu": 8000, "mem": 32 * GIB}
GPU: Amounts = {**CPU, "gpu": 4000}
JOB: Amounts = {"cpu": 1000, "mem": GIB}


def free(capacity: Amounts, **taken: int) -> tuple[Amounts, Amounts]:
    return capacity, {slot: amount - taken.get(slot, 0) for slot, amount in capacity.items()}


def test_concentrated_takes_the_fullest_that_has_room() -> None:
    assert chosen(Concentrated(), view(JOB, [free(CPU), free(CPU, cpu=6000), free(CPU, cpu=3000)])) == 1


@pytest.mark.parametrize("selector", [Concentrated(), Dispersed(), Fragmentation(), RoundRobin()], ids=lambda one: type(one).__name__)
def test_those_who_need_no_accelerator_stay_off_them(selector: Selector) -> None:
    full = free(CPU, cpu=7000, mem=31 * GIB)
    assert chosen(selector, view(JOB, [free(GPU), full], last=[0, 9])) == 1
    assert chosen(selector, view(JOB, [free(GPU, cpu=7000, mem=31 * GIB), free(CPU)], last=[0, 9])) == 1


def test_concentrated_takes_the_fullest_accelerator_node_for_who_needs_one() -> None:
    nodes = [free(GPU, cpu=6000, mem=16 * GIB), free(CPU)]
    assert chosen(Concentrated(), view({**JOB, "gpu": 1000}, [nodes[0], free(GPU)])) == 0


def test_dispersed_takes_the_emptiest() -> None:
    assert chosen(Dispersed(), view(JOB, [free(CPU, cpu=1000), free(CPU, cpu=6000), free(CPU)])) == 2


def test_dispersed_takes_the_fewest_containers_and_then_whoever_waited_longest() -> None:
    alike = [free(CPU)] * 3
    assert chosen(Dispersed(), view(JOB, alike, kernels=[2, 1, 3])) == 1
    assert chosen(Dispersed(), view(JOB, alike, kernels=[1, 1, 1], last=[7, 9, 3])) == 2
    assert chosen(Dispersed(), view(JOB, alike, kernels=[2, 1, 1], last=[1, 9, 3])) == 2


def test_roundrobin_takes_whoever_waited_longest() -> None:
    nodes = [free(CPU), free(CPU, cpu=4000), free(CPU, cpu=7000)]
    assert chosen(RoundRobin(), view(JOB, nodes, last=[7, 9, 3])) == 2
    assert chosen(RoundRobin(), view(JOB, nodes, last=[7, 0, 0])) == 1


def test_roundrobin_goes_round() -> None:
    assert fill(RoundRobin(), 4, 8) == [2, 2, 2, 2]


def test_a_share_outweighs_any_number_of_containers() -> None:
    assert chosen(Dispersed(), view(JOB, [free(CPU, cpu=1), free(CPU)], kernels=[0, 1000], last=[0, 10**9])) == 1


def test_what_is_not_asked_for_does_not_count() -> None:
    """A node whose accelerators are idle is not thereby the emptier one."""
    for selector, taken in ((Concentrated(), 0), (Dispersed(), 1)):
        assert chosen(selector, view(JOB, [free(GPU, cpu=4000), free(GPU, cpu=2000, gpu=4000)])) == taken


def test_a_container_that_asks_for_nothing_goes_by_all_slots() -> None:
    nodes = [free(CPU, cpu=2000), free(CPU, cpu=6000), free(CPU)]
    assert chosen(Concentrated(), view({}, nodes)) == 1
    assert chosen(Dispersed(), view({}, nodes)) == 2


def test_an_amount_is_measured_against_the_agent_s_own_size() -> None:
    large: Amounts = {"cpu": 64000, "mem": 256 * GIB}
    nodes = [free(large, cpu=16000, mem=64 * GIB), free(CPU, cpu=4000, mem=16 * GIB)]  # a quarter of the one, half of the other
    assert chosen(Concentrated(), view(JOB, nodes)) == 1
    assert chosen(Dispersed(), view(JOB, nodes)) == 0


def fill(selector: Selector, agents: int, jobs: int) -> list[int]:
    """Place *jobs* equal containers on equal agents, one after the other; return how many each received, in the order of first use."""
    left, kernels, last, order = [dict(CPU) for _ in range(agents)], [0] * agents, [0] * agents, list[int]()
    for number in range(1, jobs + 1):
        fits = [n for n in range(agents) if all(left[n][slot] >= JOB[slot] for slot in JOB)]
        seen = view(JOB, [(CPU, left[n]) for n in fits], [kernels[n] for n in fits], [last[n] for n in fits])
        taken = fits[chosen(selector, seen)]
        left[taken] = {slot: amount - JOB[slot] for slot, amount in left[taken].items()}
        kernels[taken] += 1
        last[taken] = number
        order += [] if taken in order else [taken]
    return [kernels[n] for n in order]


@given(st.integers(1, 5), st.data())
def test_concentrated_fills_one_agent_before_it_begins_another(agents: int, data: st.DataObject) -> None:
    jobs = data.draw(st.integers(1, 8 * agents))
    assert fill(Concentrated(), agents, jobs) == [8] * (jobs // 8) + ([jobs % 8] if jobs % 8 else [])


@given(st.integers(1, 5), st.data())
def test_dispersed_keeps_the_agents_level(agents: int, data: st.DataObject) -> None:
    counts = fill(Dispersed(), agents, data.draw(st.integers(1, 8 * agents)))
    assert max(counts) - min(counts) <= 1
    assert len(counts) == min(agents, sum(counts))


@st.composite
def views(draw: st.DrawFn) -> PlacementView:
    """Any agents that have room for any request."""
    count = draw(st.integers(2, 5))
    request = {slot: draw(st.integers(0, 4)) * 1000 for slot in SLOTS}
    nodes = []
    for _ in range(count):
        room = {slot: request[slot] + draw(st.integers(0, 8)) * 1000 for slot in SLOTS}
        nodes.append(({slot: room[slot] + draw(st.integers(0, 8)) * 1000 for slot in SLOTS}, room))
    kernels = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    last = draw(st.lists(st.integers(1, 500), min_size=count, max_size=count, unique=True))
    return view(request, nodes, kernels, last)


selectors = pytest.mark.parametrize("selector", [Concentrated(), Dispersed(), RoundRobin()], ids=lambda selector: type(selector).__name__)


@selectors
@given(views())
def test_there_is_a_finite_score_for_each_agent(selector: Selector, seen: PlacementView) -> None:
    scores = selector.scores(seen)
    assert scores.shape == (len(seen.agents),)
    assert scores.dtype == np.float64 and np.isfinite(scores).all()


@selectors
@given(views(), st.randoms(use_true_random=False))
def test_an_agent_s_score_does_not_depend_on_its_place(selector: Selector, seen: PlacementView, random: Random) -> None:
    order = list(range(len(seen.agents)))
    random.shuffle(order)
    turned = PlacementView(seen.slots, tuple(seen.agents[n] for n in order), seen.request, seen.capacity[order], seen.free[order],
                           seen.kernels[order], seen.last_used[order])
    assert np.array_equal(selector.scores(turned), selector.scores(seen)[order])


@selectors
@given(views(), st.sampled_from([2, 1024, 1 << 30]))
def test_the_unit_of_the_amounts_does_not_matter(selector: Selector, seen: PlacementView, factor: int) -> None:
    assume(seen.capacity[:, seen.request > 0].all() and seen.request.any())  # a slot of nothing has no share
    scaled = PlacementView(seen.slots, seen.agents, seen.request * factor, seen.capacity * factor, seen.free * factor, seen.kernels,
                           seen.last_used)
    assert np.allclose(selector.scores(scaled), selector.scores(seen), rtol=0, atol=1e-12)


@given(views())
def test_the_two_disagree_where_only_fullness_differs(seen: PlacementView) -> None:
    """What the one likes best the other likes least, as long as nothing else tells the agents apart."""
    alike = PlacementView(seen.slots, seen.agents, seen.request, np.broadcast_to(seen.capacity.max(axis=0), seen.capacity.shape), seen.free,
                          np.zeros_like(seen.kernels), np.zeros_like(seen.last_used))
    concentrated, dispersed = Concentrated().scores(alike), Dispersed().scores(alike)
    assume(concentrated.max() - concentrated.min() > 1e-6)
    assert dispersed[concentrated.argmax()] == pytest.approx(dispersed.min(), abs=2.0 ** -16)  # the steps in which it sees shares
