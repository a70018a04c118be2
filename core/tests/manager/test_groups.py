"""Resource groups: who may use which, what plugins allow, agents in them, presets, and what a session may ask there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager.operations import images
from backendai.manager.possible import KnownImages, bounds_of, check_amounts, check_bounds
from backendai.manager.store.groups import Group, choose
from backendai.manager.store.nodes import merge_labels
from backendai.model.errors import Failure
from backendai.model.group import GroupOptions
from backendai.model.slots import SlotDecl, SlotKind

OPEN = ["*"]


async def make(served: Any, name: str, **more: Any) -> dict[str, Any]:
    return await served.call("POST", "/v1/groups", {"name": name, **more}, status=201)  # type: ignore[no-any-return]  # a JSON object


async def refused(served: Any, method: str, path: str, body: Any, status: int, token: str | None = None) -> str:
    return str((await served.call(method, path, body, token=token, status=status))["detail"])


async def test_a_group_is_made_changed_and_removed(served_both: Any) -> None:
    made = await make(served_both, "gpu", scheduler="fifo", scheduler_options={"overtake": True}, allow=["project:default/default"],
                      idle=[{"kind": "network", "after_s": 3600, "scope": "user:admin"}])
    assert made["scheduler"] == "fifo" and made["options"]["scheduler"] == {"overtake": True}
    assert made["allow"] == ["project:default/default"] and made["options"]["idle"][0]["scope_id"] == "user:admin"
    changed = await served_both.call("PATCH", "/v1/groups/gpu", {"preemption": {"enabled": True}, "allow": []}, status=200)
    assert changed["options"]["preemption"] == {"enabled": True, "reclaim": False, "least_run_s": 0.0, "grace_s": 30.0}
    assert changed["options"]["scheduler"] == {"overtake": True} and changed["allow"] == [], "what is left out stays"
    found = {group["name"]: group["decided_by"] for group in (await served_both.call("GET", "/v1/groups"))["items"]}
    config = served_both.context.config
    assert found == {"default": [config.scheduler, config.selector], "gpu": ["fifo", config.selector]}
    await served_both.call("DELETE", "/v1/groups/gpu", status=204)
    assert "there are: default" in await refused(served_both, "PATCH", "/v1/groups/gpu", {}, 404)


@pytest.mark.parametrize(("body", "status", "said"), [
    ({"scheduler": "magic"}, 400, "scheduler_v10.magic is not installed; there are: "),
    ({"scheduler": "fifo", "scheduler_options": {"overtook": True}}, 400, "unknown option overtook; known are: overtake"),
    ({"scheduler": "fifo", "scheduler_options": {"overtake": "yes"}}, 400, "scheduler_v10.fifo: option overtake: Expected `bool`"),
    ({"selector": "concentrated", "selector_options": {"x": 1}}, 400, "known are: "),
    ({"idle": [{"kind": "magic", "after_s": 60}]}, 400, "there are: lifetime, network, utilization"),
    ({"idle": [{"kind": "utilization", "after_s": 60}]}, 400, "thresholds"),
    ({"idle": [{"kind": "network", "after_s": 60, "thresholds": {"cpu": 0.1}}]}, 400, "thresholds"),
    ({"idle": [{"kind": "utilization", "after_s": 60, "thresholds": {"cpu": 5}}]}, 400, "at most 1"),
    ({"half_life_s": 1}, 400, "half_life_s"),
    ({"types": ["dreaming"]}, 400, "types"),
    ({"allow": ["everyone"]}, 400, "write domain:NAME"),
    ({"allow": ["project:gone"]}, 404, "There is no project 'gone'"),
    ({"name": "Gpu"}, 422, "cannot be a group's name"),
    ({"name": "default"}, 409, "There is a group 'default' already"),
])
async def test_what_there_is_not_is_refused_with_what_there_is(served: Any, body: dict[str, Any], status: int, said: str) -> None:
    assert said in await refused(served, "POST", "/v1/groups", {"name": "g", **body}, status)


async def test_the_manager_s_scheduler_is_the_one_that_options_must_fit(served: Any) -> None:
    scheduler = served.context.config.scheduler
    assert f"scheduler_v10.{scheduler}: unknown option" in await refused(
        served, "PATCH", "/v1/groups/default", {"scheduler_options": {"nonsense": 1}}, 400)


async def test_what_belongs_to_a_group_goes_with_it(served_both: Any) -> None:
    call = served_both.call
    await make(served_both, "g")
    await call("POST", "/v1/presets", {"name": "p", "slots": {"cpu": 1}, "group": "g"}, status=201)
    await call("PATCH", "/v1/quotas", {"scope": "user:admin", "limits": {"sessions": 1}, "group": "g"}, status=200)
    await served_both.agent("node")
    await call("PATCH", "/v1/agents/node", {"group": "g"}, status=200)
    now = served_both.context.clock()
    booking = {"name": "b", "scope": "user:admin", "begins": now + 60, "ends": now + 120, "agents": ["node"], "group": "g"}
    await call("POST", "/v1/reservations", booking, status=201)
    await call("PATCH", "/v1/agents/node", {"group": "default"}, status=200)
    await call("DELETE", "/v1/groups/g", status=204)
    for what in ("presets", "quotas", "reservations"):
        assert (await call("GET", f"/v1/{what}"))["items"] == [], what


async def test_a_group_with_agents_or_sessions_stays(served: Any) -> None:
    await make(served, "g", allow=OPEN)
    await served.agent("node")
    await served.call("PATCH", "/v1/agents/node", {"group": "g"}, status=200)
    assert "has 1 agents" in await refused(served, "DELETE", "/v1/groups/g", None, 409)
    await served.call("PATCH", "/v1/agents/node", {"group": "default"}, status=200)
    await served.session(group="g")
    assert "has 1 active sessions" in await refused(served, "DELETE", "/v1/groups/g", None, 409)
    assert "first group stays" in await refused(served, "DELETE", "/v1/groups/default", None, 409)


async def test_a_session_goes_where_its_owner_may(served: Any) -> None:
    ada = await served.user("ada")
    assert (await served.session(ada))["group"] == "default"
    await make(served, "closed")
    said = await refused(served, "POST", "/v1/sessions", {"type": "batch", "group": "closed"}, 404, ada)
    assert said == "There is no resource group 'closed' for you; there are: default."
    assert "closed" not in str(await served.call("GET", "/v1/groups", token=ada))
    await served.call("GET", "/v1/groups/closed", token=ada, status=404)
    await served.call("PATCH", "/v1/groups/closed", {"allow": ["user:ada"]}, status=200)
    assert (await served.session(ada, group="closed"))["group"] == "closed"
    assert (await served.session(group="closed"))["group"] == "closed", "a superadmin may use every group"


async def test_a_session_must_fit_an_agent_of_its_own_group(served: Any) -> None:
    await make(served, "big", allow=OPEN)
    await served.agent("large", cpu=64_000, mem=64 << 30)
    await served.agent("small", cpu=2000, mem=4 << 30)
    await served.call("PATCH", "/v1/agents/large", {"group": "big"}, status=200)
    said = await refused(served, "POST", "/v1/sessions", {"type": "batch", "slots": {"cpu": 8}}, 422)
    assert said.startswith("No agent in the group default has cpu=8") and "cpu=2" in said
    assert (await served.session(group="big", slots={"cpu": 8}))["group"] == "big"
    await make(served, "empty", allow=OPEN)
    assert await served.session(group="empty", slots={"cpu": 500}), "without any agent everything may come true"


async def test_an_agent_is_cordoned_drained_and_labelled(served: Any) -> None:
    await served.agent("node")
    change = served.call
    shown = await change("PATCH", "/v1/agents/node", {"labels": {"zone": "a", "gpu": "x"}, "draining": True}, status=200)
    assert (shown["cordoned"], shown["draining"], shown["labels"]) == (True, True, {"zone": "a", "gpu": "x"})
    shown = await change("PATCH", "/v1/agents/node", {"labels": {"gpu": None}}, status=200)
    assert (shown["draining"], shown["labels"], shown["group"]) == (True, {"zone": "a"}, "default")
    for body, cordoned, draining in (({"cordoned": False}, False, False), ({"cordoned": True}, True, False),
                                     ({"draining": True}, True, True), ({"cordoned": True}, True, True), ({"draining": False}, True, False),
                                     ({"draining": True}, True, True), ({"cordoned": False}, False, False)):
        shown = await change("PATCH", "/v1/agents/node", body, status=200)
        assert (shown["cordoned"], shown["draining"]) == (cordoned, draining), body
    assert "labels: a b=c" in await refused(served, "PATCH", "/v1/agents/node", {"labels": {"a b": "c"}}, 400)
    await change("PATCH", "/v1/agents/gone", {}, status=404)


async def test_labels_of_the_agent_s_own_come_second(managed: Any) -> None:
    agent = managed.player("box")
    slots = ({"name": "cuda.shares", "kind": "fraction", "quantum": 100, "unit": "device", "title": "GPU"},)
    await agent.connect(labels={"zone": "a", "rack": "1"}, slots=[SlotDecl(**{**slot, "kind": SlotKind("fraction")}) for slot in slots])
    shown = await managed.call("PATCH", "/v1/agents/box", {"labels": {"zone": "b", "rack": None, "mine": "y"}}, status=200)
    assert shown["labels"] == {"zone": "b", "mine": "y"}
    await agent.connect(labels={"zone": "c", "rack": "2", "new": "z"})
    assert (await managed.call("GET", "/v1/agents/box"))["labels"] == {"zone": "b", "mine": "y", "new": "z"}
    found = {slot["name"]: slot for slot in (await managed.call("GET", "/v1/slots"))["items"]}
    assert found["cuda.shares"]["kind"] == "fraction" and found["cuda.shares"]["quantum"] == 0.1
    assert found["cpu"]["capacity"] == 64 and found["cpu"]["used"] == 0
    said = await refused(managed, "POST", "/v1/sessions", {"type": "batch", "slots": {"cuda.shares": 1.5}}, 422)
    assert "share of one device" in said


def test_an_override_of_none_hides_a_label() -> None:
    assert merge_labels({"a": "1", "b": "2"}, {"a": None, "c": "3"}) == {"b": "2", "c": "3"}


async def test_a_preset_gives_slots_and_what_is_asked_comes_before_it(served: Any) -> None:
    await make(served, "gpu", allow=OPEN)
    await served.call("POST", "/v1/presets", {"name": "small", "slots": {"cpu": 2, "mem": "1g"}, "group": "gpu"}, status=201)
    session = await served.session(preset="small", slots={"cpu": 3})
    assert session["slots"] == {"cpu": 3, "mem": 1 << 30} and session["group"] == "gpu", "the group that the preset is for"
    elsewhere = {"type": "batch", "preset": "small", "group": "default"}
    assert "for another group" in await refused(served, "POST", "/v1/sessions", elsewhere, 400)
    assert "there are: small" in await refused(served, "POST", "/v1/sessions", {"type": "batch", "preset": "huge"}, 404)
    assert "already" in await refused(served, "POST", "/v1/presets", {"name": "small", "slots": {"cpu": 1}}, 409)
    assert "needs slots" in await refused(served, "POST", "/v1/presets", {"name": "none", "slots": {}}, 422)
    assert (await served.call("GET", "/v1/presets"))["items"][0]["slots"] == {"cpu": 2, "mem": 1 << 30}
    await served.call("DELETE", "/v1/presets/small", status=204)
    await served.call("DELETE", "/v1/presets/small", status=404)


def group(name: str, *open_to: str, types: tuple[str, ...] = ("interactive", "batch")) -> Group:
    return Group(name, name, "", "", GroupOptions(types=types), frozenset(open_to), 0.0)


@pytest.mark.parametrize(("known", "wanted", "got"), [
    ([group("default", "*"), group("b", "u1")], None, "default"),
    ([group("a", "u1"), group("b", "u2")], None, "a"),
    ([group("a", "p1"), group("b", "d1")], "b", "b"),
    ([group("a", "p1"), group("b", "d1")], None, "group: name one of a, b."),
    ([group("a", "p1", types=("interactive",)), group("b", "d1")], None, "b"),
    ([group("a", "p1", types=("interactive",))], None, "No resource group for batch sessions is open to you in this project"),
    ([group("a", "u2")], None, "No resource group is open to you in this project"),
    ([group("a", "p1", types=("interactive",))], "a", "The group a takes no batch sessions, only interactive."),
    ([group("a", "u2"), group("b", "*")], "a", "There is no resource group 'a' for you; there are: b."),
])
def test_the_group_of_a_session(known: list[Group], wanted: str | None, got: str) -> None:
    try:
        assert choose(known, ("u1", "p1", "d1"), False, wanted, "batch").name == got
    except Failure as failure:
        assert failure.message.startswith(got)


@pytest.mark.parametrize(("kind", "amount", "fine"), [
    (SlotKind.UNIQUE, 1000, True), (SlotKind.UNIQUE, 2000, False), (SlotKind.UNIQUE, 500, False), (SlotKind.FRACTION, 300, True),
    (SlotKind.FRACTION, 2000, True), (SlotKind.FRACTION, 1500, False), (SlotKind.COUNT, 300, True), (SlotKind.COUNT, 350, False),
])
def test_the_kind_of_a_slot_says_which_amounts_there_are(kind: SlotKind, amount: int, fine: bool) -> None:
    types = {"x": SlotDecl("x", kind, quantum=100 if kind is not SlotKind.UNIQUE else 1)}
    if fine:
        check_amounts(types, {"x": amount, "unknown": 7})
    else:
        with pytest.raises(Failure) as refusal:
            check_amounts(types, {"x": amount})
        assert refusal.value.code == "bad-slots"


def test_an_image_says_what_it_needs_in_three_ways() -> None:
    labels = {"ai.backendai.resource.min.cpu": "2", "ai.backend.resource.min.cpu": "1", "ai.backend.resource.min.mem": "256m",
              "ai.backendai.resource.max.cuda.device": "1", "ai.backendai.resource.min.nonsense": "much",
              "ai.backendai.recipe.minimum": '{"mem": "128m", "disk": 3}', "title": "x"}
    assert bounds_of(labels) == ({"mem": 256 << 20, "disk": 3000, "cpu": 2000}, {"cuda.device": 1000})
    assert bounds_of({"ai.backendai.recipe.minimum": "not json"}) == ({}, {})
    with pytest.raises(Failure, match=r"The image x takes at least cpu=2 and at least mem=256m and at most cuda.device=1; ask"):
        check_bounds("x", {key: value for key, value in labels.items() if "recipe" not in key}, {"cpu": 1000, "cuda.device": 2000})


async def test_an_image_that_is_known_has_its_say(served: Any) -> None:
    assert await served.session(image="big:1"), "nobody knows the image"
    served.context.images.learn("a1", [("big:1", {"ai.backendai.resource.min.mem": "8g"}), ("other:1", {})])
    said = await refused(served, "POST", "/v1/sessions", {"type": "batch", "image": "big:1"}, 422)
    assert said == "The image big:1 takes at least mem=8g; ask for that with -r."
    assert await served.session(image="big:1", slots={"mem": "8g"})


async def test_agents_are_asked_for_their_images_now_and_then(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "FIRST_S", 0.0)
    agent = await served.agent("node")
    served.nodes.answers[agent] = {"images": [{"name": "big:1", "labels": {"ai.backendai.resource.min.mem": "8g"}}]}
    learning = asyncio.create_task(images.learn_for_ever(served.context))
    async with asyncio.timeout(10.0):
        while not served.context.images.labels("big:1"):  # noqa: ASYNC110 - nobody sets an event for what a test looks at
            await asyncio.sleep(0.01)
    learning.cancel()


def test_a_tag_that_is_left_out_is_the_latest() -> None:
    known = KnownImages()
    known.learn("a", [("x:latest", {"k": "v"})])
    assert known.labels("x") == known.labels("x:latest") == {"k": "v"} and known.labels("x:1") == {}
