"""Who may do what, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.operations import built_in
from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User

# What a user gets who is not the owner and no administrator: somebody else's thing does not exist, what is nobody's is forbidden.
STRANGER = {
    "sessions.create": 201, "sessions.list": 200, "sessions.get": 404, "sessions.stop": 404, "sessions.delete": 404,
    "sessions.stats": 404, "agents.list": 200, "agents.get": 200, "images.list": 200, "images.delete": 403, "users.list": 200,
    "users.create": 403, "users.get": 404, "users.update": 404, "users.delete": 403, "tokens.list": 200, "tokens.create": 201,
    "tokens.delete": 404, "plugins.list": 200, "whoami": 200,
    "agents.update": 403, "groups.list": 200, "groups.get": 404, "groups.create": 403, "groups.update": 403, "groups.delete": 403,
    "slots.list": 200, "presets.list": 200, "presets.create": 403, "presets.delete": 403,
}
BODIES: dict[str, Any] = {"sessions.create": {"type": "batch"}, "users.create": {"name": "new"}, "tokens.create": {"name": "t"},
                          "groups.create": {"name": "g"}, "presets.create": {"name": "p", "slots": {"cpu": 1}}}


@pytest.mark.parametrize("name", [operation.name for operation in built_in()])
async def test_a_stranger_sees_nothing_of_others(served: Any, name: str) -> None:
    operation = built_in().get(name)
    stranger = await served.outsider("eve")
    session, agent = await served.session(), await served.agent("node1")
    token = (await served.call("GET", "/v1/tokens"))["items"][-1]["id"]
    wanted = {"sessions": session["id"], "agents": agent, "tokens": token}.get(name.partition(".")[0], "")
    path = operation.http.path.replace("{id}", wanted).replace("{name}", "admin")
    body = BODIES.get(name) if operation.http.method in ("POST", "PATCH") else None
    if name == "images.delete":
        path += "?name=x:1"
    if operation.http.method == "PATCH":
        body = {"email": "a@b.c"} if name.startswith("users.") else {}
    answer = await served.call(operation.http.method, path, body, token=stranger, status=STRANGER[name])
    if name in ("sessions.list", "tokens.list", "users.list"):
        assert session["id"] not in str(answer) and token not in str(answer) and "admin" not in str(answer)


@pytest.mark.parametrize("name", [operation.name for operation in built_in()])
async def test_nobody_gets_in_without_a_token(served: Any, name: str) -> None:
    operation = built_in().get(name)
    async with served.http.request(operation.http.method, served.url + operation.http.path) as response:
        assert response.status == 401 and response.headers["WWW-Authenticate"] == "Bearer"
        assert response.content_type == "application/problem+json"


async def test_everyone_may_change_their_own_email_and_nothing_else(served: Any) -> None:
    eve = await served.user("eve")
    assert (await served.call("PATCH", "/v1/users/eve", {"email": "eve@x.org"}, token=eve, status=200))["email"] == "eve@x.org"
    await served.call("PATCH", "/v1/users/eve", {"role": "superadmin"}, token=eve, status=403)
    await served.call("POST", "/v1/tokens", {"name": "t", "user": "admin"}, token=eve, status=404)
    await served.call("POST", "/v1/tokens", {"name": "t", "agent": True}, token=eve, status=403)


def test_require_tells_hidden_from_forbidden() -> None:
    caller = Caller(User("u1", "eve", "user"))
    assert may(caller, Verb.CHANGE, Thing("session", "u1")) and may(caller, Verb.READ, Thing("agent"))
    with pytest.raises(Failure, match="no such session") as hidden:
        require(caller, Verb.READ, Thing("session", "u2"))
    with pytest.raises(Failure, match="administrator") as forbidden:
        require(caller, Verb.CHANGE, Thing("agent"))
    assert (hidden.value.code, forbidden.value.code) == ("not-found", "forbidden")
