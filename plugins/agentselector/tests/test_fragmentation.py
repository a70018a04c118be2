"""What is left of accelerators, by hand and by the book, and that a choice keeps more of it usable than filling or spreading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_agentselector.fragmentation import Fragmentation
from backendai_agentselector.fragments import ONE, fitting, fragments, summed, typical
from hypothesis import given
from hypothesis import strategies as st

SLOTS = ("cpu", "mem", "gpu")
GPU = 2
Mix = Sequence[tuple[tuple[int, int, int], float]]  # what is asked for, in the order of SLOTS, and how often
Agent = tuple[int, int, Sequence[int]]  # processors and memory that are free, and what is free of each device


def view(request: tuple[int, int, int], agents: Sequence[Agent], mix: Mix | None = None) -> PlacementView:
    """Return what the selector sees. The agents' devices are whole ones of 1000, as many as they tell of."""
    width = max(len(devices) for _, _, devices in agents)
    table = np.array([[*devices, *[-1] * (width - len(devices))] for _, _, devices in agents])
    free = np.array([[cpu, mem, sum(devices)] for cpu, mem, devices in agents])
    capacity = np.array([[64_000, 64_000, 1000 * len(devices)] for _, _, devices in agents])
    none = np.zeros(len(agents), dtype=np.int64)
    known = (np.array([row for row, _ in mix]), np.array([weight for _, weight in mix])) if mix else (None, None)
    return PlacementView(SLOTS, tuple(f"agent{n}" for n in range(len(agents))), np.array(request), capacity, free, none, none,
                         {GPU: table}, *known)


def chosen(request: tuple[int, int, int], agents: Sequence[Agent], mix: Mix | None = None) -> int:
    return int(np.argmax(Fragmentation().scores(view(request, agents, mix))))


HALVES: Mix = [((1000, 1000, 500), 1.0)]
WHOLES: Mix = [((1000, 1000, 1000), 1.0)]
PAIRS: Mix = [((1000, 1000, 2000), 1.0)]


