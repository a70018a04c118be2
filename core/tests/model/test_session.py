"""The life of a session, and what a session may be called and mount."""

from __future__ import annotations

import pytest
from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.session import (
    DEADLINES,
    FINAL,
    PLACED,
    TRANSITIONS,
    Mount,
    Result,
    SessionState,
    check_mount,
    check_session_name,
    is_final,
    result_of,
)
from hypothesis import given
from hypothesis import strategies as st

S = SessionState


def reachable(start: SessionState) -> set[SessionState]:
    found, todo = set[SessionState](), [start]
    while todo:
        for state in TRANSITIONS[todo.pop()] - found:
            found.add(state)
            todo.append(state)
    return found


def test_every_state_has_its_transitions() -> None:
    assert TRANSITIONS.keys() == set(S)
    assert reachable(S.PENDING) | {S.PENDING} == set(S)
    assert not [state for state in S if state in TRANSITIONS[state]]


def test_a_final_state_is_one_that_nothing_leaves() -> None:
    assert {state for state in S if not TRANSITIONS[state]} == FINAL == {state for state in S if is_final(state)}


def test_every_other_state_can_end_and_may_not_last_for_ever() -> None:
    for state in set(S) - FINAL:
        assert reachable(state) & FINAL
    assert set(S) - FINAL - DEADLINES.keys() == {S.PENDING, S.RUNNING}
    assert all(seconds > 0 for seconds in DEADLINES.values())


def test_what_holds_capacity_is_what_was_placed_and_has_not_ended() -> None:
    assert set(S) - FINAL - {S.PENDING} == PLACED


def test_a_session_that_ran_may_wait_again_for_another_attempt() -> None:
    assert TRANSITIONS[S.RUNNING] == {S.TERMINATING, S.TERMINATED, S.FAILED, S.PENDING}
    assert TRANSITIONS[S.TERMINATING] == {*FINAL, S.PENDING}
    assert S.CANCELLED not in TRANSITIONS[S.RUNNING]  # cancelled means that it never ran


@given(st.lists(st.integers(0, 1 << 16), min_size=1, max_size=30))
def test_any_walk_goes_forward_or_back_to_the_queue(choices: list[int]) -> None:
    order = [S.PENDING, S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING, S.TERMINATING]
    state = S.PENDING
    for choice in choices:
        ways = sorted(TRANSITIONS[state])
        if not ways:
            assert state in FINAL
            return
        after = ways[choice % len(ways)]
        assert after in FINAL or after is S.PENDING or order.index(after) > order.index(state)
        state = after


@pytest.mark.parametrize(("code", "result"), [(0, Result.SUCCESS), (1, Result.FAILURE), (137, Result.FAILURE), (-1, Result.FAILURE)])
def test_only_zero_is_success(code: int, result: Result) -> None:
    assert result_of(code) is result


@given(st.from_regex(r"[a-zA-Z][a-zA-Z0-9._-]{0,62}", fullmatch=True))
def test_a_good_name_is_kept(name: str) -> None:
    assert check_session_name(name) == name


@pytest.mark.parametrize("name", ["", "1st", "-x", "a b", "a/b", "a\n", "a" * 64, "ä", ".", "..", "a\0", "a:b"])
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(Failure, match="a letter, then up to 62") as caught:
        check_session_name(name)
    assert caught.value.code == "bad-name"


NOISE = st.sampled_from(["/", "//", "/./", "/././"])


@given(st.sampled_from(["proc", "sys", "dev", ".bai"]), NOISE, NOISE, st.sampled_from(["", "x", "x/y"]), NOISE)
def test_no_spelling_of_a_reserved_path_is_a_target(name: str, before: str, between: str, below: str, after: str) -> None:
    with pytest.raises(Failure, match="belongs to the container itself"):
        check_mount(Mount("/data", before + name + between + below + after))


@given(NOISE)
def test_the_root_is_no_target(root: str) -> None:
    with pytest.raises(Failure, match="belongs to the container itself"):
        check_mount(Mount("/data", root))


@pytest.mark.parametrize("target", ["/home/work/data", "/mnt", "/process", "/devices/x", "/a/proc", "/.baize"])
def test_other_targets_are_fine(target: str) -> None:
    mount = Mount("/data/set", target)
    assert check_mount(mount) is mount


@pytest.mark.parametrize("path", ["", "data", "./data", "/a/../b", "/..", "/a\0b", "~/data", "C:\\data"])
def test_a_path_that_is_not_absolute_or_climbs_is_refused_on_both_sides(path: str) -> None:
    for mount in (Mount(path, "/mnt/a"), Mount("/data", path)):
        with pytest.raises(Failure, match="absolute path") as caught:
            check_mount(mount)
        assert caught.value.code == "bad-mount"


@pytest.mark.parametrize("image", [
    "python", "python:3.11", "backendai/base:1", "registry.example:5000/a/b-c_d.e__f:Tag-1", "a@sha256:" + "0" * 64,
    "localhost/x:y@sha256:" + "f" * 64,
])
def test_an_image_reference_is_kept(image: str) -> None:
    assert check_image(image) == image


@pytest.mark.parametrize("image", [
    "", " ", "a b", "A/../b", "-a", "a:", "a@sha256:12", "a:b:c", "http://a/b", "a\n", "Python", "a" * 513, "a/", "a-" * 256,
])
def test_anything_else_is_no_image_and_the_sentence_says_what_is(image: str) -> None:
    with pytest.raises(Failure, match="NAME:TAG") as caught:
        check_image(image)
    assert caught.value.code == "bad-image"
