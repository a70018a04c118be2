"""Amounts: exact inside, plain at the edges, and readable for people."""

from __future__ import annotations

import pytest
from backendai.model.errors import Failure
from backendai.model.slots import (
    SCALE,
    SlotKind,
    format_slots,
    kind_of,
    parse_amount,
    parse_slot_text,
    parse_slots,
    plain_slots,
)
from hypothesis import example, given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z0-9-]{1,8}){0,2}", fullmatch=True)
COUNTS = st.integers(1, 10**15)  # thousandths: beyond that a JSON number is no longer exact
SIZES = st.integers(1, 1 << 61)  # rounding up for people must not leave what may be asked for
USUAL = st.fixed_dictionaries({"cpu": COUNTS, "mem": SIZES, "cuda.device": COUNTS, "cuda.mem": SIZES})
SLOTS = st.dictionaries(NAMES, COUNTS) | USUAL


@given(SLOTS)
def test_what_is_shown_is_read_back_exactly(slots: dict[str, int]) -> None:
    assert parse_slots(plain_slots(slots)) == slots


@given(SLOTS)
def test_what_people_read_is_what_they_may_write(slots: dict[str, int]) -> None:
    """Sizes are rounded for people; everything else is exact."""
    again = parse_slot_text(format_slots(slots))
    assert again.keys() == slots.keys()
    for name, amount in slots.items():
        exact = kind_of(name) is not SlotKind.BYTES
        assert again[name] == amount if exact else abs(again[name] - amount) <= amount * 0.05


@given(COUNTS)
def test_a_count_is_read_in_thousandths(amount: int) -> None:
    whole, rest = divmod(amount, SCALE)
    assert parse_amount("cpu", f"{whole}.{rest:03}") == amount


@given(st.text())
@example("nan")
@example("Infinity")
@example("1e999999")
@example("9e999999999")
@example("-1")
@example("0")
@example("0.0001")
@example("1" * 5000)
def test_whatever_is_written_is_an_amount_or_a_sentence(text: str) -> None:
    for name in ("cpu", "mem"):
        try:
            amount = parse_amount(name, text)
        except Failure as failure:
            assert failure.code == "bad-slots" and name in failure.message
        else:
            assert 0 < amount < 1 << 62


@pytest.mark.parametrize(("text", "slots"), [
    ("cpu=1,mem=512m", {"cpu": 1000, "mem": 512 << 20}),
    (" cpu = 0.5 , mem = 1.5g ", {"cpu": 500, "mem": 3 << 29}),
    ("mem=4096,", {"mem": 4096}),
    ("cuda.device=2,cuda.mem=8g", {"cuda.device": 2000, "cuda.mem": 8 << 30}),
    ("", {}),
])
def test_the_command_line_s_form(text: str, slots: dict[str, int]) -> None:
    assert parse_slot_text(text) == slots


@pytest.mark.parametrize(("text", "word"), [
    ("cpu", "write cpu=1"), ("cpu=", "write cpu=1"), ("cpu=lots", "at most three decimals"), ("cpu=0.0005", "at most three decimals"),
    ("mem=much", "512m"), ("mem=-5", "512m"), ("cpu=0", "more than zero"), ("CPU=1", "not the name of a slot"), ("=1", "not the name"),
    ("mem=5000000p", "universe"),
])
def test_what_is_wrong_says_what_to_write(text: str, word: str) -> None:
    with pytest.raises(Failure, match=word) as caught:
        parse_slot_text(text)
    assert caught.value.code == "bad-slots"
