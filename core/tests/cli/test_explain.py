"""`bai why`, `queue`, `top`, `decisions`, `ps --eta` and `--dry-run`, as somebody reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bai


@pytest.fixture
def full(here: Bai) -> Iterator[Bai]:
    """A platform whose one agent is taken: ``hog`` runs and ``next`` waits."""
    capacity = here("agents", "--json").json["items"][0]["capacity"]["cpu"]
    here("start", "--name", "hog", "-r", f"cpu={capacity:g},mem=64m")
    here("run", "-d", "--name", "next", "--timeout", "1h", "-r", f"cpu={capacity:g},mem=64m", "--", "true")
    while here("queue", "--json").json["items"][0]["items"][0]["position"] is None:  # it has only just been asked for
        continue
    yield here
    for name in ("next", "hog"):
        here("rm", "-f", name, code=None)


def test_why_tells_a_waiting_session_what_keeps_it_and_what_helps(full: Bai) -> None:
    said = full("why", "next").out
    assert said.startswith("next waits, alone in the queue of the group default.\n")
    for part in ("What keeps it\n  It needs", "It would start now\n", "if the session hog were stopped", "It will start\n  Nobody can say"):
        assert part in said
    why = full("why", "next", "--json").json
    assert (why["position"], why["waiting"], why["blockers"][0]["what"]) == (1, 1, "cpu")


def test_why_tells_of_one_that_runs_who_decided_it_and_decides_again(full: Bai) -> None:
    said = full("why", "--replay", "hog").out
    assert "hog runs on " in said and "Who decided\n" in said and "It comes out as it did." in said
    assert "The order in which sessions were tried" in said and "decision " in said
    assert full("why", "nobody", code=66).out == ""
    assert "never had a place" in full("why", "--replay", "next").err or full("why", "--replay", "next").out


def test_queue_and_ps_say_when_sessions_start(full: Bai) -> None:
    said = full("queue").out
    assert said.startswith("default: 1 waits, ordered by ") and "\n1  next" in said
    assert full("queue", "--group", "default", "--json").json["items"][0]["items"][0]["name"] == "next"
    table = full("ps", "--eta").out.splitlines()
    column = table[0].index("STARTS")
    assert next(line for line in table if line.startswith("next"))[column] == "?"
    page = full("ps", "--eta", "--json").json
    assert [entry["position"] for entry in page["starts"].values()] == [1]
    assert "\nstarts " in full("info", "next").out and "\nstarts " not in full("info", "hog").out


def test_an_empty_queue_is_said_in_words(here: Bai) -> None:
    assert here("queue").out == "Nobody waits.\n"


def test_a_dry_run_asks_for_nothing(full: Bai) -> None:
    before = len(full("ps", "-a", "--json").json["items"])
    assert "It would wait, " in full("run", "--dry-run", "--", "true").out
    assert full("start", "--dry-run", "--json").json["session"] == ""
    assert full("run", "--dry-run", "--name", "hog", "--", "true", code=75).err.startswith("bai: You have an active session")
    assert len(full("ps", "-a", "--json").json["items"]) == before
    full("rm", "-f", "next", "hog")
    assert full("run", "--dry-run", "--", "true").out.startswith("It would start now on ")


def test_decisions_are_listed_for_operators(full: Bai) -> None:
    id = full("info", "hog", "--json").json["id"]
    table = full("decisions", "-n", "5").out
    assert table.splitlines()[0].split()[:4] == ["ID", "AT", "GROUP", "MOMENT"] and f"{id} on " in table
    assert [list(one["placed"]) for one in full("decisions", "--session", id, "--json").json["items"]] == [[id]]
    assert full("decisions", "-n", "0", code=2).err == "bai: -n must be at least 1.\n"


def test_top_prints_once_on_a_pipe_and_as_json(full: Bai) -> None:
    for argv in (("top",), ("top", "--once")):
        said = full(*argv).out
        assert "AGENT" in said and "hog" in said and "WAITS IN default" in said and "\x1b" not in said
    assert full("top", "--json").json["groups"][0]["name"] == "default"
