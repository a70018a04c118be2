"""Sessions of several containers, arrays, dependencies and further attempts, through the command line and real containers."""

from __future__ import annotations

import time
from pathlib import Path

from tests.parts.platform import Platform

SMALL = ("-r", "cpu=0.1,mem=64m")


def test_the_containers_of_a_cluster_know_and_reach_each_other(platform: Platform, name: str) -> None:
    script = 'echo "$BACKENDAI_CLUSTER_HOST of $BACKENDAI_CLUSTER_SIZE: $BACKENDAI_CLUSTER_HOSTS"; grep -c sub1 /etc/hosts; sleep 1'
    done = platform.bai("run", "--name", name, "--cluster", "main:1,sub:2", "--one-agent", *SMALL, "--", "sh", "-c", script)
    assert done.text.split("\n")[0] == "main1 of 3: main1,sub1,sub2" and done.text.split("\n")[1] == "1"
    shown = platform.session(name)
    assert [kernel["name"] for kernel in shown["kernels"]] == ["main1", "sub1", "sub2"] and shown["result"] == "success"
    assert "sub2 of 3" in platform.bai("logs", f"{name}:sub2").text
    every = platform.bai("logs", f"{name}:all").text
    assert all(f"{kernel:5} | {kernel} of 3" in every for kernel in ("main1", "sub1", "sub2"))


def test_one_can_get_into_each_container(platform: Platform, name: str, tmp_path: Path) -> None:
    platform.begin("--name", name, "--cluster", "main:1,sub:1", "--one-agent", *SMALL)
    assert platform.bai("exec", f"{name}:sub1", "--", "hostname").text.strip() == "sub1"
    assert platform.bai("exec", name, "--", "hostname").text.strip() == "main1"
    platform.bai("exec", f"{name}:sub1", "--", "sh", "-c", "echo mine > note")
    platform.bai("cp", f"{name}:sub1:note", str(tmp_path))
    assert (tmp_path / "note").read_text() == "mine\n"
    assert [kernel["role"] for kernel in platform.rest("GET", f"/v1/sessions/{name}:sub1/stats")["kernels"]] == ["sub"]
    assert "it has main1, sub1" in platform.problem("GET", f"/v1/sessions/{name}:sub9/archive?path=x")["detail"]
    platform.bai("stop", name)
    assert platform.wait(name)["state"] == "TERMINATED"


def test_a_container_that_fails_takes_its_session_along_and_is_named(platform: Platform, name: str) -> None:
    script = 'test "$BACKENDAI_CLUSTER_HOST" != sub1 || exit 3; sleep 60'
    platform.bai("run", "-d", "--name", name, "--cluster", "main:1,sub:2", "--one-agent", *SMALL, "--", "sh", "-c", script)
    ended = platform.wait(name)
    assert (ended["state"], ended["reason"]) == ("FAILED", "sub1: The command ended with 3.")


def test_it_is_tried_again_and_each_attempt_can_be_read(platform: Platform, name: str) -> None:
    script = 'echo "attempt ${BACKENDAI_ATTEMPT:-1}"; test "${BACKENDAI_ATTEMPT:-1}" = 2 || exit 75'
    platform.bai("run", "-d", "--name", name, "--retry", "2", "--backoff", "0s", "--on-exit", "75", *SMALL, "--", "sh", "-c", script)
    ended = platform.wait(name)
    assert (ended["state"], ended["result"], ended["attempt"]) == ("TERMINATED", "success", 2)
    followed = platform.bai("run", "--retry", "1", "--backoff", "0s", *SMALL, "--", "sh", "-c", script).text
    assert followed.endswith("attempt 2\n")
    assert platform.bai("logs", name).text == "attempt 2\n" and platform.bai("logs", name, "--attempt", "1").text == "attempt 1\n"


def test_sessions_follow_each_other(platform: Platform, name: str) -> None:
    platform.bai("run", "-d", "--name", name, *SMALL, "--", "sh", "-c", "sleep 1; exit 1")
    platform.bai("run", "-d", "--name", f"{name}-then", "--after", f"{name}:afternotok", *SMALL, "--", "true")
    platform.bai("run", "-d", "--name", f"{name}-never", "--after", name, *SMALL, "--", "true")
    assert platform.wait(f"{name}-then")["result"] == "success"
    never = platform.wait(f"{name}-never")
    assert never["state"] == "CANCELLED" and "a success" in never["reason"]


def test_an_array_is_many_sessions_in_one_line(platform: Platform, name: str) -> None:
    array = platform.bai("run", "--name", name, "--array", "0-3%2", *SMALL, "--", "sleep", "30").text.strip()
    deadline = time.monotonic() + 60
    while sum(one["state"] == "RUNNING" for one in platform.sessions() if (one["array"] or {}).get("id") == array) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    table = platform.bai("ps").text
    assert f"{name}-[0,1]" in table and f"{name}-[2,3]" in table
    platform.bai("stop", name)
    assert {platform.wait(f"{name}-{index}")["state"] for index in range(4)} == {"TERMINATED", "CANCELLED"}


def test_a_script_of_ones_own_runs_before_the_command(platform: Platform, name: str, tmp_path: Path) -> None:
    (tmp_path / "setup.sh").write_text("echo ready > /home/work/mark\n")
    done = platform.bai("run", "--name", name, "--bootstrap", str(tmp_path / "setup.sh"), *SMALL, "--", "cat", "/home/work/mark")
    assert done.text == "ready\n"
