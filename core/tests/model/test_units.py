"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest
from backendai.model.units import format_bytes, format_seconds, parse_bytes, parse_seconds
from hypothesis import given
from hypothesis import strategies as st

SIZES = st.integers(0, 1 << 62)


@given(SIZES)
def test_a_number_of_bytes_is_exact(amount: int) -> None:
    assert parse_bytes(str(amount)) == amount


@given(st.integers(0, 1 << 20), st.sampled_from("kmgtp"), st.sampled_from(["", "b", "ib", "B", "iB"]))
def test_the_steps_are_1024(count: int, step: str, ending: str) -> None:
    amount = count * 1024 ** ("kmgtp".index(step) + 1)
    assert parse_bytes(f"{count}{step}{ending}") == parse_bytes(f" {count} {step.upper()}{ending} ") == amount


@given(SIZES)
def test_a_size_for_people_is_short_and_near(amount: int) -> None:
    text = format_bytes(amount)
    assert len(text) <= 7
    assert abs(parse_bytes(text) - amount) <= amount * 0.05


@given(st.integers(0, 1000), st.sampled_from(["", "k", "m", "g", "t", "p"]))
def test_a_round_size_is_written_as_it_was_read(count: int, step: str) -> None:
    text = f"{count}{step}" if count else "0"
    assert format_bytes(parse_bytes(text)) == text


@pytest.mark.parametrize("text", ["", "m", "1x", "-1", "1.m", ".5g", "1e3", "1 2", "0x10", "512mbit", "nan"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="512m"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1d2h3m4.5s", 93784.5), ("0", 0), ("0.25", 0.25),
    (" 5m ", 300),
])
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1w", "-5", "1m1h", "5 m", "1.5h", "inf", "nan"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        parse_seconds(text)


@given(st.integers(0, 10**9))
def test_a_duration_for_people_has_two_parts_and_never_says_more_than_there_is(seconds: int) -> None:
    text = format_seconds(seconds)
    again = parse_seconds(text)
    assert sum(letter.isalpha() for letter in text) <= 2
    assert again <= seconds < max(again * 25 / 24 + 1, again + 1)


@given(st.integers(0, 59), st.integers(0, 59))
def test_minutes_and_seconds_are_exact(minutes: int, seconds: int) -> None:
    assert parse_seconds(format_seconds(60 * minutes + seconds)) == 60 * minutes + seconds
