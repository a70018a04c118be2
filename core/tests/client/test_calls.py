"""What can be asked of a manager, as plain data, beside the API that answers it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from backendai.client import calls
from backendai.client.call import Call, failure
from backendai.client.calls import NewSession
from backendai.manager.openapi import document
from backendai.manager.operations import built_in
from backendai.model.errors import KINDS, Failure
from backendai.model.session import Mount, Network, SessionState, SessionType
from hypothesis import given
from hypothesis import strategies as st

FULL = NewSession(SessionType.BATCH, "n", "img:1", ("a", "b"), {"K": "V"}, {"cpu": 1, "mem": "1g"}, 0, 60.0, 0.0, Network.OUTWARD,
                  (Mount("/a", "/b", True),), "/w", ("t",), project="p", group="g", preset="p", reservation="r")
EVERY: Mapping[str, Call[Any]] = {
    "create_session": calls.create_session(FULL),
    "list_sessions": calls.list_sessions(True, SessionState.RUNNING, "c", 5, "p", "u", True),
    "get_session": calls.get_session("s", "final", 5.0),
    "stop_session": calls.stop_session("s", 1.0),
    "remove_session": calls.remove_session("s", True),
    "stats_of_session": calls.stats_of_session("s"),
    "logs_of_session": calls.logs_of_session("s", True, 5),
    "exec_in_session": calls.exec_in_session("s", ["a"], "in", {"K": "V"}, "0:0", "/", 5.0),
    "open_exec": calls.open_exec("s"),
    "archive_of_session": calls.archive_of_session("s", "/p"),
    "archive_of_session to put": calls.archive_of_session("s", "/p", put=True),
    "why_session": calls.why_session("s", True),
    "dry_run": calls.dry_run(FULL),
    "get_queue": calls.get_queue("g", "s", 5),
    "list_decisions": calls.list_decisions("g", "s", 7, 5),
    "get_overview": calls.get_overview(5),
    "list_agents": calls.list_agents(),
    "get_agent": calls.get_agent("a"),
    "list_plugins": calls.list_plugins(),
    "list_images": calls.list_images(),
    "pull_image": calls.pull_image("i:1", "a"),
    "build_image": calls.build_image("i:1", "a"),
    "remove_image": calls.remove_image("i:1", "a"),
    "whoami": calls.whoami(),
    "list_domains": calls.list_domains(True),
    "get_domain": calls.get_domain("d"),
    "create_domain": calls.create_domain("d", weight=2.0, borrow=True),
    "change_domain": calls.change_domain("d", weight=2.0, borrow=True, active=False),
    "remove_domain": calls.remove_domain("d"),
    "list_projects": calls.list_projects("d", True),
    "get_project": calls.get_project("d/p"),
    "create_project": calls.create_project("p", domain="d", weight=2.0),
    "change_project": calls.change_project("p", weight=2.0, active=False),
    "remove_project": calls.remove_project("p"),
    "list_members": calls.list_members("d/p"),
    "put_member": calls.put_member("d/p", "u", "viewer"),
    "remove_member": calls.remove_member("d/p", "u"),
    "list_users": calls.list_users("d", "p"),
    "get_user": calls.get_user("u"),
    "create_user": calls.create_user("u", role="user", email="e", uid=1, gid=1, domain="d", project="p"),
    "change_user": calls.change_user("u", role="user", email="e", uid=1, gid=1, active=False, domain="d", project="p"),
    "remove_user": calls.remove_user("u"),
    "list_tokens": calls.list_tokens(),
    "create_token": calls.create_token("t", "u", True, 60.0, ("read",)),
    "remove_token": calls.remove_token("i"),
    "watch_events": calls.watch_events(),
    "list_groups": calls.list_groups(),
    "get_group": calls.get_group("g"),
    "create_group": calls.create_group("g", scheduler="fifo", selector="x", scheduler_options={}, selector_options={}, allow=["*"], idle=[],
                                       half_life_s=60.0, types=["batch"], preemption={"enabled": True}),
    "change_group": calls.change_group("g", scheduler="", allow=[]),
    "remove_group": calls.remove_group("g"),
    "change_agent": calls.change_agent("a", group="g", cordoned=True, draining=False, labels={"zone": None}),
    "list_slots": calls.list_slots(),
    "list_presets": calls.list_presets(),
    "create_preset": calls.create_preset("p", {"cpu": 1}, "g", "about"),
    "remove_preset": calls.remove_preset("p"),
    "list_quotas": calls.list_quotas("user:u", "g"),
    "set_quotas": calls.set_quotas("user:u", {"cpu": 1, "mem": None}, "g"),
    "remove_quotas": calls.remove_quotas("user:u", "g", "cpu"),
    "examine": calls.examine(True),
    "list_bookings": calls.list_bookings(),
    "create_booking": calls.create_booking("b", "project:p", 1.0, 2.0, group="g", agents=["a"], count=1, labels={}, slots={"cpu": 1}),
    "remove_booking": calls.remove_booking("b"),
    "read_usage": calls.read_usage("day,user", "2026-11-26", "2026-11-27"),
}
API = document(built_in())


def route_of(call: Call[Any]) -> tuple[str, dict[str, Any]]:
    """Return the route that a call goes to, and what the API says of it."""
    for path, methods in API["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), call.path) and call.method.lower() in methods:
            return path, methods[call.method.lower()]
    raise AssertionError(f"the API has no {call.method} {call.path}")


def test_every_call_is_looked_at() -> None:
    made = {name for name, value in vars(calls).items()
            if inspect.isfunction(value) and "Call[" in str(value.__annotations__.get("return"))}
    assert {name.split()[0] for name in EVERY} == made


def test_every_route_is_called() -> None:
    routes = {(method.upper(), path) for path, methods in API["paths"].items() for method in methods}
    assert {(call.method, route_of(call)[0]) for call in EVERY.values()} == routes


@pytest.mark.parametrize("name", EVERY)
def test_a_call_sends_what_the_api_takes_and_nothing_else(name: str) -> None:
    call = EVERY[name]
    _, described = route_of(call)
    known = {parameter["name"] for parameter in described["parameters"] if parameter["in"] == "query"}
    assert call.query.keys() <= known
    assert bool(call.key) == any(parameter["name"] == "Idempotency-Key" for parameter in described["parameters"])
    content = described.get("requestBody", {}).get("content", {}).get("application/json")
    if call.body is None:
        assert content is None
        return
    schema = content["schema"]
    if "$ref" in schema:
        schema = API["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert call.body.keys() <= schema["properties"].keys()
    assert set(schema.get("required", ())) <= call.body.keys()


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_is_read_as_the_api_types_it(name: str) -> None:
    """The fields of the client's type are those of the schema that the API answers with."""
    call, (_, described) = EVERY[name], route_of(EVERY[name])
    answers = [about for status, about in described["responses"].items() if status != "default"]
    schema = answers[0].get("content", {}).get("application/json", {}).get("schema")
    if call.type is None:
        return
    assert schema is not None
    shape = API["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if call.many:
        item = shape["properties"]["items"]["items"]
        shape = API["components"]["schemas"][item["$ref"].rpartition("/")[2]]
    assert set(call.type.__dataclass_fields__) == shape["properties"].keys()


NAMES: tuple[Callable[[str], Call[Any]], ...] = (
    calls.get_session, calls.stop_session, calls.remove_session, calls.stats_of_session, calls.logs_of_session, calls.open_exec,
    calls.get_agent, calls.get_user, calls.remove_user, calls.remove_token, calls.get_domain, calls.get_project)


@given(name=st.text(min_size=1), make=st.sampled_from(NAMES))
def test_a_name_stays_one_part_of_the_path(name: str, make: Callable[[str], Call[Any]]) -> None:
    plain, odd = make("x").target, make(name).target
    assert odd.isascii() and odd.isprintable() and " " not in odd
    assert odd.count("/") == plain.count("/") and "?" not in odd and "#" not in odd


def test_an_administrator_s_owner_slash_name_is_quoted() -> None:
    assert calls.get_session("ada/lab").path == "/v1/sessions/ada%2Flab"


def test_no_name_is_refused_before_anything_is_sent() -> None:
    """Else it would be another route: all sessions."""
    with pytest.raises(Failure) as refused:
        calls.remove_session("")
    assert refused.value.code == "invalid-request"


def test_query_values_are_written_as_the_api_reads_them() -> None:
    assert calls.list_sessions(True, SessionState.RUNNING, None, 7).target == "/v1/sessions?all=true&state=RUNNING&limit=7"
    assert calls.watch_events(False).target == "/v1/events?follow=false"
    assert calls.archive_of_session("s", "/a b/ü&?").target == "/v1/sessions/s/archive?path=%2Fa+b%2F%C3%BC%26%3F"
    assert calls.get_session("s").target == "/v1/sessions/s"


def test_headers_are_those_of_the_request() -> None:
    assert EVERY["whoami"].headers("secret") == {"Authorization": "Bearer secret"}
    assert EVERY["whoami"].headers("") == {}
    assert calls.create_session(FULL, "k").headers("t") == {
        "Authorization": "Bearer t", "Content-Type": "application/json", "Idempotency-Key": "k"}


def test_a_key_is_made_up_for_each_creation() -> None:
    keys = {calls.create_session(FULL).key for _ in range(50)} | {calls.create_token("t").key, calls.create_user("u").key}
    assert len(keys) == 52 and all(len(key) == 32 for key in keys)


def test_only_what_may_be_sent_twice_is_repeatable() -> None:
    risky = {name for name, call in EVERY.items() if not call.repeatable}
    assert risky == {"stop_session", "exec_in_session", "pull_image", "build_image", "change_user", "change_group", "change_agent",
                     "change_domain", "change_project", "set_quotas", "examine", "dry_run"}


def test_a_body_has_what_was_asked_for() -> None:
    assert FULL.body() == {
        "type": "batch", "name": "n", "image": "img:1", "command": ("a", "b"), "env": {"K": "V"}, "slots": {"cpu": 1, "mem": "1g"},
        "priority": 0, "time_limit_s": 60.0, "grace_s": 0.0, "network": "outward",
        "mounts": [{"source": "/a", "target": "/b", "readonly": True}], "workdir": "/w", "tags": ("t",), "group": "g",
        "preset": "p", "reservation": "r", "project": "p"}
    assert NewSession().body() == {"type": "batch"}
    assert json.loads(calls.create_session(FULL).payload() or b"")["network"] == "outward"


@pytest.mark.parametrize("field", ["name", "image", "workdir", "time_limit_s"])
def test_what_is_given_but_empty_is_the_server_s_to_refuse(field: str) -> None:
    """`--name ""` and `--timeout 0` are mistakes; dropping them would do something else than what was asked."""
    value: Any = 0.0 if field == "time_limit_s" else ""
    assert NewSession(**{field: value}).body()[field] == value


def test_a_command_s_time_is_waited_for() -> None:
    assert calls.exec_in_session("s", ["a"], timeout_s=3600.0).answer_s > 3600
    assert calls.exec_in_session("s", ["a"]).answer_s > 600
    assert calls.exec_in_session("s", ["a"], timeout_s=0.0).body == {"argv": ["a"], "stdin": "", "timeout_s": 0.0}
    assert calls.remove_session("s", force=True).answer_s > 300
    assert calls.get_session("s", "final", 60.0).answer_s > 60


@pytest.mark.parametrize("code", KINDS)
def test_a_problem_document_becomes_its_failure(code: str) -> None:
    sent = Failure(code, "A sentence with ünicode.")
    got = failure(KINDS[code].status, json.dumps(sent.problem()).encode())
    assert (got.code, got.message) == (code, "A sentence with ünicode.")


@pytest.mark.parametrize("data", [b"", b"<html>no</html>", b"[]", b"3", b'"x"', b"null", b"{}", b'{"code": "not-found"}', b"\xff\xfe{"])
@pytest.mark.parametrize(("status", "code"), [(404, "not-found"), (401, "unauthenticated"), (500, "internal"), (502, "plugin-fault"),
                                              (418, "invalid-request"), (599, "internal")])
def test_an_answer_that_is_no_problem_document_is_still_a_failure(data: bytes, status: int, code: str) -> None:
    got = failure(status, data)
    assert got.code == code
    assert str(status) in got.message and "manager" in got.message


def test_a_code_of_a_newer_server_keeps_its_sentence() -> None:
    got = failure(429, b'{"code": "too-warm", "detail": "Cool down."}')
    assert (got.code, got.message) == ("too-many", "Cool down.")


@given(data=st.binary(), status=st.integers(400, 599))
def test_no_answer_breaks_the_client(data: bytes, status: int) -> None:
    assert failure(status, data).code in KINDS


def test_an_answer_that_is_not_the_api_s_is_said() -> None:
    for data in (b"", b"<html>", b"{}", b'{"id": 3}'):
        with pytest.raises(Failure) as refused:
            calls.get_session("s").read(data)
        assert (refused.value.code, "/v1/sessions/s" in refused.value.message) == ("internal", True)


def test_fields_that_this_client_does_not_know_are_passed_over() -> None:
    """Addresses change by addition only."""
    found = calls.list_users().read(b'{"items": [{"id": "1", "name": "a", "role": "user", "email": "", "active": true, "uid": 1, "gid": 1, '
                                    b'"created_at": 1.0, "shoe": 44}], "next": null}')
    assert [user.name for user in found] == ["a"]
