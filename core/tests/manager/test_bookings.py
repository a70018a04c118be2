"""Advance reservations: who may make them, that they never overlap, that sessions use them, and that they end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from backendai.manager.store.schema import roles
from backendai.manager.usage import bring_up_to_date
from sqlalchemy import update

HOUR = 3600.0


async def book(served: Any, name: str, begin: float, end: float, *, status: int = 201, token: str | None = None, **more: Any) -> Any:
    """Ask for a reservation of so many hours from now."""
    now = served.context.clock()
    body = {"name": name, "scope": "project:default", "begins": now + begin * HOUR, "ends": now + end * HOUR, **more}
    answer = await served.call("POST", "/v1/reservations", body, token=token, status=status)
    return answer if status == 201 else answer["detail"]


async def test_a_reservation_keeps_whole_agents_or_parts_of_them(served_both: Any) -> None:
    served = served_both
    for name in ("a", "b"):
        await served.agent(name)
    await served.call("PATCH", "/v1/agents/b", {"labels": {"gpu": "x"}}, status=200)
    made = await book(served, "r1", 1, 2, agents=["a"])
    assert made["agents"] == {"a": {"cpu": 4, "mem": 4 << 30}} and (made["state"], made["scope"]) == ("coming", "project:default/default")
    made = await book(served, "r2", 1, 2, count=1, labels={"gpu": "x"}, slots={"cpu": 3, "mem": "1g"})
    assert made["agents"] == {"b": {"cpu": 3, "mem": 1 << 30}} and made["made_by"] == "admin"
    assert "b is kept for r2 then" in await book(served, "r3", 1.5, 9, status=409, agents=["b"], slots={"cpu": 2, "mem": "1g"})
    assert (await book(served, "r4", 1.5, 9, agents=["b"], slots={"cpu": 1, "mem": "1g"}))["agents"]["b"]["cpu"] == 1
    said = await book(served, "r5", 0.5, 1.5, status=409, count=2, slots={"cpu": 1, "mem": "1g"})
    assert said == ("Only 0 agents can keep that then, of 2 in the group with such labels: "
                    "a is kept for r1 then; b is kept for r2 and r4 then.")
    assert await book(served, "r6", 2, 3, agents=["a"]), "one begins when another ends"
    assert [r["name"] for r in (await served.call("GET", "/v1/reservations"))["items"]] == ["r1", "r2", "r4", "r6"]


@pytest.mark.parametrize(("more", "status", "said"), [
    ({}, 400, "Name its agents, or say how many"), ({"agents": ["a"], "count": 1}, 400, "one of the two"),
    ({"count": 0}, 400, "at least 1"),
    ({"agents": ["z"]}, 404, "The group has no agent z; there are: a."),
    ({"agents": ["a"], "slots": {"cpu": 64, "mem": 1}}, 409, "a has cpu=4"),
    ({"agents": ["a"], "slots": {"cpu": 1}}, 422, "every session needs mem"),
    ({"agents": ["a"], "begins": 5.0}, 400, "begins: must be now or later"), ({"agents": ["a"], "ends": 5.0}, 400, "ends: must be after"),
    ({"agents": ["a"], "group": "none"}, 404, "no resource group 'none'"),
    ({"agents": ["a"], "scope": "project:none"}, 404, "no project 'none'"),
    ({"agents": ["a"], "name": "R"}, 422, "cannot be a reservation's name"), ({"agents": ["a"], "name": "taken"}, 409, "already"),
])
async def test_what_cannot_be_kept_is_refused(served: Any, more: dict[str, Any], status: int, said: str) -> None:
    await served.agent("a")
    await book(served, "taken", 100, 101, agents=["a"])
    name = more.pop("name", "r")
    assert said in await book(served, name, 1, 2, status=status, **more)


async def test_an_administrator_of_a_project_books_within_its_quota(served: Any) -> None:
    ada, bob = await served.user("ada"), await served.user("bob")
    await served.agent("a")
    ada_id = (await served.call("GET", "/v1/whoami", token=ada))["id"]
    promote = update(roles).where(roles.c.user_id == ada_id).values(role="admin")
    await served.context.store.write(lambda tx: tx.connection.execute(promote))
    served.context.tokens.forget()
    more = {"agents": ["a"], "slots": {"cpu": 2, "mem": "1g"}}
    assert "no quota of cpu, mem" in await book(served, "r", 1, 2, token=ada, status=403, **more)
    await served.call("PATCH", "/v1/quotas", {"scope": "project:default", "limits": {"cpu": 3, "mem": "64g"}}, status=200)
    await book(served, "r", 1, 2, token=ada, **more)
    assert "they end at cpu 3" in await book(served, "r2", 1.5, 3, token=ada, status=422, **more)
    await book(served, "r2", 2, 3, token=ada, **more)
    await book(served, "r3", 1, 2, token=bob, status=403, **more)
    assert len((await served.call("GET", "/v1/reservations", token=bob))["items"]) == 2, "members see them"
    await served.call("DELETE", "/v1/reservations/r", token=bob, status=403)
    await served.call("DELETE", "/v1/reservations/r", token=ada, status=204)
    eve = await served.outsider("eve")
    assert (await served.call("GET", "/v1/reservations", token=eve))["items"] == []
    await served.call("DELETE", "/v1/reservations/r2", token=eve, status=404)


async def test_a_session_names_its_reservation(served: Any) -> None:
    await served.agent("a")
    made = await book(served, "r", 1, 2, agents=["a"])
    session = await served.session(reservation="r")
    row = (await served.context.sessions.load(session["id"])).spec
    assert f'"booking":"{made["id"]}"' in row
    ada = await served.user("ada")
    await book(served, "mine", 3, 4, agents=["a"], scope="user:admin")
    refused = await served.call("POST", "/v1/sessions", {"type": "batch", "reservation": "mine"}, token=ada, status=404)
    assert "no reservation 'mine' for you" in refused["detail"]


async def test_what_is_over_is_forgotten(served_both: Any) -> None:
    served = served_both
    await served.agent("a")
    await book(served, "r", 0, 1, agents=["a"])
    await book(served, "later", 1, 2, agents=["a"])
    now = served.context.clock()
    served.context.clock = lambda: now + 1.5 * HOUR
    await bring_up_to_date(served.context)
    assert [r["name"] for r in (await served.call("GET", "/v1/reservations"))["items"]] == ["later"]
    assert (await served.call("GET", "/v1/reservations"))["items"][0]["state"] == "open"


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_kept_twice_at_any_moment(served: Any, seed: int) -> None:
    dice = random.Random(seed)
    for name in ("a", "b", "c"):
        await served.agent(name)
    now = served.context.clock()
    for number in range(40):
        begin = now + dice.randrange(1, 20) * HOUR
        body = {"name": f"r{number}", "scope": "project:default", "begins": begin, "ends": begin + dice.randrange(1, 8) * HOUR,
                "count": dice.randrange(1, 3), "slots": {"cpu": dice.randrange(1, 5), "mem": "1m"}}
        await served.call("POST", "/v1/reservations", body)
    made = (await served.call("GET", "/v1/reservations"))["items"]
    assert len(made) > 5
    for moment in {booking["begins"] for booking in made}:
        for agent in ("a", "b", "c"):
            kept = sum(r["agents"].get(agent, {}).get("cpu", 0) for r in made if r["begins"] <= moment < r["ends"])
            assert kept <= 4, (seed, agent)
