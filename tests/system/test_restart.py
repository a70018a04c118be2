"""Processes of the platform come and go; sessions, their output and their results stay."""

from __future__ import annotations

import signal

import pytest

from tests.parts.platform import Platform

LINES = 40  # one each tenth of a second: the restart falls into the middle
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 3"
COMPLETE = [f"line {i}" for i in range(LINES)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_sessions_survive_a_restart_and_are_adopted(own: Platform, number: signal.Signals) -> None:
    own.start()
    own.begin("--name", "lab")
    batch = own.detach(COUNT)
    own.wait(batch, "running")
    own.kill("up", number)
    own.start()
    session = own.wait(batch)
    assert (session["state"], session["exit_code"]) == ("TERMINATED", 3)
    assert own.bai("logs", batch).text.splitlines() == COMPLETE
    assert own.bai("exec", "lab", "--", "echo", "still here").text == "still here\n"


def test_what_ends_while_nobody_looks_is_known_afterwards(own: Platform) -> None:
    own.start()
    batch = own.detach(COUNT)
    own.wait(batch, "running")
    own.kill("up")
    own.start()  # a container that ends meanwhile is found by its label, with its output and exit status
    assert own.wait(batch)["exit_code"] == 3
    assert own.bai("logs", batch).text.splitlines() == COMPLETE


def test_an_interrupted_follower_says_so(own: Platform) -> None:
    own.start()
    batch = own.detach("echo begun; sleep 600")
    with own.spawn("logs", "-f", batch) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"begun\n"
        own.kill("up")
        assert follower.wait(60) not in (0, 1)
        assert follower.stderr is not None
        assert b"Traceback" not in follower.stderr.read()
    own.start()


def test_it_is_ready_again_under_the_same_address_and_token(own: Platform) -> None:
    own.start()
    first = (own.url, own.token)
    own.kill("up", signal.SIGTERM)
    own.start()
    assert (own.url, own.token) == first
    assert own.ask("ps")["items"] == []


def test_without_a_platform_the_command_says_what_to_do(own: Platform) -> None:
    own.start()
    own.kill("up", signal.SIGTERM)
    done = own.bai("ps", code=69)
    assert "bai up" in done.said
    own.start()
