"""Frames come out as they went in, however the bytes were cut on their way."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from backendai.wire.frames import HEADER_SIZE, MAX_DATA, Deframer, control, frame, pack, read_control, unpack
from hypothesis import given
from hypothesis import strategies as st

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=12)
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
PLAIN = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(FRAMES, st.lists(st.integers(0, 4000)))
def test_any_split_of_a_body_gives_the_same_frames(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    body = b"".join(frame(channel, data) for channel, data in frames)
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[a:b] for a, b in itertools.pairwise(ends)]
    deframer = Deframer()
    assert [found for piece in pieces for found in deframer.feed(piece)] == frames


@given(FRAMES)
def test_byte_by_byte_each_frame_comes_out_with_its_last_byte(frames: list[tuple[int, bytes]]) -> None:
    deframer, out = Deframer(), []
    for channel, data in frames:
        whole = frame(channel, data)
        assert len(whole) == HEADER_SIZE + len(data)
        for index in range(len(whole)):
            assert len(out) < len(frames)
            found = list(deframer.feed(whole[index:index + 1]))
            assert bool(found) is (index == len(whole) - 1)
            out += found
    assert out == frames


def test_the_header_is_what_the_documentation_says() -> None:
    """docs/api.md: channel, three zeros, the length as a big-endian 32-bit number."""
    assert frame(2, b"abc") == b"\x02\x00\x00\x00\x00\x00\x00\x03abc"


def test_a_large_frame_comes_through() -> None:
    data = bytes(range(256)) * (MAX_DATA // 256)
    assert list(Deframer().feed(frame(1, data))) == [(1, data)]


@given(st.integers(0, 255), st.binary(max_size=300))
def test_a_message_is_a_channel_and_data(channel: int, data: bytes) -> None:
    assert unpack(pack(channel, data)) == (channel, data)


def test_an_empty_message_has_no_channel() -> None:
    with pytest.raises(ValueError, match="no channel"):
        unpack(b"")


@given(st.dictionaries(st.text(min_size=1), PLAIN))
def test_a_control_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    assert read_control(control(**fields)) == fields


@given(st.text() | PLAIN.map(json.dumps))
def test_whatever_comes_is_a_control_or_a_value_error(text: str) -> None:
    try:
        assert isinstance(read_control(text), dict)
    except ValueError:
        pass


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", '{"a": 1} 2', "[" * 200_000, '{"a":' * 200_000])
def test_what_is_no_control_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_control(text)
