"""Who may do what, operation by operation."""

from __future__ import annotations

from typing import Any

import pytest
from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.operations import built_in
from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User


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
