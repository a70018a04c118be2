"""Choosing addresses and numbers for networks of sessions."""

from __future__ import annotations

from ipaddress import IPv4Network

from backendai.model.network import free_number, spread, subnets
from hypothesis import given
from hypothesis import strategies as st

POOL = "10.64.0.0/22"


@given(st.integers(1, 200), st.text(max_size=8))
def test_a_subnet_holds_what_was_asked_for_and_is_no_larger_than_needed(count: int, seed: str) -> None:
    found = next(subnets(POOL, count, seed))
    assert found.subnet_of(IPv4Network(POOL))
    assert count <= found.num_addresses - 2
    assert found.num_addresses == 8 or found.num_addresses // 2 - 2 < count


def test_every_subnet_of_the_pool_is_given_until_none_is_left() -> None:
    taken: list[str] = []
    for number in range(128):
        taken.append(str(next(subnets(POOL, 6, f"session {number}", taken))))
    assert len(set(taken)) == 128
    assert next(subnets(POOL, 6, "one more", taken), None) is None


@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(22, 32)), max_size=12), st.integers(1, 60))
def test_what_is_given_overlaps_nothing_that_is_taken(taken: list[tuple[int, int]], count: int) -> None:
    others = [IPv4Network((int(IPv4Network(POOL)[at]), prefix), strict=False) for at, prefix in taken]
    free = list(subnets(POOL, count, "seed", map(str, others)))
    assert not [found for found in free if any(found.overlaps(other) for other in others)]
    whole = [found for found in subnets(POOL, count, "seed") if not any(found.overlaps(other) for other in others)]
    assert free == whole, "and everything else is given"


def test_what_is_larger_than_the_pool_is_not_there() -> None:
    assert list(subnets(POOL, 1023, "large")) == []


def test_names_get_addresses_in_order_after_those_that_are_skipped() -> None:
    assert spread(IPv4Network("10.64.0.8/29"), ["main1", "sub1"], 2) == {"main1": "10.64.0.11", "sub1": "10.64.0.12"}


def test_a_number_is_found_as_long_as_one_is_free() -> None:
    assert free_number(5, 9, "seed", [5, 6, 7, 9]) == 8
    assert free_number(5, 9, "seed", range(5, 10)) is None


def test_different_sessions_begin_at_different_places() -> None:
    assert len({next(subnets("10.64.0.0/10", 6, f"session {number}")) for number in range(50)}) > 45
