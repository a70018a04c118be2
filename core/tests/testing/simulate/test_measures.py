"""Figures: each against a value worked out by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
from backendai.model.errors import Failure
from backendai.sokovan.cluster import take
from backendai.sokovan.snapshot import Agent, Lease
from backendai.testing.simulate.events import simulate
from backendai.testing.simulate.fair import deviation, jain, max_min
from backendai.testing.simulate.fit import Splitter
from backendai.testing.simulate.fragments import Fragments
from backendai.testing.simulate.measure import average, measure
from backendai.testing.simulate.page import page
from backendai.testing.simulate.plots import Axis
from backendai.testing.simulate.policy import Policy, plugins_of, read_policy, with_options
from backendai.testing.simulate.scene import Choice, set_up
from backendai.testing.simulate.shares import Shares
from backendai.testing.simulate.table import classes, figures, plain
from backendai.testing.simulate.trace import Job, Kind, Trace

from core.tests.testing.simulate.plans import Easy, First, Greedy, Strict, job, random_jobs, scene
from core.tests.testing.simulate.test_events import HAND


def test_the_figures_of_the_trace_that_was_worked_out_by_hand() -> None:
    """Ends: a 10, b 20, c 25, d 40; in use: 2 of 4 for 10 s, 4 for 10 s, 4 for 5 s, 2 for 15 s."""
    found = measure(simulate(scene(HAND, 2, 2), Strict(), First()), "strict", "first")
    assert (found.jobs, found.ended, found.unstarted, found.unended) == (4, 4, 0, 0)
    assert found.makespan_s == 40
    assert found.jct_mean_s == (10 + 19 + 23 + 37) / 4
    assert (found.waiting.mean_s, found.waiting.most_s) == ((0 + 9 + 18 + 17) / 4, 18)
    assert found.utilisation == pytest.approx((20 + 40 + 20 + 30) / 160)
    assert found.busy == pytest.approx(0.5)
    assert found.slowdown_mean == pytest.approx((1 + 1.9 + 23 / 10 + 37 / 20) / 4)
    assert {name: waits.mean_s for name, waits in found.classes["size"].items()} == {"2 to 3": 35 / 3, "4 to 7": 9}
    assert found.decisions == 4


def test_an_average_over_time_weighs_by_time() -> None:
    times, values = np.array([0.0, 10.0, 30.0]), np.array([1.0, 4.0, 0.0])
    assert average(times, values, 0, 30) == pytest.approx((10 + 80) / 30)
    assert average(times, values, 5, 15) == pytest.approx((5 + 20) / 10)
    assert average(times, values, 0, 60) == pytest.approx(90 / 60)


def test_jain_is_one_for_equals_and_one_in_n_for_one_who_has_all() -> None:
    assert jain(["a", "b"], np.array([0.3, 0.3])) == pytest.approx(1)
    assert jain(["a", "b", "c", "d"], np.array([1.0, 0, 0, 0])) == pytest.approx(0.25)
    assert jain(["a", "a", "b"], np.array([1.0, 0.0, 0.5])) == pytest.approx(1)  # by user, not by job


def test_max_min_gives_what_the_modest_leave_to_the_others() -> None:
    assert max_min([2, 8, 20], 18) == [2, 8, 8]
    assert max_min([1, 2], 10) == [1, 2]
    assert deviation({"a": (10, 0), "b": (0, 10)}, 10) == 0.5
    assert deviation({"a": (5, 9), "b": (5, 0)}, 10) == 0


def test_fragments_are_what_the_mix_cannot_use() -> None:
    """One node has 0.3 and 1.0 free of two devices, the other 2 devices but no cores."""
    kinds = [Kind(2, {"cpu": 8000, "cuda.shares": 2000}, devices={"cuda.shares": 2})]
    jobs = [Job(str(i), "u", 0, 1, ({"cpu": 1000, "cuda.shares": share},)) for i, share in enumerate((500, 1000, 1000, 2000))]
    made = set_up(Trace("t", tuple(jobs), "cuda.shares"), kinds)
    first, second = made.agents
    lease = Lease("x", "u", "p", "d", 0, 0, ({"cpu": 0, "cuda.shares": 700},), (first.id,), units=({"cuda.shares": {"0": 700}},))
    snapshot = take(0, [], [first, replace(second, used={"cpu": 8000})])
    cluster_free = take(0, [], [replace(first, used={"cuda.shares": 0}), replace(second, used={"cpu": 8000})], [])
    assert Fragments(made).share(snapshot) == Fragments(made).share(cluster_free) == pytest.approx(0.5)
    from backendai.sokovan.cluster import Cluster

    cluster = Cluster()
    cluster.put_agent(first)
    cluster.put_agent(replace(second, used={"cpu": 8000}))
    cluster.hold(lease)
    lost = (2.3 + 2 * 2.3 + 3.3) / 4  # 0.5 and 1 cannot use the 0.3 nor the second node, and two devices fit nowhere
    assert Fragments(made).share(cluster.freeze(0)) == pytest.approx(lost / 3.3)


def test_usage_halves_in_a_half_life() -> None:
    """Half of the machine for one half-life counts (1 - 1/2) / ln 2 of it, and half of that after another."""
    agents = [Agent("n", "n", {"cpu": 4000}, {})]
    shares = Shares(agents, 100.0)
    lease = Lease("a", "kim", "p", "d", 0, 0, ({"cpu": 2000},), ("n",))
    shares.move(lease, 0, 1)
    shares.move(lease, 100, -1)
    expected = 0.5 * 100 / math.log(2) * 0.5
    assert {name: a.usage for name, a in shares.accounts(100).items()} == pytest.approx({"d": expected, "p": expected, "p/kim": expected})
    assert shares.accounts(200)["p"].usage == pytest.approx(expected / 2)


def test_what_is_larger_than_a_node_is_split_over_the_commonest_kind() -> None:
    agents = [Agent("a", "a", {"cpu": 8000}, {}), Agent("b", "b", {"cpu": 4000}, {}), Agent("c", "c", {"cpu": 4000}, {})]
    splitter = Splitter(agents, "cpu", True)
    assert splitter.split(({"cpu": 8000},)) == ({"cpu": 8000},)
    assert splitter.split(({"cpu": 10000, "mem": 5},)) == ({"cpu": 4000}, {"cpu": 4000}, {"cpu": 2000})
    assert splitter.notes() == ("The nodes have no mem, so it is not counted.",)
    assert Splitter(agents, "cpu", False).split(({"cpu": 10000},)) == ({"cpu": 10000},)


@pytest.mark.parametrize(("limit", "found"), [("exact", 10.0), ("x2", 20.0), ("1.5", 15.0), ("user", 12.0), ("auto", 12.0), ("none", None)])
def test_limits(limit: str, found: float | None) -> None:
    made = scene([job("a", 0, 10, 1, limit_s=12.0)], 1, 1, Choice(limit=limit))
    assert made.tasks[0].request.time_limit_s == found


@pytest.mark.parametrize("limit", ["x0", "x", "often", "0.5"])
def test_limits_that_mean_nothing(limit: str) -> None:
    with pytest.raises(Failure, match="write auto, exact, user, none, or x2"):
        scene([job("a", 0, 10, 1)], 1, 1, Choice(limit=limit))


def test_models_that_a_job_may_run_on() -> None:
    kinds = [Kind(1, {"cpu": 1000}, "x", "A10"), Kind(1, {"cpu": 1000}, "y", "T4"), Kind(1, {"cpu": 1000}, "z", "P100")]
    jobs = [Job(name, "u", 0, 5, ({"cpu": 1000},), models=models) for name, models in (
        ("any", ()), ("one", ("T4",)), ("two", ("P100", "A10")), ("none", ("H100",)))]
    made = set_up(Trace("t", tuple(jobs), "cpu"), kinds)
    assert [(task.request.wishes.agents, dict(task.request.wishes.labels)) for task in made.tasks] == [
        ((), {}), ((), {"model": "T4"}), (("x", "z"), {})]
    assert len(made.notes) == 1


def test_nodes_without_what_the_trace_is_about_are_refused() -> None:
    trace = Trace("t", (Job("a", "u", 0, 1, ({"cuda.device": 1000},)),), "cuda.device")
    with pytest.raises(Failure, match=r"asks for cuda\.device, of which the nodes have none"):
        set_up(trace, [Kind(1, {"cpu": 4000, "mem": 1})])


def test_policies_are_written_in_a_word() -> None:
    assert read_policy("a:x=1:y=z/b:w=true") == Policy("a", "b", {"x": 1, "y": "z"}, {"w": True})
    assert str(read_policy("a:x=1:y=z/b:w=true")) == 'a:x=1:y="z"/b:w=true'
    assert read_policy("a", "c").selector == "c"
    assert with_options(read_policy("a:x=1"), ["scheduler.x=2", "scheduler.y=3", "selector.z=4"]) == Policy(
        "a", "concentrated", {"x": 1, "y": 3}, {"z": 4})


@pytest.mark.parametrize(("text", "said"), [("/b", "names no plugin"), ("a:x", "write SCHEDULER"), ("a/b:=", "write SCHEDULER")])
def test_policies_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        read_policy(text)


def test_plugins_that_are_not_there_are_listed_with_those_that_are() -> None:
    with pytest.raises(Failure, match=r"scheduler_v10\.ghost is not installed\. Here are: .*fifo"), plugins_of(read_policy("ghost")):
        pass
    with pytest.raises(Failure, match=r"scheduler_v10\.fifo is broken: .*unknown option deep"), plugins_of(read_policy("fifo:deep=1")):
        pass


def test_tables_and_json_say_the_same_of_two_runs() -> None:
    made = scene(HAND, 2, 2)
    results = [measure(simulate(made, s, First()), name, "first") for s, name in ((Strict(), "strict"), (Greedy(), "greedy"))]
    heads, rows = figures(results)
    assert heads == ["", "strict/first", "greedy/first"]
    assert next(row for row in rows if row[0] == "waiting, mean") == ["waiting, mean", "11s", "7.5s  (0.68 x)"]
    assert classes(results, "size")[1][0][:4] == ["2 to 3", "strict/first", "3", "11s"]
    assert json.loads(json.dumps(plain(results[0])))["waiting"]["mean_s"] == 11


def test_the_page_is_one_that_needs_nothing_else() -> None:
    made = scene(random_jobs(Random(2), 60, 6), 2, 4)
    results = [measure(simulate(made, s, First()), name, "first") for s, name in ((Strict(), "a<b"), (Easy(), "easy"))]
    text = page("A & B", results, ["left out <1>"])
    ElementTree.fromstring(text.replace("<!doctype html>", "").replace('<meta charset="utf-8">', "").replace(
        '<meta name="viewport" content="width=device-width">', ""))
    assert text.count("<svg") == 4 and "prefers-color-scheme: dark" in text
    assert re.findall(r"(?:https?:)?//|src=|@import|url\(|<script", text) == []
    assert "a&lt;b" in text and "a<b" not in text
    assert "nan" not in text.lower().replace("finance", "")


def test_axes_have_round_numbers() -> None:
    assert Axis("t", 0, 93, str).ticks() == [0, 20, 40, 60, 80]
    assert Axis("t", 0, 1, str).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis("t", 1, 5000, str, log=True).ticks() == [1, 10, 100, 1000]
    assert Axis("t", 1, 100, str, log=True).place(10) == pytest.approx(0.5)
