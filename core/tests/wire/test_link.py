"""The agent's link: every message survives the way, and nothing else passes for one."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from backendai.wire import link
from backendai.wire.link import FromAgent, FromManager, Message, decode_from_agent, decode_from_manager, encode
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(max_size=12)
PLAIN = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXT | st.binary(max_size=12) | st.lists(TEXT, max_size=3)
SIMPLE: Mapping[Any, st.SearchStrategy[Any]] = {
    str: TEXT, bool: st.booleans(), int: st.integers(-(1 << 63), (1 << 63) - 1), float: st.floats(allow_nan=False), Any: PLAIN,
    types.NoneType: st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return every value of a field's type."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Any):
        return st.one_of([values(each) for each in inner])
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return st.lists(values(inner[0]), max_size=2).map(tuple)
        return st.tuples(*(values(each) for each in inner))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=2)
    return st.builds(kind, **{name: values(hint) for name, hint in get_type_hints(kind).items() if name[0] != "_"})


WAYS: list[tuple[type[Message], Callable[[bytes], Any], Callable[[bytes], Any]]] = [
    *((kind, decode_from_agent, decode_from_manager) for kind in get_args(FromAgent)),
    *((kind, decode_from_manager, decode_from_agent) for kind in get_args(FromManager)),
]


@pytest.mark.parametrize(("kind", "decode"), [way[:2] for way in WAYS], ids=lambda each: getattr(each, "__name__", ""))
def test_a_message_arrives_as_it_was_sent(kind: type[Message], decode: Callable[[bytes], Any]) -> None:
    @given(values(kind))
    def arrives(message: Message) -> None:
        assert decode(encode(message)) == message

    arrives()


@pytest.mark.parametrize(("kind", "other"), [(kind, other) for kind, _, other in WAYS], ids=lambda each: getattr(each, "__name__", ""))
def test_neither_side_takes_the_other_s_words(kind: type[Message], other: Callable[[bytes], Any]) -> None:
    @given(values(kind))
    def refused(message: Message) -> None:
        with pytest.raises(msgspec.DecodeError):
            other(encode(message))

    refused()


def test_every_message_has_a_way_and_a_tag_of_its_own() -> None:
    kinds = {thing for thing in vars(link).values() if isinstance(thing, type) and issubclass(thing, Message) and thing is not Message}
    assert kinds == {kind for kind, _, _ in WAYS}
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)


@given(st.binary(max_size=80))
def test_noise_is_refused_and_nothing_worse(data: bytes) -> None:
    for decode in (decode_from_agent, decode_from_manager):
        with pytest.raises(msgspec.DecodeError):
            decode(data)


@pytest.mark.parametrize("decode", [decode_from_agent, decode_from_manager])
def test_nesting_without_end_is_refused(decode: Callable[[bytes], Any]) -> None:
    tag = b"beat" if decode is decode_from_agent else b"open"
    with pytest.raises(msgspec.DecodeError, match="deeply"):
        decode(b"\x82\xa4type\xa4" + tag + b"\xa1x" + b"\x91" * 200_000 + b"\xc0")


def test_a_field_of_a_later_release_is_passed_over() -> None:
    """A newer agent may say more than its manager understands, and the other way round."""
    message = msgspec.msgpack.decode(encode(link.Beat(why="slow")))
    assert decode_from_agent(msgspec.msgpack.encode({**message, "mood": {"today": [1, 2]}})) == link.Beat(why="slow")


def test_defaults_are_not_sent() -> None:
    assert msgspec.msgpack.decode(encode(link.Beat())) == {"type": "beat"}
