"""Identifiers: unique by chance, sorted by time, safe wherever they are written."""

from __future__ import annotations

import pytest
from backendai.model.ids import is_id, make_id
from hypothesis import given
from hypothesis import strategies as st

MS = st.integers(0, (1 << 48) - 1)
BITS = st.integers(0, (1 << 80) - 1)


@given(MS, BITS)
def test_an_id_is_one(now: int, bits: int) -> None:
    text = make_id(now, bits)
    assert is_id(text)
    assert len(text) == 26 and text == text.lower() and text.isascii() and text.isalnum()


@given(MS, BITS, MS, BITS)
def test_ids_sort_by_time_and_differ_when_anything_does(now: int, bits: int, later: int, others: int) -> None:
    assert (make_id(now, bits) < make_id(later, others)) is ((now, bits) < (later, others))
    assert (make_id(now, bits) == make_id(later, others)) is ((now, bits) == (later, others))


@given(MS, BITS, st.integers(1, 5), st.integers(1, 5))
def test_what_is_too_large_is_cut_and_stays_an_id(now: int, bits: int, over: int, beyond: int) -> None:
    assert make_id(now + (over << 48), bits + (beyond << 80)) == make_id(now, bits)


def test_the_encoding_is_that_of_ulid() -> None:
    """The first is the example that ULID libraries give for seeding the time: 01ARYZ6S41."""
    assert make_id(1469918176385, 0) == "01aryz6s41" + "0" * 16
    assert make_id(0, 0) == "0" * 26
    assert make_id((1 << 48) - 1, (1 << 80) - 1) == "7" + "z" * 25


@pytest.mark.parametrize("text", ["", "0" * 25, "0" * 27, *("0" * 25 + end for end in "uIZ\n"), "../" + "0" * 23])
def test_anything_else_is_none(text: str) -> None:
    assert not is_id(text)
