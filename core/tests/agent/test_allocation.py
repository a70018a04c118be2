"""Allocation: all or nothing, never more than there is, and never forgotten."""

from __future__ import annotations

import pytest
from backendai.agent.allocation import Allocator, Full
from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl, SlotKind
from backendai.spec.accelerator_v21 import Device, Grant, Health
from hypothesis import given
from hypothesis import strategies as st

GPU, SHARE = SlotDecl("gpu", SlotKind.COUNT, quantum=1000), SlotDecl("gpu.share", SlotKind.FRACTION, quantum=10)
CPU = SlotDecl("cpu", SlotKind.COUNT)


def node(gpus: int = 2, cores: int = 4000) -> Allocator:
    devices = [Device(f"g{i}", {"gpu": 1000}, numa=i % 2) for i in range(gpus)]
    shares = [Device(f"s{i}", {"gpu.share": 1000}) for i in range(2)]
    return Allocator({"gpu": ("cuda", GPU), "gpu.share": ("cuda", SHARE), "cpu": ("cpu", CPU)},
                     {"cuda": [*devices, *shares], "cpu": [Device("cpu", {"cpu": cores})]})


def test_a_share_is_taken_of_the_device_that_the_manager_chose() -> None:
    allocator = node()
    assert allocator.take("k1", {"gpu.share": 300}, {"gpu.share": {"s1": 300}}) == (Grant("s1", "gpu.share", 300),)
    with pytest.raises(Full, match="Others still hold s1"):
        allocator.take("k2", {"gpu.share": 800}, {"gpu.share": {"s1": 800}})
    assert allocator.take("k3", {"gpu.share": 800}, {"gpu.share": {"s0": 800}}) == (Grant("s0", "gpu.share", 800),)


def test_a_share_may_be_of_several_devices_when_the_manager_says_so() -> None:
    chosen = {"gpu.share": {"s0": 400, "s1": 600}}
    assert node().take("k", {"gpu.share": 1000}, chosen) == (Grant("s0", "gpu.share", 400), Grant("s1", "gpu.share", 600))


@pytest.mark.parametrize("units", [{"nowhere": 300}, {"s0": 200}, {"s0": 400, "s1": -100}, {}])
def test_what_cannot_be_followed_is_chosen_here(units: dict[str, int]) -> None:
    (grant,) = node().take("k", {"gpu.share": 300}, {"gpu.share": units})
    assert grant.amount == 300 and grant.device in ("s0", "s1")


def test_only_shares_are_chosen_by_the_manager() -> None:
    assert node().take("k", {"gpu": 1000}, {"gpu": {"g1": 1000}}) == node().take("k", {"gpu": 1000})


def test_devices_of_shares_are_told_while_they_are_healthy() -> None:
    allocator = node()
    assert allocator.fractions() == {"gpu.share": {"s0": 1000, "s1": 1000}}
    allocator.devices = {"cuda": [Device("s0", {"gpu.share": 1000}, health=Health.UNHEALTHY), Device("s1", {"gpu.share": 500})]}
    assert allocator.fractions() == {"gpu.share": {"s1": 500}}


def sums(allocator: Allocator) -> dict[tuple[str, str], int]:
    held: dict[tuple[str, str], int] = {}
    for grants in allocator.held.values():
        for grant in grants:
            held[grant.slot, grant.device] = held.get((grant.slot, grant.device), 0) + grant.amount
    return held


requests = st.dictionaries(st.sampled_from(["gpu", "gpu.share", "cpu"]), st.integers(1, 4), max_size=3)
QUANTA = {"gpu": 1000, "gpu.share": 250, "cpu": 700}


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | requests), max_size=30))
def test_no_device_is_lent_beyond_what_it_has(events: list[tuple[int, dict[str, int] | None]]) -> None:
    allocator = node()
    for number, wanted in events:
        kernel = f"k{number}"
        if wanted is None:
            allocator.free(kernel)
            continue
        slots = {name: units * QUANTA[name] for name, units in wanted.items()}
        before, had = dict(allocator.held), allocator.held.get(kernel)
        try:
            grants = allocator.take(kernel, slots)
        except Failure:
            assert allocator.held == before
        else:
            if had is None:
                assert {n: sum(g.amount for g in grants if g.slot == n) for n in slots} == slots
            else:
                assert grants == had
        lent = sums(allocator)
        assert all(amount <= (1000 if slot != "cpu" else 4000) for (slot, _), amount in lent.items())


@given(st.lists(st.integers(1, 5), max_size=8))
def test_whole_devices_are_lent_whenever_enough_are_free(counts: list[int]) -> None:
    allocator = node(gpus=8)
    free = 8
    for number, count in enumerate(counts):
        if count <= free:
            assert len(allocator.take(f"k{number}", {"gpu": count * 1000})) == count
            free -= count
        else:
            with pytest.raises(Full):
                allocator.take(f"k{number}", {"gpu": count * 1000})


def test_what_never_fits_and_what_does_not_now_are_told_apart() -> None:
    allocator = node()
    with pytest.raises(Failure, match="can never give") as never:
        allocator.take("k", {"gpu": 3000})
    assert never.value.code == "impossible"
    with pytest.raises(Failure, match="can never give"):
        allocator.take("k", {"tpu": 1})
    with pytest.raises(Failure, match="multiple"):
        allocator.take("k", {"gpu": 1})
    allocator.take("a", {"gpu": 2000})
    with pytest.raises(Full):
        allocator.take("k", {"gpu": 1000, "cpu": 1})
    assert allocator.held.keys() == {"a"}


def test_a_share_is_of_one_device_and_the_fullest_that_suffices() -> None:
    allocator = node()
    assert allocator.take("a", {"gpu.share": 600}) == (Grant("s0", "gpu.share", 600),)
    assert allocator.take("b", {"gpu.share": 600}) == (Grant("s1", "gpu.share", 600),)
    with pytest.raises(Full):
        allocator.take("c", {"gpu.share": 800})
    assert allocator.take("d", {"gpu.share": 400})[0].amount == 400


def test_a_sick_device_is_not_lent_and_its_holder_keeps_it() -> None:
    allocator = node()
    held = allocator.take("a", {"gpu": 1000})
    allocator.devices = {"cuda": [Device("g0", {"gpu": 1000}, health=Health.UNHEALTHY), Device("g1", {"gpu": 1000})], "cpu": []}
    assert allocator.capacity() == {"gpu": 1000}
    assert allocator.held["a"] == held and held[0].device == "g0"
    assert allocator.take("b", {"gpu": 1000})[0].device == "g1"


def test_what_the_journal_says_counts() -> None:
    allocator = node()
    allocator.restore("old", (Grant("g0", "gpu", 1000), Grant("unplugged", "gpu", 1000)))
    assert allocator.take("new", {"gpu": 1000})[0].device == "g1"
    assert allocator.by_plugin(allocator.held["new"]) == {"cuda": [Grant("g1", "gpu", 1000)]}
