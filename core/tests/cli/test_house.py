"""Groups, agents, presets, quotas and usage as people see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from backendai.cli.group import read_rule
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from conftest import Bai


def test_a_group_from_its_making_to_its_end(here: Bai) -> None:
    here("group", "create", "g1", "--scheduler", "fifo", "--scheduler-option", "overtake=true", "--allow", "project:default",
         "--idle", "network:3h,grace=10m,for=user:admin", "--types", "batch", "--half-life", "1d")
    shown = here("group", "show", "g1").out
    assert "fifo overtake=true" in shown and "project:default/default" in shown and "network after 3h for user:admin" in shown
    made = here("group", "set", "g1", "--preempt", "yes", "--least-run", "5m", "--idle", "none", "--allow", "*", "--json").json
    assert made["options"]["preemption"]["least_run_s"] == 300 and made["options"]["idle"] == [] and made["allow"] == ["*"]
    assert "g1" in here("group", "ls").out
    assert "takes no interactive" in here("start", "-d", "--group", "g1", code=65).err
    assert "there are: " in here("group", "set", "g1", "--scheduler", "magic", code=2).err
    assert here("group", "rm", "g1").out == "g1\n"
    assert "g1" in here("group", "show", "g1", code=66).err


def test_an_agent_is_labelled_cordoned_and_drained(here: Bai) -> None:
    [agent] = here("agent", "ls", "--json").json["items"]
    name = agent["name"]
    here("agent", "set", name, "--zone", "rack1", "--label", "gpu=a100")
    assert "gpu=a100,zone=rack1" in here("agents").out
    assert here("agent", "set", name, "--label", "gpu=", "--zone", "", "--json").json["labels"] == agent["labels"]
    assert "healthy, draining; nothing runs there" in here("agent", "drain", name, "--wait").err
    assert "draining" in here("agents").out
    assert here("agent", "cordon", name, "--json").json["items"][0]["draining"] is False
    assert "is healthy; " in here("agent", "uncordon", name).err
    assert here("agent", "show", name).out.startswith("name")
    assert "NAME=VALUE" in here("agent", "set", name, "--label", "x", code=2).err


def test_slots_and_presets(here: Bai) -> None:
    assert {"cpu", "mem"} <= {slot["name"] for slot in here("slots", "--json").json["items"]}
    assert "bytes" in here("slots").out
    here("preset", "create", "tiny", "-r", "cpu=0.01,mem=1m", "--about", "for tests")
    assert "cpu=0.01,mem=1m" in here("preset", "ls").out
    session = here("run", "-d", "--preset", "tiny", "--json", "--", "true").json
    assert session["slots"] == {"cpu": 0.01, "mem": 1 << 20}
    assert here("preset", "rm", "tiny").out == "tiny\n"


def test_quotas_and_usage(here: Bai) -> None:
    assert "500" in here("quota", "set", "user:admin", "sessions=500", "lifetime=30d").out
    shown = here("quota", "ls", "user:admin").out
    assert "30d" in shown and "sessions" in shown
    here("quota", "rm", "user:admin", "lifetime")
    assert {q["what"] for q in here("quota", "ls", "user:admin", "--json").json["items"]} == {"sessions"}
    assert "not limited any more" in here("quota", "rm", "user:admin").err
    assert here("usage", "--by", "day,user", "--csv").out.startswith("day,user,slot,hours\n")
    assert here("usage").out.startswith("PROJECT")
    assert isinstance(here("usage", "--json").json["items"], list)


def test_a_reservation_is_made_listed_and_given_up(here: Bai) -> None:
    [agent] = here("agent", "ls", "--json").json["items"]
    made = here("reservation", "create", "demo", "--for", "project:default", "--agents", agent["name"], "-r", "cpu=0.01,mem=1m",
                "--from", "+9h", "--until", "+2h", "--json").json
    assert made["ends"] - made["begins"] == 7200
    assert "coming" in here("reservation", "ls").out
    assert "write 2026-11-27T09:00" in here("reservation", "create", "x", "--for", "project:default", "--until", "soon", code=2).err
    assert here("reservation", "rm", "demo").out == "demo\n"


def test_the_doctor_compares_a_real_agent(here: Bai, lab: str) -> None:
    assert lab
    said = here("doctor", "--json").json
    assert [finding for finding in said["findings"] if finding["grave"]] == [] and said["silent"] == {}
    assert sum(said["agents"].values()) >= 1
    assert here("doctor", "--mend").code == 0


@pytest.mark.parametrize(("text", "rule"), [
    ("network:3h", {"kind": "network", "after_s": 10800.0}),
    ("utilization:1h,cpu=0.05,mem=0.1,warn=1m",
     {"kind": "utilization", "after_s": 3600.0, "thresholds": {"cpu": 0.05, "mem": 0.1}, "warn_s": 60.0}),
])
def test_a_rule_is_read(text: str, rule: dict[str, Any]) -> None:
    assert read_rule(text) == rule


@pytest.mark.parametrize("text", ["network", "network:soon", "utilization:1h,cpu=low", "network:1h,grace"])
def test_a_rule_that_is_none_is_said_so(text: str) -> None:
    with pytest.raises(Failure, match="--idle"):
        read_rule(text)
