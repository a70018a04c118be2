"""What the API says when something is wrong, and its pages for machines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from backendai.manager import sse
from backendai.manager.openapi import document
from backendai.manager.operations import built_in
from backendai.manager.operations.registry import Operation
from backendai.model.errors import KINDS, Failure
from openapi_spec_validator import validate


async def ask(served: Any, method: str, path: str, **more: Any) -> tuple[int, str, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {served.token}", **more.pop("headers", {})}
    async with served.http.request(method, served.url + path, headers=headers, **more) as response:
        return response.status, response.content_type, await response.json(content_type=None)


async def test_every_error_is_a_problem(served: Any) -> None:
    big = b'{"type":"batch","name":"' + b"x" * (1 << 20) + b'"}'

    async def endless() -> Any:
        for _ in range(40):
            yield b" " * 65536

    asked: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("GET", "/nowhere", {}, 404, "not-found"),
        ("GET", "/v1/sessions/none", {}, 404, "not-found"),
        ("PUT", "/v1/sessions", {}, 405, "not-allowed"),
        ("POST", "/v1/sessions", {"data": b"{"}, 400, "invalid-request"),
        ("POST", "/v1/sessions", {"data": b"\xff\xfe"}, 400, "invalid-request"),
        ("POST", "/v1/sessions", {"data": b"[]"}, 400, "invalid-request"),
        ("POST", "/v1/sessions", {"data": io.BytesIO(big)}, 413, "too-large"),
        ("POST", "/v1/sessions", {"data": endless()}, 413, "too-large"),
        ("POST", "/v1/sessions", {"json": {"type": "batch"}, "headers": {"Idempotency-Key": "x" * 200}}, 400, "invalid-request"),
        ("PATCH", "/v1/users/admin", {"json": {"name": "root"}}, 400, "invalid-request"),
    ]
    for method, path, more, status, code in asked:
        got, content, body = await ask(served, method, path, **more)
        assert (got, content, body["code"]) == (status, "application/problem+json", code), (method, path, body)
        assert body["status"] == status and body["detail"] and body["request"] and body["title"] == KINDS[code].title


@pytest.mark.parametrize("code", list(KINDS))
async def test_each_code_has_its_status(served: Any, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    async def fail(self: Any, id: str) -> None:
        raise Failure(code, "What and why.", detail="for the log")

    monkeypatch.setattr(type(served.context.sessions), "load", fail)
    status, content, body = await ask(served, "GET", "/v1/sessions/" + "0" * 26)
    assert (status, content) == (KINDS[code].status, "application/problem+json")
    assert body["code"] == code and body["detail"] == "What and why." and "for the log" not in str(body)


async def test_the_unexpected_is_internal_and_tells_nothing(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Any, id: str) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(type(served.context.sessions), "load", fail)
    status, _, body = await ask(served, "GET", "/v1/sessions/" + "0" * 26)
    assert status == 500 and body["code"] == "internal" and "inner" not in str(body) and body["request"] in body["detail"]
    assert served.context.metrics.errors._value.get() == 1


async def test_the_description_is_valid_and_every_answer_is_typed(served: Any) -> None:
    async with served.http.get(served.url + "/v1/openapi.json") as response:
        described = await response.json()
    validate(described)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            good = next(answer for status, answer in operation["responses"].items() if status[0] in "12")
            bodiless = {"204", "101"} & operation["responses"].keys()
            assert bodiless or all(content["schema"] for content in good["content"].values()), (method, path)


async def test_every_route_is_described(served: Any) -> None:
    described = document(built_in())["paths"]
    serving = {(route.method.lower(), route.resource.canonical) for route in served.routes()}
    machine = {"/v1/openapi.json", "/healthz", "/readyz", "/metrics"}
    assert {pair for pair in serving if pair[0] != "head" and pair[1] not in machine} <= {
        (method, path) for path, methods in described.items() for method in methods}


def test_another_surface_can_be_derived_without_touching_an_operation() -> None:
    def field(operation: Operation) -> str:
        kind = "mutation" if operation.mutates else "query"
        arguments = ", ".join(operation.input.__struct_fields__)
        return f"{kind} {operation.name.replace('.', '_')}({arguments})"

    fields = [field(operation) for operation in built_in()]
    assert "query agents_get(id)" in fields and "mutation sessions_stop(id, grace_s)" in fields
    assert all(operation.doc and operation.output is not Any for operation in built_in())


async def test_every_mutation_leaves_an_audit_event(served: Any) -> None:
    await served.agent("node1")
    session = await served.session()
    await served.call("POST", f"/v1/sessions/{session['id']}/stop", status=200)
    eve = await served.user("eve")
    await served.call("PATCH", "/v1/users/eve", {"email": "e@x.org"}, status=200)
    mine = (await served.call("GET", "/v1/tokens", token=eve))["items"][0]
    await served.call("DELETE", f"/v1/tokens/{mine['id']}", status=204)
    text = await served.call("GET", "/v1/events?follow=false")
    for kind in ("session.created", "session.stop", "user.created", "token.created", "user.changed", "token.deleted"):
        assert f"event: {kind}\n" in text
    assert text.count('"by":') == text.count("event: ")


async def test_events_replay_after_the_last_id_and_only_ones_own(served_both: Any) -> None:
    eve = await served_both.user("eve")
    await served_both.session(name="mine")
    theirs = await served_both.session(token=eve, name="theirs")
    everything = await served_both.call("GET", "/v1/events?follow=false")
    ids = [int(line[4:]) for line in everything.splitlines() if line.startswith("id: ")]
    assert ids == sorted(set(ids))
    rest = await served_both.call("GET", "/v1/events?follow=false", Last_Event_ID=str(ids[1]))
    assert [int(line[4:]) for line in rest.splitlines() if line.startswith("id: ")] == ids[2:]
    own = await served_both.call("GET", "/v1/events?follow=false", token=eve)
    assert theirs["id"] in own and '"mine"' not in own
    await served_both.call("GET", "/v1/events", Last_Event_ID="x", status=400)


async def test_a_follower_hears_what_comes_and_resumes(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    headers = {"Authorization": f"Bearer {served.token}"}

    async def read(response: Any, until: bytes) -> bytes:
        text = b""
        while until not in text:
            text += await response.content.readany()
        return text

    async with served.http.get(served.url + "/v1/events", headers=headers) as response:
        await read(response, b": still here")
        await served.session(name="heard")
        heard = await read(response, b'"heard"')
        assert b"event: session.created" in heard and b"user.created" not in heard
    last = next(line[4:].decode() for line in heard.splitlines() if line.startswith(b"id: "))
    await served.session(name="missed")
    async with served.http.get(served.url + "/v1/events", headers={**headers, "Last-Event-ID": last}) as response:
        assert b'"heard"' not in await read(response, b'"missed"')


async def test_the_pages_for_machines(served: Any) -> None:
    async with served.http.get(served.url + "/healthz") as response:
        assert response.status == 200
    async with served.http.get(served.url + "/readyz") as response:
        assert response.status == 200
    served.context.heartbeat -= 120
    async with served.http.get(served.url + "/readyz") as response:
        assert response.status == 503 and "orchestrator" in (await response.json(content_type=None))["detail"]


async def test_metrics_are_for_this_machine_and_administrators(served: Any) -> None:
    await served.session()
    async with served.http.get(served.url + "/metrics") as response:
        text = await response.text()
    assert 'backendai_sessions{state="PENDING"} 1.0' in text
    assert 'backendai_requests_total{operation="sessions.create",outcome="ok"} 1.0' in text
    async with served.http.get(served.url + "/metrics", headers={"X-Forwarded-For": "10.0.0.1"}) as response:
        assert response.status == 401
    await served.call("GET", "/metrics", token=await served.user("eve"), status=403)
    await served.call("GET", "/metrics", status=200)


async def test_agents_plugins_and_images(served: Any) -> None:
    node = await served.agent("node1")
    other = await served.agent("node2")
    assert [agent["name"] for agent in (await served.call("GET", "/v1/agents"))["items"]] == ["node1", "node2"]
    shown = await served.call("GET", "/v1/agents/node1", status=200)
    assert shown["id"] == node and shown["free"] == {"cpu": 4, "mem": 4 << 30} and shown["healthy"]
    await served.call("GET", "/v1/agents/node9", status=404)
    rows = (await served.call("GET", "/v1/plugins"))["items"]
    assert all({"id", "dist", "version", "state", "why"} <= row.keys() for row in rows)
    served.nodes.answers[node] = {"images": [{"name": "python:3.11", "id": "sha256:1", "size": 5}]}
    listed = await served.call("GET", "/v1/images", status=200)
    assert [(row["name"], row["agent"]) for row in listed["items"]] == [("python:3.11", "node1")]
    assert "node2" in listed["silent"] and other not in str(listed["items"])
    assert await served.call("DELETE", "/v1/images?name=python:3.11&agent=node1", status=200) == {"agents": ["node1"]}
    assert (await served.call("DELETE", "/v1/images?name=python:3.11&agent=node2", status=503))["code"] == "unavailable"
