"""Tokens: made, expired, revoked, and never in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp.test_utils import make_mocked_request
from backendai.manager import auth
from backendai.model.errors import Failure


async def test_the_first_start_makes_an_administrator_once(served: Any) -> None:
    who = await served.call("GET", "/v1/whoami", status=200)
    assert who["name"] == "admin" and who["role"] == "superadmin" and who["cluster"] == served.context.cluster


async def test_a_token_is_shown_once_and_stored_hashed(served: Any, tmp_path: Path) -> None:
    made = await served.call("POST", "/v1/tokens", {"name": "laptop"}, status=201)
    assert "token" not in str((await served.call("GET", "/v1/tokens"))["items"])
    await served.call("GET", "/v1/whoami", token=made["token"], status=200)
    stored = b"".join(path.read_bytes() for path in served.context.config.data.iterdir())
    assert made["token"].encode() not in stored and served.token.encode() not in stored


async def test_an_answer_with_a_secret_is_not_to_be_kept(served: Any) -> None:
    headers = {"Authorization": f"Bearer {served.token}"}
    async with served.http.post(served.url + "/v1/tokens", json={"name": "x"}, headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"


async def test_a_revoked_token_is_refused_at_once(served_both: Any) -> None:
    eve = await served_both.user("eve")
    mine = (await served_both.call("GET", "/v1/tokens", token=eve))["items"][0]
    await served_both.call("DELETE", f"/v1/tokens/{mine['id']}", token=eve, status=204)
    await served_both.call("GET", "/v1/whoami", token=eve, status=401)


async def test_an_expired_token_is_refused_even_when_it_is_remembered(served: Any) -> None:
    made = await served.call("POST", "/v1/tokens", {"name": "short", "expires_in_s": 100}, status=201)
    await served.call("GET", "/v1/whoami", token=made["token"], status=200)
    now = served.context.clock()
    served.context.clock = lambda: now + 200
    await served.call("GET", "/v1/whoami", token=made["token"], status=401)


async def test_a_deactivated_user_is_out_and_its_name_stays_taken(served_both: Any) -> None:
    eve = await served_both.user("eve")
    await served_both.call("GET", "/v1/whoami", token=eve, status=200)
    await served_both.call("DELETE", "/v1/users/eve", status=204)
    await served_both.call("GET", "/v1/whoami", token=eve, status=401)
    assert not (await served_both.call("GET", "/v1/users/eve"))["active"]
    assert (await served_both.call("POST", "/v1/users", {"name": "eve"}, status=409))["code"] == "name-taken"


async def test_the_last_administrator_stays(served_both: Any) -> None:
    for method, body in (("DELETE", None), ("PATCH", {"role": "user"}), ("PATCH", {"active": False})):
        problem = await served_both.call(method, "/v1/users/admin", body, status=409)
        assert "last active administrator" in problem["detail"]
    await served_both.user("second", "superadmin")
    await served_both.call("PATCH", "/v1/users/admin", {"role": "user"}, status=200)


async def test_an_agents_token_is_for_the_link_only(served: Any) -> None:
    agent = (await served.call("POST", "/v1/tokens", {"name": "node1", "agent": True}, status=201))["token"]
    await served.call("GET", "/v1/whoami", token=agent, status=401)
    link = make_mocked_request("GET", "/v1/link", headers={"Authorization": f"Bearer {agent}"})
    await auth.authenticate_agent(served.context, link)
    for token, code in ((served.token, "forbidden"), ("baa_" + "x" * 43, "unauthenticated")):
        wrong = make_mocked_request("GET", "/v1/link", headers={"Authorization": f"Bearer {token}"})
        try:
            await auth.authenticate_agent(served.context, wrong)
        except Failure as failure:
            assert failure.code == code
        else:
            raise AssertionError(token)


async def test_other_ways_to_sign_in_are_refused(served: Any) -> None:
    for header in ("Basic YTpi", "Bearer", "Bearer " + "x" * 300):
        async with served.http.get(served.url + "/v1/whoami", headers={"Authorization": header}) as response:
            assert response.status == 401


async def test_the_cache_is_bounded_and_forgets() -> None:
    cache = auth.TokenCache()
    for n in range(auth.REMEMBERED + 5):
        cache.put(str(n), auth._Known(None, "", None), cache.generation)
    assert len(cache._known) <= auth.REMEMBERED
    before = cache.generation
    cache.forget()
    cache.put("late", auth._Known(None, "", None), before)
    assert cache.get("late", 0.0) is None, "what was read before a revocation is not remembered after it"
