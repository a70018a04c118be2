"""A manager and two agents as processes of their own, on both databases."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.parts.platform import Platform
from tests.parts.postgres import databases
from tests.system.conftest import make

PAIR = ("east", "west")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database's URL: empty for SQLite, or an empty database on the server."""
    if request.param == "sqlite":
        yield ""
        return
    server: str = request.getfixturevalue("postgres_server")
    name = f"apart_{os.getpid()}_{time.monotonic_ns()}"
    databases(server, f"CREATE DATABASE {name}")
    try:
        yield server.replace("/postgres", f"/{name}", 1)
    finally:
        databases(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pair(db: str, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A manager on *db* and two agents with the sandbox."""
    made = make("sandbox", request, names=PAIR, db=db)
    try:
        made.start()
        yield made
    finally:
        left = made.remove()
    assert left == []


def test_sessions_run_on_both_agents(pair: Platform) -> None:
    capacity = next(agent["capacity"]["mem"] for agent in pair.rest("GET", "/v1/agents")["items"])
    big = {"cpu": 0.1, "mem": int(capacity * 0.6)}  # two of them cannot share an agent
    made = [pair.ask_for("echo here; sleep 1", slots=big)["id"] for _ in range(4)]
    ended = [pair.wait(identity) for identity in made]
    assert {session["agent"] for session in ended} == set(PAIR)
    assert {session["state"] for session in ended} == {"TERMINATED"}
    assert {pair.bai("logs", identity).out for identity in made} == {b"here\n"}


def test_a_command_line_session_works_as_on_one_process(pair: Platform) -> None:
    done = pair.run("echo out; echo err >&2; exit 7", code=7)
    assert done.out == b"out\n"


def test_a_lost_manager_delays_and_loses_nothing(pair: Platform) -> None:
    made = [pair.detach(f"sleep 1; echo done {i}; exit {i}") for i in range(4)]
    pair.wait(made[-1], "running")
    pair.kill("manager")
    time.sleep(2)  # they end while there is nobody to tell
    pair.start()
    assert [pair.wait(identity)["exit_code"] for identity in made] == list(range(4))
    assert [pair.bai("logs", identity).text for identity in made] == [f"done {i}\n" for i in range(4)]


def test_a_lost_agent_is_said_and_comes_back_with_its_sessions(pair: Platform) -> None:
    identity = pair.detach("sleep 3; echo end; exit 4")
    name = pair.wait(identity, "running")["agent"]
    pair.kill(name)
    deadline = time.monotonic() + 60
    while next(agent for agent in pair.rest("GET", "/v1/agents")["items"] if agent["name"] == name)["connected"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert pair.session(identity)["state"] == "RUNNING"
    other = pair.detach("true")
    assert pair.wait(other)["agent"] != name
    pair.start()
    assert pair.wait(identity)["exit_code"] == 4
    assert pair.bai("logs", identity).text == "end\n"
