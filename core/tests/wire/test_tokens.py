"""Bearer tokens."""

from __future__ import annotations

import re

import pytest
from backendai.wire.tokens import AGENT_PREFIX, USER_PREFIX, hash_token, make_token


@pytest.mark.parametrize("prefix", [USER_PREFIX, AGENT_PREFIX])
def test_a_token_is_new_each_time_and_shows_whose_it_is(prefix: str) -> None:
    tokens = {make_token(prefix) for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(prefix + r"[A-Za-z0-9_-]{43}", token) for token in tokens)  # 43 letters are 256 bits


def test_what_is_stored_is_a_hash_and_shows_nothing_of_the_token() -> None:
    assert hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    token = make_token(USER_PREFIX)
    assert hash_token(token) == hash_token(token) != hash_token(token + "x")
    assert token not in hash_token(token)


def test_users_and_agents_tokens_differ_by_sight() -> None:
    assert USER_PREFIX != AGENT_PREFIX
