"""The closed table of errors."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest
from backendai.model.errors import KINDS, ErrorKind, Failure


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.code)
def test_every_error_has_a_code_a_status_an_exit_and_a_title(kind: ErrorKind) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert HTTPStatus(kind.status).value >= 400
    assert kind.exit == 2 or 64 <= kind.exit <= 78  # 2 as argparse says it, else as sysexits.h does; 1 and 126 and up are a command's own
    assert kind.title[0].isupper() and not kind.title.endswith(".")
    assert KINDS[kind.code] is kind


def test_titles_tell_the_errors_apart() -> None:
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(("exit", "statuses"), [(2, {400}), (77, {401, 403}), (66, {404})])
def test_a_script_can_tell_the_common_ones(exit: int, statuses: set[int]) -> None:
    assert {kind.status for kind in KINDS.values() if kind.exit == exit} == statuses


def test_a_problem_is_what_rfc_9457_wants_and_keeps_the_detail_for_the_log() -> None:
    failure = Failure("bad-image", "There is no such image; see `bai image ls`.", detail="password=hunter2")
    assert failure.problem() == {
        "type": "urn:backendai:error:bad-image", "title": "The image is not usable", "status": 422, "code": "bad-image",
        "detail": "There is no such image; see `bai image ls`.",
    }
    assert (failure.code, str(failure), failure.detail) == ("bad-image", failure.message, "password=hunter2")


def test_an_error_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        Failure("novel", "A new kind of trouble.")
