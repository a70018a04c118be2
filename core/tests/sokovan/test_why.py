"""Why a session waits and what would let it start; every remedy is checked by doing what it says."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from backendai.model.session import Wishes
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster, take
from backendai.sokovan.plan import make_plan
from backendai.sokovan.remedies import Other, Remedy
from backendai.sokovan.snapshot import Agent, Lease, Quota, Request, Snapshot
from backendai.sokovan.trial import thaw
from backendai.sokovan.why import Why, explain
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo

NOW, GIB = 1000.0, 1 << 30
GPU = "cuda.device"


def node(name: str, cpu: int = 8, gpu: int = 0, mem: int = 32, used: dict[str, int] | None = None, **more: Any) -> Agent:
    capacity = {"cpu": cpu * SCALE, "mem": mem * GIB, **({GPU: gpu * SCALE} if gpu else {})}
    return Agent(f"id-{name}", name, capacity, used or {}, **more)


def ask(id: str = "mine", cpu: int = 1, gpu: int = 0, mem: int = 1, count: int = 1, at: float = 5.0, **more: Any) -> Request:
    slots = {"cpu": cpu * SCALE, "mem": mem * GIB, **({GPU: gpu * SCALE} if gpu else {})}
    return Request(id, "u", "p", "d", more.pop("priority", 10), at, (slots,) * count, **more)


def held(id: str, agent: str, cpu: int = 0, gpu: int = 0, **more: Any) -> Lease:
    return Lease(id, "u", "p", "d", 10, 0.0, ({"cpu": cpu * SCALE, GPU: gpu * SCALE},), (f"id-{agent}",), **more)


def why(snapshot: Snapshot, request: Request | None = None, **more: Any) -> Why:
    return explain(snapshot, request or snapshot.requests["mine"], Fifo(), Concentrated(), **more)


def texts(found: Why, kind: str) -> list[str]:
    return [each.text for each in (*found.blockers, *found.remedies) if each.kind == kind]


def test_it_says_which_slot_is_short_on_how_many_agents_and_with_how_much_less_it_would_start() -> None:
    snapshot = take(NOW, [ask(gpu=4)], [node("a", gpu=4, used={GPU: 2 * SCALE}), node("b", gpu=4, used={GPU: 3 * SCALE})])
    found = why(snapshot)
    assert (found.position, found.waiting, found.placed) == (1, 1, None)
    assert [(b.kind, b.what, b.wanted, b.most, b.short, b.agents) for b in found.blockers] == [("slot", GPU, 4000, 2000, 2, 2)]
    assert texts(found, "slot") == [
        "It needs 4 cuda.device on one agent; none of 2 has so much free: the most that one has free is 2 (agent a)."]
    assert found.remedies == (Remedy("slots", "with 2 cuda.device instead of 4", {"slots": {GPU: 2000}}),)


def test_several_slots_are_lessened_together_where_one_alone_does_not_help() -> None:
    snapshot = take(NOW, [ask(cpu=8, gpu=4)], [node("a", gpu=4, used={GPU: 2 * SCALE, "cpu": 3 * SCALE}), node("b", cpu=4)])
    assert texts(why(snapshot), "slots") == ["with 5 cores and 2 cuda.device instead of 8 and 4"]


def test_slots_that_are_free_only_apart_are_said_to_be_so() -> None:
    snapshot = take(NOW, [ask(cpu=8, gpu=2)], [node("a", gpu=2, used={"cpu": 4 * SCALE}), node("b", gpu=2, used={GPU: 2 * SCALE})])
    found = why(snapshot)
    assert texts(found, "together") == ["No agent has all of it free at once: 8 cores are lacking on 1 of 2 and 2 cuda.device on 1."]
    assert texts(found, "slots") == ["with 4 cores instead of 8"]


def test_a_quota_is_named_with_what_is_used_and_which_session_of_ones_own_to_stop() -> None:
    cluster = Cluster()
    cluster.put_agent(node("a", gpu=8))
    cluster.hold(held("lab-id", "a", gpu=3, idle_s=10_800.0))
    cluster.hold(held("other", "a", gpu=1))
    cluster.set_quotas([Quota("user", "u", GPU, 4000, 4000), Quota("project", "p", "sessions", 2, 2)])
    cluster.wait(ask(gpu=2))
    found = why(cluster.freeze(NOW), own={"lab-id": "lab", "other": "other"})
    assert texts(found, "quota")[0] == "Its user may use 4 cuda.device at once; 4 of that is taken, and it needs 2."
    assert texts(found, "quota")[1] == "Its project may have 2 sessions running at once, and has 2."
    assert texts(found, "stop") == ["if the session lab, idle for 3h, were stopped"]


def test_as_many_sessions_are_named_as_it_takes() -> None:
    snapshot = take(NOW, [ask(gpu=4)], [node("a", gpu=4, used={GPU: 4000})],
                    [held(f"s{i}", "a", gpu=1) for i in range(3)] + [held("whose", "a", gpu=1)])
    assert texts(why(snapshot, own={"s0": "one", "s1": "two", "s2": "three"}), "stop") == []
    assert texts(why(snapshot, own={"s0": "one", "s1": "two", "s2": "three", "whose": "four"}), "stop") == [
        "if the sessions one, two, three and four were stopped"]


def test_wishes_are_given_up_one_by_one() -> None:
    wishes = Wishes(agents=("east",), labels={"tier": "gold"})
    snapshot = take(NOW, [ask(cpu=4, wishes=wishes)], [node("east", cpu=4, used={"cpu": 4 * SCALE}, labels={"tier": "gold"}),
                                                       node("west", labels={"tier": "gold"})])
    found = why(snapshot)
    assert texts(found, "wishes") == ["Where it wants to be leaves 1 of 2 agents: east.", "without asking for east"]
    assert texts(found, "slot") == ["It needs 4 cores, and east, the only agent that it may use, has none free."]


def test_a_gang_is_told_how_many_of_its_containers_have_room() -> None:
    found = why(take(NOW, [ask(cpu=4, count=4)], [node("a"), node("b", used={"cpu": 3 * SCALE})]))
    assert texts(found, "containers") == ["There is room for 3 of its 4 containers now; they start together.",
                                          "with 3 containers instead of 4"]


def test_who_waits_behind_others_is_told_its_turn_and_its_position() -> None:
    snapshot = take(NOW, [ask("big", cpu=8, at=1), ask("mine", cpu=2, at=2)], [node("a", used={"cpu": 4 * SCALE})])
    found = why(snapshot)
    assert (found.position, found.waiting) == (2, 2)
    assert texts(found, "turn") == ["There is room for it, and that is kept for sessions ahead of it in the queue."]


def test_another_group_is_named_when_it_would_start_there() -> None:
    full, empty = take(NOW, [ask(cpu=4)], [node("a", used={"cpu": 8 * SCALE})]), take(NOW, [], [node("z")])
    others = {"full": Other(full, Fifo(), Concentrated()), "west": Other(empty, Fifo(), Concentrated())}
    assert texts(why(full, others=others), "group") == ["in the group west"]


def test_one_that_does_not_wait_yet_is_explained_as_if_it_came_last() -> None:
    snapshot = take(NOW, [ask("first", cpu=8)], [node("a", used={"cpu": 4 * SCALE})])
    new = ask("new", cpu=1, at=NOW)
    assert (why(snapshot, new).position, why(snapshot, new).waiting) == (2, 2)
    assert why(take(NOW, [], [node("a")]), new).placed is not None


def test_without_an_agent_it_says_what_is_wrong_with_those_there_are() -> None:
    assert texts(why(take(NOW, [ask()], [])), "agents") == ["No agent is connected."]
    found = why(take(NOW, [ask()], [node("a", why="It is cordoned.")]))
    assert texts(found, "agents") == ["No agent can be used: a (It is cordoned)."]


def test_what_can_never_be_is_said_and_nothing_else_but_what_helps() -> None:
    found = why(take(NOW, [ask(cpu=5, count=4)], [node("a"), node("b")]))
    assert [blocker.kind for blocker in found.blockers] == ["never"] and found.blockers[0].text == found.hold
    assert "Needs room for all of its 4 containers at once" in found.hold
    assert texts(found, "containers") == ["with 2 containers instead of 4"]
    assert texts(why(take(NOW, [ask(wishes=Wishes(agents=("gone",)))], [node("a")])), "never") == [
        "No agent is as it asks for (one of gone); it waits for one that is."]


def test_when_time_runs_out_what_was_found_is_told() -> None:
    snapshot = take(NOW, [ask(gpu=4)], [node("a", gpu=4, used={GPU: 2 * SCALE})])
    found = why(snapshot, late=iter([False, False, False, *[True] * 999]).__next__)
    assert found.blockers and not found.remedies


@pytest.mark.parametrize("seed", range(40))
def test_every_remedy_does_what_it_says(seed: int) -> None:
    """Do as each remedy says, from the beginning, and see the session start."""
    random = Random(seed)
    cluster = Cluster()
    for name in "abc":
        cluster.put_agent(node(name, cpu=8, gpu=random.choice((0, 4)), labels={"zone": random.choice(("x", "y"))}))
    for i in range(6):
        cluster.hold(held(f"h{i}", random.choice("abc"), cpu=random.randint(1, 3), gpu=0, idle_s=random.choice((None, 100.0))))
    cluster.wait(ask("ahead", cpu=random.randint(1, 9), at=1.0))
    wishes = random.choice((Wishes(), Wishes(agents=("a",)), Wishes(labels={"zone": "x"})))
    request = ask(cpu=random.randint(2, 8), gpu=random.choice((0, 2, 6)), count=random.choice((1, 3)), wishes=wishes)
    cluster.wait(request)
    snapshot = cluster.freeze(NOW)
    found = why(snapshot, own={f"h{i}": f"h{i}" for i in range(6)})
    assert (found.placed is None) == bool(found.blockers)
    for remedy in found.remedies:
        again, changed = thaw(snapshot), request
        for id in remedy.change.get("stop", ()):
            again.release(id)
        if "slots" in remedy.change:
            changed = replace(request, kernels=tuple({**kernel, **remedy.change["slots"]} for kernel in request.kernels))
        if "containers" in remedy.change:
            changed = replace(request, kernels=request.kernels[:remedy.change["containers"]])
        if remedy.kind == "wishes":
            changed = replace(request, wishes=Wishes())
        again.wait(changed)
        placed = {placement.session for placement in make_plan(again.freeze(NOW), Fifo(), Concentrated()).placements}
        assert "mine" in placed, remedy
