"""Quotas and usage as the API has them: who may set and see what, what is used, and what enters the queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager.store.schema import DEFAULT, PROJECT, kernels, usage
from sqlalchemy import insert, select, update


async def limit(served: Any, scope: str, status: int = 200, token: str | None = None, group: str | None = None, **limits: Any) -> Any:
    body = {"scope": scope, "limits": limits, **({"group": group} if group else {})}
    return await served.call("PATCH", "/v1/quotas", body, token=token, status=status)


async def test_a_quota_is_set_shown_with_its_use_and_taken_away(served_both: Any) -> None:
    served = served_both
    await served.agent("node")
    session = await served.session(slots={"cpu": 2, "mem": "1g"})
    hold = update(kernels).where(kernels.c.session_id == session["id"]).values(holds=True)
    await served.context.store.write(lambda tx: tx.connection.execute(hold))
    shown = (await limit(served, "project:default", cpu=64, mem="256g", sessions=20, lifetime="1d", waiting=100))["items"]
    assert {q["what"]: (q["used"], q["limit"]) for q in shown} == {
        "cpu": (2, 64), "mem": (1 << 30, 256 << 30), "sessions": (1, 20), "lifetime": (None, 86400), "waiting": (None, 100)}
    assert {q["scope"] for q in shown} == {"project:default/default"}
    assert [q["limit"] for q in (await limit(served, "project:default", cpu=1.5, mem=None))["items"]] == [1.5, 86400, 20, 100]
    await limit(served, "user:admin", group="default", cpu=0)
    found = (await served.call("GET", "/v1/quotas?group=default&scope=user:admin"))["items"]
    assert [(q["group"], q["limit"], q["used"]) for q in found] == [("default", 0, 2)]
    await served.call("DELETE", "/v1/quotas?scope=project:default&what=cpu", status=204)
    await served.call("DELETE", "/v1/quotas?scope=project:default", status=204)
    await served.call("DELETE", "/v1/quotas?scope=project:default", status=404)


@pytest.mark.parametrize(("limits", "said"), [
    ({"sessions": "many"}, "write sessions=10"), ({"cpus": 4}, "'cpus' is nothing to limit; there are: cpu, mem, sessions"),
    ({"lifetime": "soon"}, "lifetime: 'soon' is not a duration"), ({"mem": "-1g"}, "mem=-1g is not an amount"),
    ({"kernels": 1.5}, "kernels=10"),
])
async def test_a_limit_that_cannot_be_read_is_refused(served: Any, limits: dict[str, Any], said: str) -> None:
    await served.agent("node")
    answer = await served.call("PATCH", "/v1/quotas", {"scope": "user:admin", "limits": limits})
    assert said in answer["detail"]


async def test_members_see_their_project_s_quotas_and_set_none(served: Any) -> None:
    ada, eve = await served.user("ada"), await served.outsider("eve")
    await limit(served, "project:default", cpu=4)
    await limit(served, "user:ada", sessions=1)
    assert {q["scope"] for q in (await served.call("GET", "/v1/quotas", token=ada))["items"]} == {"project:default/default", "user:ada"}
    assert (await served.call("GET", "/v1/quotas", token=eve))["items"] == []
    await limit(served, "project:default", 403, ada, cpu=99)
    await limit(served, "user:ada", 403, ada, sessions=99)
    await limit(served, "domain:default", 403, ada, cpu=99)


async def test_the_queue_takes_what_quotas_allow(served: Any) -> None:
    ada = await served.user("ada")
    await limit(served, "user:ada", waiting=2, cpu=4, lifetime=3600)
    await served.session(ada)
    session = await served.session(ada, slots={"cpu": 4})
    assert session["time_limit_s"] == 3600, "who names no limit gets the longest"
    refused = await served.call("POST", "/v1/sessions", {"type": "batch"}, token=ada, status=429)
    assert refused["detail"] == "Quotas do not allow it: user ada may have 2 waiting, and has 2. Wait until some have started."
    refused = await served.call("POST", "/v1/sessions", {"type": "batch", "slots": {"cpu": 5}, "time_limit_s": 7200}, token=ada, status=422)
    assert "waiting" in refused["detail"] and "needs 5" in refused["detail"] and "wants 2h" in refused["detail"]
    assert await served.session(slots={"cpu": 5}), "others are not concerned"


async def test_those_that_submit_at_once_are_counted_one_after_the_other(served_both: Any) -> None:
    served = served_both
    ada = await served.user("ada")
    await limit(served, "user:ada", waiting=3)
    head = {"Authorization": f"Bearer {ada}"}

    async def ask() -> int:
        async with served.http.post(served.url + "/v1/sessions", json={"type": "batch"}, headers=head) as answer:
            return int(answer.status)

    assert sorted(await asyncio.gather(*(ask() for _ in range(12)))) == [201] * 3 + [429] * 9


async def book(served: Any, **more: Any) -> None:
    row = {"day": "2026-11-25", "group_id": DEFAULT, "project_id": PROJECT, "user_id": "u", "slot": "cpu", "domain_id": DEFAULT,
           "amount_s": 3600.0 * 1000} | more
    await served.context.store.write(lambda tx: tx.connection.execute(insert(usage), [row]))


async def test_usage_is_summed_by_what_is_asked_for(served_both: Any) -> None:
    served = served_both
    await book(served)
    await book(served, day="2026-11-26", amount_s=7200.0 * 1000)
    await book(served, user_id="v", slot="mem", amount_s=3600.0 * (1 << 30))
    await book(served, user_id="v", slot="sessions", amount_s=1800.0)

    async def lines(query: str) -> list[tuple[Any, ...]]:
        found = (await served.call("GET", f"/v1/usage?{query}", status=200))["items"]
        return [tuple(value for key, value in line.items() if value != "") for line in found]

    assert await lines("by=slot") == [("cpu", 3.0), ("mem", float(1 << 30)), ("sessions", 0.5)]
    assert await lines("by=day,user&since=2026-11-26") == [("cpu", 2.0, "2026-11-26", "u")]
    amounts = (("cpu", 1.0), ("mem", float(1 << 30)), ("sessions", 0.5))
    assert await lines("by=domain,project,group&until=2026-11-25") == [
        (slot, hours, "default", "default", "default/default") for slot, hours in amounts]
    for query, said in (("by=moon", "there are: day"), ("since=yesterday", "2026-11-26")):
        assert said in (await served.call("GET", f"/v1/usage?{query}", status=400))["detail"]


async def test_usage_is_seen_by_whom_it_concerns(served: Any) -> None:
    ada, eve = await served.user("ada"), await served.outsider("eve")
    ada_id = (await served.call("GET", "/v1/whoami", token=ada))["id"]
    await book(served, user_id=ada_id, project_id="elsewhere", domain_id="elsewhere")
    await book(served, user_id="other")
    users = {name: {line["user"] for line in (await served.call("GET", "/v1/usage?by=user", token=token))["items"]}
             for name, token in (("ada", ada), ("eve", eve), ("admin", None))}
    assert users == {"ada": {"ada", "other"}, "eve": set(), "admin": {"ada", "other"}}, "ada is a member of the project"
    assert (await served.context.store.read(lambda connection: connection.execute(select(usage)))).all()
