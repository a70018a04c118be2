"""Domains, projects and their people over time: what follows from what, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backendai.manager.access import Verb, may
from backendai.manager.auth import authenticate_token
from backendai.manager.store.owners import check_open, thing_of, visible
from backendai.manager.store.schema import PROJECT, projects, sessions, users
from sqlalchemy import insert, select, update

from core.tests.manager.world import NAME, OWNER, World, build


@pytest.fixture
async def world(served: Any) -> World:
    """Two domains full of people."""
    return await build(served)


async def test_who_is_alone_need_know_nothing_of_it(served_both: Any) -> None:
    who = await served_both.call("GET", "/v1/whoami", status=200)
    assert (who["domain"], who["project"], who["projects"], who["scopes"]) == ("default", "default", {"default": "member"}, [])
    ada = await served_both.user("ada")
    assert (await served_both.call("GET", "/v1/whoami", token=ada))["projects"] == {"default": "member"}
    session = await served_both.session(token=ada)
    assert (session["domain"], session["project"]) == ("default", "default")
    assert (await served_both.call("GET", f"/v1/sessions/{session['id']}", status=200))["project"] == "default"


async def test_a_new_user_of_a_domain_begins_in_its_default_project(served_both: Any) -> None:
    await served_both.call("POST", "/v1/domains", {"name": "physics"}, status=201)
    await served_both.call("POST", "/v1/projects", {"name": "optics", "domain": "physics"}, status=201)
    made = await served_both.call("POST", "/v1/users", {"name": "lise", "domain": "physics", "project": "optics"}, status=201)
    assert (made["domain"], made["project"], made["projects"]) == ("physics", "optics", {"default": "member", "optics": "member"})
    assert made == await served_both.call("GET", "/v1/users/lise")
    listed = (await served_both.call("GET", "/v1/projects?domain=physics"))["items"]
    assert [(p["name"], p["members"]) for p in listed] == [("default", 1), ("optics", 1)]


async def test_everyone_sees_as_much_as_their_role_says(world: World) -> None:
    seen = {who: {s["name"] for s in (await world.call(who, "GET", "/v1/sessions?everyone=true"))["items"]} for who in world.tokens}
    assert {who for who, names in seen.items() if NAME in names} == {OWNER, "viewer", "member", "chief", "ruler"}
    found = {who: {p["name"] for p in (await world.call(who, "GET", "/v1/projects"))["items"]} for who in world.tokens}
    assert found["ruler"] == {"default", "laboratory", "sideline"} and found["viewer"] == {"default", "laboratory"}
    assert found["neighbour"] == {"default", "sideline"} and found["outsider"] == {"default"}
    people = {who: {u["name"] for u in (await world.call(who, "GET", "/v1/users"))["items"]} for who in ("chief", "ruler", "other-ruler")}
    assert people["chief"] == {"chief"} and people["other-ruler"] == {"outsider", "other-ruler"}
    assert people["ruler"] == {OWNER, "viewer", "member", "chief", "ruler", "neighbour", "removed"}


async def test_a_name_is_its_owner_s_and_with_the_owner_s_name_anyone_s_who_may_see_it(world: World) -> None:
    mine = await world.call("viewer", "POST", "/v1/sessions", {"type": "batch", "name": NAME, "project": "default"}, status=201)
    assert (await world.call("viewer", "GET", f"/v1/sessions/{NAME}"))["id"] == mine["id"]
    assert (await world.call("viewer", "GET", f"/v1/sessions/{OWNER}%2F{NAME}"))["id"] == world.session
    assert (await world.call("removed", "GET", f"/v1/sessions/viewer%2F{NAME}"))["id"] == mine["id"], "both are in the default project"
    await world.call("removed", "GET", f"/v1/sessions/{OWNER}%2F{NAME}", status=404)


async def test_administrators_manage_what_is_theirs(world: World) -> None:
    await world.call("chief", "PUT", f"/v1/projects/{world.project}/members/neighbour", {"role": "viewer"}, status=200)
    await world.call("neighbour", "GET", f"/v1/sessions/{world.session}", status=200)
    await world.call("neighbour", "POST", f"/v1/sessions/{world.session}/stop", status=403)
    await world.call("chief", "PUT", f"/v1/projects/{world.project}/members/outsider", {}, status=404)
    await world.call("chief", "POST", f"/v1/sessions/{OWNER}%2F{NAME}/stop", status=200)
    await world.call("chief", "POST", f"/v1/sessions/{OWNER}%2F{NAME}/exec", {"argv": ["id"]}, status=403)
    await world.call("ruler", "POST", "/v1/projects", {"name": "new"}, status=201)
    await world.call("ruler", "POST", "/v1/users", {"name": "young", "project": "new"}, status=201)
    await world.call("ruler", "PATCH", "/v1/users/young", {"active": False}, status=200)
    await world.call("ruler", "PATCH", "/v1/users/viewer", {"role": "domain-admin"}, status=200)
    assert (await world.call("viewer", "GET", "/v1/domains/redwood"))["admins"] == ["ruler", "viewer"], "at once, with the same token"
    await world.call("viewer", "PATCH", "/v1/users/ruler", {"role": "user"}, status=200)
    await world.call("ruler", "POST", "/v1/projects", {"name": "late"}, status=403)


@pytest.mark.parametrize("body", [{"role": "superadmin"}, {"uid": 5}, {"gid": 5}, {"domain": "bluebell"}])
async def test_no_administrator_of_a_domain_gives_more_than_the_domain(world: World, body: dict[str, Any]) -> None:
    for name in (OWNER, "ruler"):
        refused = await world.call("ruler", "PATCH", f"/v1/users/{name}", body, status=403)
        assert "administrator of the platform" in refused["detail"]
    if "domain" not in body:
        await world.call("ruler", "POST", "/v1/users", {"name": "new", **body}, status=403)
    await world.call("ruler", "PATCH", "/v1/users/admin", {"active": False}, status=404)


async def test_a_superadmin_is_no_domain_s(served: Any) -> None:
    """Even the administrator of the domain that they are in does not touch their account, nor makes it a token."""
    await served.call("POST", "/v1/users", {"name": "ruler", "role": "domain-admin"}, status=201)
    ruler = (await served.call("POST", "/v1/tokens", {"name": "t", "user": "ruler"}, status=201))["token"]
    await served.call("GET", "/v1/users/admin", token=ruler, status=404)
    await served.call("POST", "/v1/tokens", {"name": "t", "user": "admin"}, token=ruler, status=404)
    assert all(t["user"] == "ruler" for t in (await served.call("GET", "/v1/tokens", token=ruler))["items"])
    first = (await served.call("GET", "/v1/tokens"))["items"][-1]["id"]
    await served.call("DELETE", f"/v1/tokens/{first}", token=ruler, status=404)


async def test_who_is_taken_out_is_out_at_once_and_their_sessions_stay_theirs_to_stop(world: World) -> None:
    await world.call(OWNER, "GET", f"/v1/projects/{world.project}", status=200)
    await world.call("chief", "DELETE", f"/v1/projects/{world.project}/members/{OWNER}", status=204)
    await world.call(OWNER, "GET", f"/v1/projects/{world.project}", status=404)
    refused = await world.call(OWNER, "POST", "/v1/sessions", {"type": "batch", "project": "laboratory"}, status=404)
    assert "bai project ls" in refused["detail"]
    assert (await world.call(OWNER, "GET", f"/v1/sessions/{NAME}", status=200))["env"]["KEY"] == "sesame"
    await world.call(OWNER, "POST", f"/v1/sessions/{NAME}/exec", {"argv": ["id"]}, status=403)
    await world.call(OWNER, "POST", f"/v1/sessions/{NAME}/stop", status=200)


async def test_who_is_made_less_is_less_at_once(world: World) -> None:
    await world.call("member", "POST", "/v1/sessions", {"type": "batch", "project": "laboratory"}, status=201)
    await world.call("chief", "PUT", f"/v1/projects/{world.project}/members/member", {"role": "viewer"}, status=200)
    refused = await world.call("member", "POST", "/v1/sessions", {"type": "batch", "project": "laboratory"}, status=403)
    assert "Only a member of its project" in refused["detail"]


async def test_an_agent_s_token_does_not_exist_for_users(world: World) -> None:
    made = await world.call("", "POST", "/v1/tokens", {"name": "node7", "agent": True}, status=201)
    for who in ("ruler", OWNER):
        await world.call(who, "DELETE", f"/v1/tokens/{made['id']}", status=404)
        assert made["id"] not in str(await world.call(who, "GET", "/v1/tokens"))
    await world.call("", "DELETE", f"/v1/tokens/{made['id']}", status=204)


async def test_who_changes_domains_leaves_everything_behind(world: World) -> None:
    refused = await world.call("", "PATCH", f"/v1/users/{OWNER}", {"domain": "bluebell"}, status=409)
    assert "1 session" in refused["detail"]
    await world.call("", "PATCH", "/v1/users/ruler", {"domain": "bluebell"}, status=200)
    moved = await world.call("ruler", "GET", "/v1/whoami")
    assert (moved["domain"], moved["role"], moved["projects"]) == ("bluebell", "user", {"default": "member"})
    await world.call("ruler", "GET", f"/v1/sessions/{world.session}", status=404)
    await world.call("chief", "PUT", f"/v1/projects/{world.project}/members/ruler", {}, status=404)


async def test_the_same_key_of_another_user_is_another_key(world: World) -> None:
    asked = {"type": "batch", "name": "once"}
    mine = await world.call(OWNER, "POST", "/v1/sessions", asked, status=201, Idempotency_Key="k")
    theirs = await world.call("outsider", "POST", "/v1/sessions", asked, status=201, Idempotency_Key="k")
    assert mine["id"] != theirs["id"] and theirs["owner"] == "outsider"
    again = await world.call(OWNER, "POST", "/v1/sessions", asked, status=201, Idempotency_Key="k")
    assert again["id"] == mine["id"]


async def test_a_key_brings_back_nothing_that_its_token_may_not_see(world: World) -> None:
    """Neither a session to a token that is held elsewhere, nor the secret of a wider token to a narrower one."""
    asked = {"type": "batch", "name": "once", "project": "laboratory"}
    await world.call(OWNER, "POST", "/v1/sessions", asked, status=201, Idempotency_Key="k")
    held = await world.scoped(OWNER, "project:sideline")
    await world.served.call("POST", "/v1/sessions", asked, token=held, status=404, Idempotency_Key="k")
    await world.call(OWNER, "POST", "/v1/tokens", {"name": "wide", "scopes": []}, status=201, Idempotency_Key="t")
    narrow = await world.scoped(OWNER, "admin")
    refused = await world.served.call("POST", "/v1/tokens", {"name": "wide", "scopes": []}, token=narrow, status=403, Idempotency_Key="t")
    assert "may do more than itself" in refused["detail"]


async def test_a_token_makes_none_that_is_more_than_itself(world: World) -> None:
    narrow = await world.scoped(OWNER, "admin", expires_in_s=1000)
    call = world.served.call
    for scopes in (["exec"], [], ["admin", "sessions"]):
        await call("POST", "/v1/tokens", {"name": "x", "scopes": scopes, "expires_in_s": 10}, token=narrow, status=403)
    refused = await call("POST", "/v1/tokens", {"name": "x", "scopes": ["read"]}, token=narrow, status=403)
    assert "lasts longer" in refused["detail"]
    made = await call("POST", "/v1/tokens", {"name": "x", "expires_in_s": 10}, token=narrow, status=201)
    assert made["scopes"] == ["admin"], "what is left out is taken from the one that makes it"
    await call("POST", "/v1/tokens", {"name": "x"}, token=await world.scoped(OWNER, "sessions"), status=403)
    await call("POST", "/v1/tokens", {"name": "x"}, token=await world.scoped(OWNER, "project:laboratory"), status=403)
    await world.call(OWNER, "POST", "/v1/tokens", {"name": "x", "scopes": ["project:bluebell/default"]}, status=404)
    await world.call(OWNER, "POST", "/v1/tokens", {"name": "x", "scopes": ["write"]}, status=400)


async def test_a_superadmin_s_token_is_held_by_its_scopes_too(world: World) -> None:
    call = world.served.call
    read = await world.scoped("", "read")
    await call("GET", f"/v1/sessions/{world.session}", token=read, status=200)
    await call("POST", f"/v1/sessions/{world.session}/stop", token=read, status=403)
    await call("POST", "/v1/users", {"name": "x", "role": "superadmin"}, token=read, status=403)
    held = await world.scoped("", "project:redwood/laboratory")
    assert [s["name"] for s in (await call("GET", "/v1/sessions?everyone=true", token=held))["items"]] == [NAME]
    await call("GET", "/metrics", token=held, status=403)
    assert (await call("GET", "/v1/users", token=held))["items"] == [] and (await call("GET", "/v1/domains", token=held))["items"] == []
    made = await call("POST", "/v1/sessions", {"type": "batch"}, token=held, status=201)
    assert made["project"] == "laboratory", "the one project that it is held to"


async def test_what_is_closed_is_not_used(world: World) -> None:
    refused = await world.call("ruler", "DELETE", f"/v1/projects/{world.project}", status=409)
    assert "1 session in the project redwood/laboratory has not ended" in refused["detail"]
    refused = await world.call("", "DELETE", "/v1/domains/redwood", status=409)
    assert "`bai ps -A`" in refused["detail"]

    async def end(tx: Any) -> None:
        await tx.connection.execute(update(sessions).values(state="CANCELLED"))

    await world.served.context.store.write(end)
    await world.call("ruler", "DELETE", f"/v1/projects/{world.project}", status=204)
    refused = await world.call(OWNER, "POST", "/v1/sessions", {"type": "batch", "project": "laboratory"}, status=409)
    assert "not in use any more" in refused["detail"]
    assert "laboratory" not in str(await world.call(OWNER, "GET", "/v1/projects"))
    assert "laboratory" in str(await world.call(OWNER, "GET", "/v1/projects?all=true"))
    await world.call(OWNER, "GET", f"/v1/sessions/{world.session}", status=200)
    await world.call("ruler", "PATCH", f"/v1/projects/{world.project}", {"active": True}, status=200)
    await world.call(OWNER, "POST", "/v1/sessions", {"type": "batch", "project": "laboratory"}, status=201)
    await world.served.context.store.write(end)
    await world.call("", "DELETE", "/v1/domains/redwood", status=204)
    for who in (OWNER, "ruler"):
        assert "domain redwood is not in use" in (await world.call(who, "GET", "/v1/whoami", status=403))["detail"]
    await world.call("", "POST", "/v1/sessions", {"type": "batch", "project": "redwood/sideline"}, status=409)
    await world.call("", "PATCH", "/v1/domains/redwood", {"active": True}, status=200)
    await world.call(OWNER, "GET", "/v1/whoami", status=200)


async def test_what_everybody_needs_stays(world: World) -> None:
    for path in ("/v1/domains/default", "/v1/projects/default%2Fdefault", "/v1/projects/redwood%2Fdefault"):
        assert "cannot be closed" in (await world.call("", "DELETE", path, status=409))["detail"]
        await world.call("", "PATCH", path, {"active": False}, status=409)


async def test_names_are_checked_and_taken_once(world: World) -> None:
    for name in ("Upper", "a/b", "", "1x", "0" * 26, "01m8at00000000000000000000", PROJECT):
        for path in ("/v1/domains", "/v1/projects"):
            await world.call("", "POST", path, {"name": name}, status=422)
    await world.call("", "POST", "/v1/domains", {"name": "redwood"}, status=409)
    await world.call("ruler", "POST", "/v1/projects", {"name": "sideline"}, status=409)
    await world.call("other-ruler", "POST", "/v1/projects", {"name": "sideline"}, status=201)
    for weight in (0, -1, 1e9):
        await world.call("", "PATCH", "/v1/domains/redwood", {"weight": weight}, status=400)


async def test_making_a_project_or_a_domain_twice_makes_one(served_both: Any) -> None:
    for path, name in (("/v1/domains", "physics"), ("/v1/projects", "optics")):
        made = [await served_both.call("POST", path, {"name": name}, status=201, Idempotency_Key="k" + name) for _ in range(2)]
        assert made[0]["id"] == made[1]["id"]


async def test_a_session_that_is_asked_for_while_its_project_closes_is_in_or_refused(served_both: Any) -> None:
    """Whichever comes first: never a closed project with a session that waits."""
    for n in range(6):
        project = (await served_both.call("POST", "/v1/projects", {"name": f"p{n}"}, status=201))["id"]
        await served_both.call("GET", f"/v1/projects/{project}", status=200)
        asked = [served_both.call("POST", "/v1/sessions", {"type": "batch", "project": f"p{n}"}) for _ in range(4)]
        asked.insert(n % 5, served_both.call("DELETE", f"/v1/projects/{project}"))
        await asyncio.gather(*asked)
        shown = await served_both.call("GET", f"/v1/projects/{project}", status=200)
        waiting = (await served_both.call("GET", f"/v1/sessions?project={project}", status=200))["items"]
        assert shown["active"] or not waiting


async def test_the_place_of_a_session_is_looked_at_again_where_it_may_have_changed(served: Any) -> None:
    context = served.context
    place = (await context.places.all(context.store))[PROJECT]
    assert context.places.sure_of(place)
    with context.places.changing():
        assert not context.places.sure_of(place)
        again = (await context.places.all(context.store))[PROJECT]
        assert not context.places.sure_of(again), "nothing is remembered while something changes"
    await context.store.read(lambda connection: check_open(connection, place))


async def test_the_sessions_that_are_listed_are_those_that_the_rules_show(world: World) -> None:
    """The list filters in SQL; ``may`` decides one by one. They agree for everybody, with every token."""
    context = world.served.context
    people = {row.name: row.id for row in await context.store.read(lambda connection: connection.execute(select(users)))}

    async def more(tx: Any) -> None:
        places = (await tx.connection.execute(select(projects.c.id, projects.c.domain_id))).all()
        first = dict((await tx.connection.execute(select(sessions))).one()._mapping)
        await tx.connection.execute(insert(sessions), [
            {**first, "id": f"{n:026d}", "name": f"s{n}", "owner_id": owner, "project_id": place.id, "domain_id": place.domain_id}
            for n, (owner, place) in enumerate((owner, place) for owner in people.values() for place in places)])

    await context.store.write(more)
    rows = (await context.store.read(lambda connection: connection.execute(select(sessions)))).all()
    for who in ["", *world.tokens]:
        for scopes in ((), ("read",), ("project:redwood/laboratory",) if who in (OWNER, "ruler", "") else ("project:default",)):
            token = await world.scoped(who, *scopes)
            caller = await authenticate_token(context, token)
            query = select(sessions.c.id).where(visible(caller))
            listed = {row.id for row in await context.store.read(lambda connection, query=query: connection.execute(query))}
            assert listed == {row.id for row in rows if may(caller, Verb.READ, thing_of(row))}, (who, scopes)
