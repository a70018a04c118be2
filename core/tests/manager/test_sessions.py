"""Sessions through the API, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import sessions
from backendai.model.ids import is_id
from backendai.wire.link import Usage
from sqlalchemy import update


async def move(served: Any, session: str, state: str, **more: Any) -> None:
    """Play the orchestrator: put a session into a state."""

    async def job(tx: Tx) -> None:
        await tx.connection.execute(update(sessions).where(sessions.c.id == session).values(state=state, **more))
        tx.after(lambda: served.context.bus.changed(session))

    await served.context.store.write(job)


async def test_a_session_is_accepted_and_shown(served_both: Any) -> None:
    made = await served_both.session(name="first", slots={"cpu": 2, "mem": "1g"}, env={"A": "b"}, tags=["x"])
    assert is_id(made["id"])
    assert made["state"] == "PENDING" and made["owner"] == "admin" and made["slots"] == {"cpu": 2, "mem": 1 << 30}
    for address in (made["id"], "first", "admin%2Ffirst"):
        assert await served_both.call("GET", f"/v1/sessions/{address}", status=200) == made
    page = await served_both.call("GET", "/v1/sessions", status=200)
    assert page == {"items": [made], "next": None}


async def test_what_is_left_out_gets_a_default(served: Any) -> None:
    made = await served.call("POST", "/v1/sessions", {"type": "interactive"}, status=201)
    assert made["slots"] == {"cpu": 1, "mem": 512 << 20} and made["priority"] == 10 and made["network"] == "private"
    assert made["name"].count("-") == 2


async def test_accepting_wakes_the_orchestrator(served: Any) -> None:
    await served.session()
    async with asyncio.timeout(5.0):
        await served.context.bus.wait_for_wake()


async def test_a_name_is_free_again_when_its_session_has_ended(served_both: Any) -> None:
    first = await served_both.session(name="train")
    taken = await served_both.call("POST", "/v1/sessions", {"type": "batch", "name": "train"}, status=409)
    assert taken["code"] == "name-taken"
    await move(served_both, first["id"], "TERMINATED", ended_at=1.0)
    second = await served_both.session(name="train")
    assert (await served_both.call("GET", "/v1/sessions/train"))["id"] == second["id"]
    await move(served_both, second["id"], "FAILED", ended_at=2.0)
    assert (await served_both.call("GET", "/v1/sessions/train"))["id"] == second["id"], "of ended ones the newest is meant"


async def test_two_owners_may_use_one_name(served: Any) -> None:
    other = await served.user("eve")
    await served.session(name="same")
    theirs = await served.session(token=other, name="same")
    assert (await served.call("GET", "/v1/sessions/same", token=other))["id"] == theirs["id"]
    assert (await served.call("GET", "/v1/sessions/eve%2Fsame"))["id"] == theirs["id"]


@pytest.mark.parametrize(("body", "code", "says"), [
    ({"type": "batch", "name": "1st"}, "bad-name", "use a letter"),
    ({"type": "batch", "imagee": "x"}, "invalid-request", "imagee"),
    ({"type": "batch", "image": "UPPER CASE"}, "bad-image", "NAME:TAG"),
    ({"type": "batch", "slots": {"cpu": "many"}}, "bad-slots", "cpu=many"),
    ({"type": "batch", "slots": {"cuda.device": 1}}, "bad-slots", "there are: cpu, mem"),
    ({"type": "batch", "slots": {"mem": "1t"}}, "impossible", "the most that any has of each"),
    ({"type": "batch", "env": {"1A": "x"}}, "invalid-request", "1A"),
    ({"type": "batch", "env": {"A": "x\0"}}, "invalid-request", "zero byte"),
    ({"type": "batch", "priority": 101}, "invalid-request", "from 0 to 100"),
    ({"type": "batch", "priority": "high"}, "invalid-request", "priority"),
    ({"type": "batch", "time_limit_s": 0}, "invalid-request", "time_limit_s"),
    ({"type": "batch", "grace_s": -1}, "invalid-request", "grace_s"),
    ({"type": "batch", "command": "true"}, "invalid-request", "command"),
    ({"type": "batch", "command": [""]}, "invalid-request", "command"),
    ({"type": "interactive", "command": ["true"]}, "invalid-request", "type batch"),
    ({"type": "batch", "workdir": "here"}, "invalid-request", "absolute"),
    ({"type": "batch", "tags": ["a\nb"]}, "invalid-request", "tags"),
    ({"type": "batch", "mounts": [{"source": "/a", "target": "/proc"}]}, "bad-mount", "/home/work"),
    ({"type": "batch", "mounts": [{"source": "/a", "target": "/b", "mode": 1}]}, "invalid-request", "mode"),
    ({"type": "nightly"}, "invalid-request", "type"),
    ({}, "invalid-request", "type"),
])
async def test_what_cannot_be_is_refused_with_what_to_do(served: Any, body: dict[str, Any], code: str, says: str) -> None:
    await served.agent("node1")
    problem = await served.call("POST", "/v1/sessions", body)
    assert problem["code"] == code and says in problem["detail"], problem
    assert (await served.call("GET", "/v1/sessions?all=true"))["items"] == []


async def test_the_impossible_waits_while_there_is_no_agent_and_is_possible_when_one_joins(served: Any) -> None:
    await served.session(slots={"mem": "1t"})
    await served.agent("small", cpu=1000, mem=1 << 30)
    await served.call("POST", "/v1/sessions", {"type": "batch", "slots": {"mem": "1t"}}, status=422)
    await served.agent("large", cpu=1000, mem=1 << 41)
    await served.session(slots={"mem": "1t"})


async def test_pages_stay_put_while_sessions_come(served_both: Any) -> None:
    made = [(await served_both.session())["id"] for _ in range(7)]
    seen, cursor = [], ""
    while True:
        page = await served_both.call("GET", f"/v1/sessions?limit=3{cursor}", status=200)
        seen += [item["id"] for item in page["items"]]
        await served_both.session()
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == made[::-1]


async def test_a_list_shows_the_active_ones_or_a_state_or_all(served: Any) -> None:
    first, second = await served.session(), await served.session()
    await move(served, first["id"], "FAILED")
    listed = {query: [item["id"] for item in (await served.call("GET", f"/v1/sessions{query}", status=200))["items"]]
              for query in ("", "?all=true", "?state=FAILED")}
    assert listed == {"": [second["id"]], "?all=true": [second["id"], first["id"]], "?state=FAILED": [first["id"]]}
    assert (await served.call("GET", "/v1/sessions?limit=0", status=400))["code"] == "invalid-request"
    assert "colour" in (await served.call("GET", "/v1/sessions?colour=red", status=400))["detail"]


async def test_a_long_poll_answers_when_the_session_is_there(served_both: Any) -> None:
    made = await served_both.session()
    polls = {wait: asyncio.create_task(served_both.call("GET", f"/v1/sessions/{made['id']}?wait={wait}&timeout_s=60"))
             for wait in ("running", "final")}
    await move(served_both, made["id"], "PREPARING")
    await move(served_both, made["id"], "RUNNING")
    async with asyncio.timeout(20.0):
        assert (await polls["running"])["state"] == "RUNNING"
        assert not polls["final"].done()
        await move(served_both, made["id"], "TERMINATED", result="success", exit_code=0)
        assert (await polls["final"])["result"] == "success"


async def test_a_long_poll_answers_as_it_is_when_time_is_up(served: Any) -> None:
    made = await served.session()
    assert (await served.call("GET", f"/v1/sessions/{made['id']}?wait=final&timeout_s=0.05", status=200))["state"] == "PENDING"
    await served.call("GET", f"/v1/sessions/{made['id']}?wait=final&timeout_s=61", status=400)
    await served.call("GET", f"/v1/sessions/{made['id']}?wait=soon", status=400)


async def test_stop_notes_the_wish_and_the_grace(served_both: Any) -> None:
    made = await served_both.session()
    await served_both.call("POST", f"/v1/sessions/{made['id']}/stop", {"grace_s": 3}, status=200)
    row = await served_both.context.sessions.load(made["id"])
    assert row.stop and row.grace_s == 3.0 and row.state == "PENDING"
    await move(served_both, made["id"], "TERMINATED")
    assert (await served_both.call("POST", f"/v1/sessions/{made['id']}/stop", status=200))["state"] == "TERMINATED"


async def test_delete_needs_an_end_or_force(served_both: Any) -> None:
    made = await served_both.session()
    problem = await served_both.call("DELETE", f"/v1/sessions/{made['id']}", status=409)
    assert "stop it first" in problem["detail"]
    forced = asyncio.create_task(served_both.call("DELETE", f"/v1/sessions/{made['id']}?force=true", status=204))

    async def stopping() -> bool | None:
        row = await served_both.context.sessions.load(made["id"])
        return True if row is not None and row.stop else None

    async with asyncio.timeout(20.0):
        await served_both.context.bus.until(made["id"], stopping)
        await move(served_both, made["id"], "CANCELLED")
        await forced
    await served_both.call("GET", f"/v1/sessions/{made['id']}", status=404)


async def test_delete_purges_the_log_on_its_agent(served: Any) -> None:
    from backendai.manager.store.schema import kernels

    made, agent = await served.session(), await served.agent("node1")

    async def place(tx: Tx) -> None:
        await tx.connection.execute(update(kernels).where(kernels.c.session_id == made["id"]).values(agent_id=agent))

    await served.context.store.write(place)
    await move(served, made["id"], "TERMINATED")
    stats = await served.call("GET", f"/v1/sessions/{made['id']}/stats", status=200)
    await served.call("DELETE", f"/v1/sessions/{made['id']}", status=204)
    assert served.nodes.purged == [stats["kernels"][0]["kernel"]]


async def test_stats_show_what_the_agent_measured_last(served: Any) -> None:
    made = await served.session()
    empty = await served.call("GET", f"/v1/sessions/{made['id']}/stats", status=200)
    kernel = empty["kernels"][0]
    assert kernel["usage"] is None and kernel["role"] == "main" and kernel["index"] == 1
    served.nodes.usage[kernel["kernel"]] = Usage(at=5.0, memory=7)
    measured = await served.call("GET", f"/v1/sessions/{made['id']}/stats", status=200)
    assert measured["kernels"][0]["usage"] == {"at": 5.0, "memory": 7}


async def test_the_same_key_and_request_give_the_same_answer(served_both: Any) -> None:
    body = {"type": "batch", "command": ["true"]}
    answers = await asyncio.gather(*(
        served_both.call("POST", "/v1/sessions", body, status=201, Idempotency_Key="k1") for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len((await served_both.call("GET", "/v1/sessions"))["items"]) == 1
    other = await served_both.call("POST", "/v1/sessions", {**body, "priority": 11}, status=409, Idempotency_Key="k1")
    assert other["code"] == "idempotency-mismatch"
    mine = await served_both.user("eve")
    theirs = await served_both.call("POST", "/v1/sessions", body, token=mine, status=201, Idempotency_Key="k1")
    assert theirs["id"] != answers[0]["id"], "a key belongs to who sent it"


async def test_keys_work_on_every_create(served: Any) -> None:
    users = [await served.call("POST", "/v1/users", {"name": "bob"}, status=201, Idempotency_Key="u") for _ in range(2)]
    assert users[0] == users[1]
    first, second = [await served.call("POST", "/v1/tokens", {"name": "t"}, status=201, Idempotency_Key="t") for _ in range(2)]
    assert first["id"] == second["id"] and first["token"] != second["token"], "a secret that was shown is stored nowhere"
    await served.call("GET", "/v1/whoami", token=first["token"], status=401)
    await served.call("GET", "/v1/whoami", token=second["token"], status=200)
