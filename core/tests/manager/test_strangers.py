"""Every operation and every stream, called by everybody who may not: it refuses or shows nothing, and nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backendai.manager import access
from backendai.manager.operations import built_in

from core.tests.manager.world import BOOKING, KEY, NAME, OWNER, World, build

REGISTRY = built_in()
ROUTES = {**{o.name: o.http for o in REGISTRY}, **{s.name: s.http for s in REGISTRY.streams.values()}}
SCOPES = ("project:redwood/laboratory", f"user:{OWNER}", "domain:redwood")
# What to send, aimed at what is not the caller's. An operation with a body that is not here is refused for its body: add one.
BODIES: dict[str, list[Any]] = {
    "sessions.create": [{"type": "batch", "project": "redwood/laboratory"}, {"type": "batch", "project": "{project}"}],
    "sessions.dry-run": [{"type": "batch", "project": "redwood/laboratory"}, {"type": "batch", "project": "{project}"}],
    "sessions.run": [{"argv": ["id"]}], "sessions.upload": [b"tar"], "images.build": [b"tar"], "images.pull": [{"image": "x:1"}],
    "domains.create": [{"name": "another"}], "domains.update": [{"weight": 7}, {"active": False}],
    "projects.create": [{"name": "another", "domain": "redwood"}], "projects.update": [{"weight": 7}, {"active": False}],
    "projects.put_member": [{"role": "admin"}],
    "users.create": [{"name": "another", "domain": "redwood"}, {"name": "another", "role": "superadmin"}],
    "users.update": [{"email": "a@b.c"}, {"role": "superadmin"}, {"active": False}, {"uid": 7}, {"domain": "bluebell"}],
    "groups.create": [{"name": "another"}], "groups.update": [{"scheduler": "fifo"}],
    "presets.create": [{"name": "another", "slots": {"cpu": 1}}], "agents.update": [{"cordoned": True}],
    "quotas.set": [{"scope": scope, "limits": {"sessions": 1}} for scope in SCOPES],
    "doctor.examine": [{"mend": False}, {"mend": True}],
    "bookings.create": [{"name": "another", "scope": scope, "begins": 1e10, "ends": 1e10 + 1, "count": 1} for scope in SCOPES],
    "tokens.create": [{"name": "t", "user": OWNER}, {"name": "t", "agent": True}],
}
QUERIES = {
    "sessions.list": ["", "?everyone=true&all=true", "?project=redwood/laboratory", "?project={project}", f"?user={OWNER}"],
    "domains.list": ["", "?all=true"], "projects.list": ["", "?all=true", "?domain=redwood"],
    "users.list": ["", "?domain=redwood", "?project=redwood/laboratory"], "sessions.download": ["?path=/"], "sessions.upload": ["?path=/"],
    "quotas.list": ["", *(f"?scope={scope}" for scope in SCOPES)], "quotas.delete": [f"?scope={scope}" for scope in SCOPES],
    "sessions.why": ["", "?replay=true"], "queue.get": ["", "?group=default", "?session={session}", f"?session={OWNER}%2F{NAME}"],
    "decisions.list": ["", "?session={session}"],
    "usage.read": ["?by=domain,project,user"],
    "images.delete": ["?name=x:1"], "images.build": ["?name=x:1"], "events.watch": ["?follow=false"],
}
IDS = {"sessions": ["{session}", f"{OWNER}%2F{NAME}"], "projects": ["{project}", "redwood%2Flaboratory"], "tokens": ["{token}"]}
NAMES = {"domains": ["redwood"], "users": [OWNER], "bookings": [BOOKING]}
OWN = ("users.update", "tokens.create", "tokens.delete", "projects.remove_member")  # which anyone may use on themselves
OPEN = {"whoami", "slots.list", "presets.list"}  # which show what everyone may see
HIDDEN = (BOOKING, NAME, KEY, "laboratory", OWNER)  # of a neighbour; from another domain its name, too
STRANGERS = {"outsider": (*HIDDEN, "redwood"), "other-ruler": (*HIDDEN, "redwood"), "neighbour": HIDDEN, "removed": HIDDEN}


@pytest.fixture
async def world(served: Any) -> World:
    """Two domains full of people."""
    return await build(served)


def attempts(world: World, name: str, who: str) -> Iterator[tuple[str, str, Any]]:
    """Yield each way to call an operation that aims at OWNER's things."""
    http, subject = ROUTES[name], name.partition(".")[0]
    for id in IDS.get(subject, ["default"]):
        for named in NAMES.get(subject, ["default"]):
            for query in QUERIES.get(name, [""]):
                for body in BODIES.get(name, [None if http.method in ("GET", "DELETE") else {}]):
                    for user in (who, OWNER):
                        path = http.path.replace("{id}", id).replace("{name}", named).replace("{user}", user) + query
                        text = str(body).replace("{project}", world.project) if isinstance(body, dict) else ""
                        given = body if not text else {k: world.project if v == "{project}" else v for k, v in body.items()}
                        yield http.method, path.format(session=world.session, project=world.project, token=world.token), given
                        if "{user}" not in http.path:
                            break