def by_book(agent: Agent, mix: Mix) -> float:
    """Return the fragments of an agent, in thousandths of a device, one kind after the other."""
    cpu, mem, devices = agent
    left = 0.0
    for (asks_cpu, asks_mem, asks), weight in mix:
        step, count = min(asks, 1000), -(-asks // 1000)
        usable = [one for one in devices if one >= step]
        fits = cpu >= asks_cpu and mem >= asks_mem and len(usable) >= count
        following = sum(devices) - (sum(usable) if fits else 0)
        beside = min(cpu // asks_cpu if asks_cpu else MANY, mem // asks_mem if asks_mem else MANY)
        pieces = sum(one // step for one in devices) // count
        left += weight * (following + sum(devices) - min(beside, pieces) * asks)
    return left


MANY = 10 ** 6
AMOUNT = st.integers(0, 8).map(lambda n: n * 1000)
DEVICES = st.lists(st.sampled_from([0, 250, 300, 500, 1000]), min_size=1, max_size=4)
AGENTS = st.lists(st.tuples(AMOUNT, AMOUNT, DEVICES), min_size=1, max_size=4)
Asked = tuple[int, int, int]
ASKED = st.tuples(AMOUNT, AMOUNT, st.sampled_from([250, 300, 500, 1000, 2000, 4000]))


@given(AGENTS, st.lists(ASKED, min_size=1, max_size=4))
def test_fragments_are_what_the_book_says(agents: list[Agent], asked: list[Asked]) -> None:
    mix = [(one, 1 / len(asked)) for one in asked]
    seen = view((1000, 1000, 500), agents, mix)
    of = typical(seen, GPU, 10)
    devices = np.maximum(seen.devices[GPU], 0.0)
    found = fragments(summed(devices, of), devices.sum(axis=1), fitting(seen.free, of), of) / ONE
    assert found == pytest.approx([by_book(agent, mix) for agent in agents], abs=0.1)


@given(AGENTS, ASKED.filter(lambda asked: all(asked)), st.lists(ASKED, min_size=1, max_size=3))
def test_a_score_is_the_increase_of_the_best_device(agents: list[Agent], request: Asked, asked: list[Asked]) -> None:
    mix = [(one, 1 / len(asked)) for one in asked]
    for agent in agents:
        cpu, mem, devices = agent[0] + request[0], agent[1] + request[1], [*agent[2], *[1000] * -(-request[2] // 1000)]
        after = []
        if request[2] < 1000:
            after = [[*devices[:n], one - request[2], *devices[n + 1:]] for n, one in enumerate(devices) if one >= request[2]]
        else:
            taken = sorted(devices)[:len(devices) - request[2] // 1000]
            after = [[*taken, *[0] * (request[2] // 1000)]]
        least = min(by_book((agent[0], agent[1], one), mix) for one in after)
        score = Fragmentation().scores(view(request, [(cpu, mem, devices)], mix))[0]
        assert -score == pytest.approx(least - by_book((cpu, mem, devices), mix), abs=0.1)


def test_a_part_goes_where_the_rest_of_the_device_is_of_use() -> None:
    broken, whole = (8000, 8000, [700, 1000]), (8000, 8000, [1000, 1000])
    assert chosen((1000, 1000, 500), [whole, broken], WHOLES) == 1
    assert chosen((1000, 1000, 200), [whole, (8000, 8000, [600, 0])], HALVES) == 0, "200 of 600 would leave 400, which no half can use"


def test_an_agent_with_few_processors_gives_its_devices_to_those_who_need_few() -> None:
    mix: Mix = [((4000, 1000, 1000), 0.9), ((1000, 1000, 1000), 0.1)]
    agents = [(8000, 8000, [1000, 1000]), (2000, 8000, [1000, 1000])]
    assert chosen((1000, 1000, 1000), agents, mix) == 1


def test_pairs_stay_pairs() -> None:
    assert chosen((1000, 1000, 1000), [(8000, 8000, [1000] * 4), (8000, 8000, [1000] * 3)], PAIRS) == 1


def test_among_equals_it_takes_the_fullest() -> None:
    assert chosen((1000, 1000, 500), [(9000, 9000, [500]), (8000, 8000, [500]), (9000, 8500, [500])], HALVES) == 1


def test_without_a_mix_whole_devices_stay_whole() -> None:
    assert chosen((1000, 1000, 500), [(8000, 8000, [1000, 1000]), (8000, 8000, [1000, 500])]) == 1


def pick(request: tuple[int, int, int], agent: Agent, mix: Mix | None) -> int:
    seen = view(request, [agent], mix)
    return Fragmentation().pick_device(request[GPU], seen.devices[GPU][0], seen)


def test_it_picks_the_device_whose_rest_is_of_use() -> None:
    assert pick((1000, 1000, 500), (8000, 8000, [1000, 700, 500]), HALVES) == 2
    assert pick((1000, 1000, 300), (8000, 8000, [1000, 500, 800]), HALVES) == 2
    assert pick((1000, 1000, 300), (8000, 8000, [1000, 500, 800]), None) in (1, 2)


def test_of_devices_alike_it_picks_the_first() -> None:
    assert pick((1000, 1000, 500), (8000, 8000, [0, 500, 500]), HALVES) == 1


@given(AGENTS, st.sampled_from([250, 300, 500]), st.lists(ASKED, min_size=1, max_size=3))
def test_it_picks_the_device_that_its_score_is_about(agents: list[Agent], amount: int, asked: list[Asked]) -> None:
    mix = [(one, 1 / len(asked)) for one in asked]
    cpu, mem, devices = agents[0][0] + 1000, agents[0][1] + 1000, [*agents[0][2], 1000]
    at = pick((1000, 1000, amount), (cpu, mem, devices), mix)
    after = [*devices[:at], devices[at] - amount, *devices[at + 1:]]
    score = Fragmentation().scores(view((1000, 1000, amount), [(cpu, mem, devices)], mix))[0]
    assert -score == pytest.approx(by_book((cpu - 1000, mem - 1000, after), mix) - by_book((cpu, mem, devices), mix), abs=0.1)


def test_an_accelerator_of_which_no_devices_are_known_is_a_pool() -> None:
    seen = view((1000, 1000, 1000), [(8000, 8000, [1000] * 4), (8000, 8000, [1000] * 3)], PAIRS)
    assert int(np.argmax(Fragmentation().scores(replace(seen, devices={})))) == 1


def test_as_few_kinds_as_the_operator_says_are_looked_at() -> None:
    mix: Mix = [((1000, 1000, 300), 0.2), ((1000, 1000, 500), 0.5), ((1000, 1000, 1000), 0.3)]
    of = typical(view((1000, 1000, 500), [(8000, 8000, [1000])], mix), GPU, 2)
    assert of.step.tolist() == [500, 1000]
    assert of.weights.sum() == pytest.approx(ONE, abs=2)
    with pytest.raises(ValueError, match="typical"):
        Fragmentation.Config(typical=0)


def filled(selector: AgentSelector | Fragmentation | Concentrated | Dispersed, seed: int) -> int:
    """Let containers of a mix come until half as much again was asked for as there is; return what of the devices was given."""
    random, kinds = Random(seed), [(6000, 300), (3000, 500), (8000, 800), (2000, 1000), (10_000, 1000), (8000, 2000)]
    mix: Mix = [((cpu, 0, gpu), 1 / len(kinds)) for cpu, gpu in kinds]
    agents = [(random.choice((16_000, 32_000)), 0, [1000] * 4) for _ in range(12)]
    asked = given = 0
    while asked < 12 * 4 * 1500:
        cpu, gpu = random.choice(kinds)
        asked += gpu
        fits = [n for n, (free, _, devices) in enumerate(agents)
                if free >= cpu and sum(one >= min(gpu, 1000) for one in devices) >= -(-gpu // 1000)]
        if not fits:
            continue
        at = fits[int(np.argmax(selector.scores(view((cpu, 0, gpu), [agents[n] for n in fits], mix))))]
        free, _, devices = agents[at]
        if gpu < 1000:
            able = [n for n, device in enumerate(devices) if device >= gpu]
            pick = selector.pick_device if isinstance(selector, Fragmentation) else None
            seen = view((cpu, 0, gpu), [agents[at]], mix)
            one = pick(gpu, seen.devices[GPU][0], seen) if pick else min(able, key=lambda n: devices[n])
            devices[one] -= gpu
        else:
            for one in [n for n, device in enumerate(devices) if device == 1000][:gpu // 1000]:
                devices[one] = 0
        agents[at] = (free - cpu, 0, devices)
        given += gpu
    return given


def test_more_of_the_devices_is_given_than_by_filling_or_by_spreading() -> None:
    sums = {type(one).__name__: sum(filled(one, seed) for seed in range(8)) for one in (Fragmentation(), Concentrated(), Dispersed())}
    assert sums["Fragmentation"] > 1.01 * sums["Concentrated"] and sums["Fragmentation"] > 1.01 * sums["Dispersed"], sums
