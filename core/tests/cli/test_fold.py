"""Arrays in ``bai ps``: the sessions of one in the same state are one line."""

from __future__ import annotations

from typing import Any

from backendai.cli.ps import fold


def row(index: int | None, state: str = "RUNNING", array: str = "A") -> dict[str, Any]:
    name = "lone" if index is None else f"my-job-{index}"
    return {"id": name, "name": name, "state": state, "exit_code": 3, "array": None if index is None else {"id": array, "index": index}}


def names(*rows: dict[str, Any]) -> list[str]:
    return [row["name"] for row in fold(list(rows))]


def test_what_is_in_the_same_state_is_one_line() -> None:
    assert names(row(2), row(None), row(1), row(0, "PENDING")) == ["my-job-[1,2]", "lone", "my-job-0"]
    assert names(*(row(n) for n in range(9))) == ["my-job-[0..8: 9]"]
    assert names(row(1), row(1, array="B")) == ["my-job-1", "my-job-1"], "two arrays are two"


def test_a_line_of_several_bears_the_id_of_the_array_and_no_exit_code() -> None:
    one = fold([row(1), row(2)])[0]
    assert (one["id"], one["exit_code"]) == ("A", None)