def test_what_takes_a_body_has_one_here() -> None:
    bodiless = {"sessions.stop"}
    missing = {o.name for o in REGISTRY if o.body and o.http.method in ("POST", "PUT", "PATCH")} - BODIES.keys() - bodiless
    assert missing == set(), "add what to send to BODIES"


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_stranger_is_refused_or_shown_nothing(world: World, who: str) -> None:
    before = await world.dump()
    words = (*STRANGERS[who], world.session, world.project, world.token)
    for name in ROUTES.keys() - ({"events.watch"} if who == "removed" else set()):  # which tells them that they were in the project
        for method, path, body in attempts(world, name, who):
            status, text = await world.status(world.tokens[who], method, path, body)
            answer = text.replace(f'"{who}"', "") if status < 300 else ""  # an error may repeat what was asked for
            assert status < 300 or status in (401, 403, 404, 503), (name, method, path, status, text)
            assert not [word for word in words if word in answer], (name, path, text)
    assert await world.dump() == before


@pytest.mark.parametrize("who", ["viewer", "member"])
async def test_who_may_only_look_changes_nothing(world: World, who: str) -> None:
    before = await world.dump()
    mutating = {o.name for o in REGISTRY if o.mutates} | {s.name for s in REGISTRY.streams.values() if s.mutates}
    allowed = {"sessions.create"} if who == "member" else set()
    for name in mutating - allowed:
        for method, path, body in attempts(world, name, who):
            if path.endswith(f"/members/{who}") and method == "DELETE":
                continue  # everyone may leave
            status, text = await world.status(world.tokens[who], method, path, body)
            assert status in (403, 404), (name, path, status, text)
            if name.startswith("sessions.") and status == 403:
                assert "Only " in text and " may " in text, "it says who may"
    assert await world.dump() == before
    shown = await world.call(who, "GET", f"/v1/sessions/{OWNER}%2F{NAME}", status=200)
    assert shown["env"] == {"KEY": "***"}, "what one may see of a session is not what is in its variables"


@pytest.mark.parametrize("scopes", [("read",), ("read", "exec"), ("admin",), ("project:sideline",), ("project:sideline", "sessions")])
async def test_a_token_does_no_more_than_it_is_for(world: World, scopes: tuple[str, ...]) -> None:
    """Even its own user's sessions are not its to touch; held to another project, it does not even see them."""
    token = await world.scoped(OWNER, *scopes)
    before = await world.dump()
    for name in ROUTES:
        mutates = REGISTRY.get(name).mutates if name not in REGISTRY.streams else REGISTRY.streams[name].mutates
        for method, path, body in attempts(world, name, OWNER):
            status, text = await world.status(token, method, path, body)
            if "exec" in scopes and name in ("sessions.exec", "sessions.run", "sessions.download", "sessions.upload"):
                assert status in (409, 400), (name, status, text)  # it does not run yet
            elif scopes == ("admin",) and name in OWN and status < 300:
                continue  # their own address, their tokens (for no more than this one), and leaving
            elif mutates and not ("sessions" in scopes and status == 404):
                assert status in (403, 404), (name, path, body, status, text)
            if scopes[0].startswith("project:") and name != "whoami":
                assert NAME not in text or status >= 400, (name, path, text)
    after = await world.dump()
    assert after["sessions"] == before["sessions"] and after["projects"] == before["projects"]


async def test_every_operation_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it does is seen where the decision is made; what does not ask shows nobody's things, or filters as ``may`` decides."""
    asked: list[str] = []
    decide = access._allowed

    def noting(caller: Any, verb: Any, thing: Any) -> bool:
        asked.append(thing.kind)
        return decide(caller, verb, thing)

    monkeypatch.setattr(access, "_allowed", noting)
    silent = set()
    for name in ROUTES:
        asked.clear()
        for method, path, body in attempts(world, name, OWNER):
            await world.status(world.tokens["outsider"], method, path, body)
        if not asked:
            silent.add(name)
    assert silent == OPEN
