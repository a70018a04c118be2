"""Batch sessions through the command line: output, exit statuses, and what is said when they cannot run."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.parts.platform import Platform

LINES = 1_500_000  # of seq: 10.4 MB


def test_output_and_exit_status_come_through(platform: Platform) -> None:
    done = platform.run("echo out; echo err >&2; exit 7", code=7)
    assert done.out == b"out\n"
    assert b"err\n" in done.err
    assert b"out\n" not in done.err


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_statuses_are_true(platform: Platform, name: str, status: int) -> None:
    platform.run(f"exit {status}", "--name", name, code=status)
    session = platform.ask("info", name)
    assert (session["state"], session["exit_code"]) == ("TERMINATED", status)
    assert session["result"] == ("success" if status == 0 else "failure")


def test_ten_megabytes_arrive_byte_for_byte(platform: Platform) -> None:
    want = "".join(f"{number}\n" for number in range(1, LINES + 1)).encode()
    assert len(want) > 10_000_000
    got = platform.run(f"seq 1 {LINES}", timeout_s=170).out
    assert (len(got), hashlib.sha256(got).hexdigest()) == (len(want), hashlib.sha256(want).hexdigest())


def test_both_streams_are_complete_and_in_order(platform: Platform) -> None:
    done = platform.run("i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done")
    assert done.text.split() == [f"o{i}" for i in range(2000)]
    assert [line for line in done.said.split() if line.startswith("e") and line[1:].isdigit()] == [f"e{i}" for i in range(2000)]


def test_bytes_that_are_no_text_survive(platform: Platform) -> None:
    assert platform.run(r"printf '\000\001\377\200\r\n\033[0m no newline'").out == b"\x00\x01\xff\x80\r\n\x1b[0m no newline"


def test_unicode_survives_in_arguments_environment_and_output(platform: Platform) -> None:
    text = "naïve 한국어 🚀 \u202eabc"
    argv = ("sh", "-c", 'echo "$WORD|$1"', "sh", text)
    done = platform.bai("run", *platform.on(), "-r", "cpu=0.1,mem=64m", "-e", f"WORD={text}", "--", *argv)
    assert done.text == f"{text}|{text}\n"


def test_the_environment_says_where_one_is(platform: Platform, name: str) -> None:
    done = platform.run('echo "$BACKENDAI_SESSION_NAME $HOME $(pwd) $(id -u)"', "--name", name)
    assert done.text == f"{name} /home/work /home/work 1000\n"


def test_running_out_of_memory_is_said(platform: Platform, name: str) -> None:
    platform.run("x=x; while :; do x=$x$x$x; done", "-r", "cpu=1,mem=64m", "--name", name, code=137)
    session = platform.session(name)
    assert (session["result"], session["exit_code"]) == ("failure", 137)
    assert "memory" in session["reason"]
    assert "mem=" in session["reason"], "it says what to do next"


def test_being_killed_is_not_called_out_of_memory(platform: Platform, name: str) -> None:
    platform.run("kill -9 $$", "--name", name, code=137)
    assert "memory" not in platform.session(name)["reason"]


def test_a_time_limit_ends_it_and_is_said(platform: Platform, name: str) -> None:
    done = platform.run("echo begun; sleep 60", "--timeout", "2s", "--name", name, code=None)
    assert done.code != 0
    assert done.out == b"begun\n"
    session = platform.session(name)
    assert session["result"] == "failure"
    assert "time limit" in session["reason"]


def test_a_missing_image_fails_with_a_sentence(platform: Platform, name: str) -> None:
    done = platform.bai("run", "-i", "no-such-image-here:1", "--name", name, "--", "true", code=None)
    assert done.code not in (0, 1)
    assert "no-such-image-here" in done.said
    assert "Traceback" not in done.said


def test_a_missing_program_fails_with_a_sentence(platform: Platform) -> None:
    done = platform.bai("run", *platform.on(), "-r", "cpu=0.1,mem=64m", "--", "/no/such/program", code=None)
    assert done.code not in (0, 1)
    assert "/no/such/program" in done.said
    assert "Traceback" not in done.said


def test_more_than_any_agent_has_is_refused_at_once(platform: Platform) -> None:
    done = platform.bai("run", *platform.on(), "-r", "cpu=5000", "--", "true", code=65)
    assert "cpu" in done.said
    problem = platform.problem("POST", "/v1/sessions", {"type": "batch", "command": ["true"], "slots": {"mem": "900t"}})
    assert (problem["status"], problem["code"]) == (422, "impossible")


@pytest.mark.parametrize("bad", ["1st", "a b", "-x", "x" * 80, "../x", "naïve"])
def test_a_bad_name_is_refused_at_once(platform: Platform, bad: str) -> None:
    done = platform.bai("run", *platform.on(), f"--name={bad}", "--", "true", code=65)
    assert "name" in done.said


@pytest.mark.parametrize(("source", "target"), [("relative", "/mnt/x"), ("/etc/../root", "/mnt/x"), ("/etc", "/proc"), ("/etc", "/.bai/x")])
def test_a_bad_mount_is_refused_at_once(platform: Platform, source: str, target: str) -> None:
    body = {"type": "batch", "command": ["true"], "mounts": [{"source": source, "target": target}]}
    assert platform.problem("POST", "/v1/sessions", body)["code"] == "bad-mount"


def test_a_mount_outside_what_the_agent_allows_fails_with_a_sentence(platform: Platform) -> None:
    session = platform.ask_for("true", mounts=[{"source": "/etc", "target": "/mnt/etc"}])
    ended = platform.wait(session["id"])
    assert ended["state"] == "FAILED"
    assert "/etc" in ended["reason"]


def test_detached_it_prints_its_id_alone(platform: Platform) -> None:
    done = platform.run("echo later", "-d")
    identity = done.text.splitlines()[-1]
    assert platform.wait(identity)["state"] == "TERMINATED"
    assert platform.bai("logs", identity).out == b"later\n"


def test_logs_follow_and_tail(platform: Platform) -> None:
    identity = platform.detach("seq 1 50; sleep 1; echo end")
    assert platform.bai("logs", "-f", identity).text.split() == [*map(str, range(1, 51)), "end"]
    assert platform.bai("logs", "--tail", "2", identity).text.split() == ["50", "end"]


def test_a_name_that_is_in_use_is_refused(platform: Platform, name: str) -> None:
    platform.begin("--name", name)
    assert platform.bai("start", *platform.on(), "--name", name, code=75).said
    platform.bai("stop", name)
    platform.wait(name)
    platform.bai("rm", name)


def test_json_has_what_is_promised(platform: Platform, name: str) -> None:
    platform.run("true", "--name", name)
    session = platform.ask("info", name)
    promised = {"id", "name", "type", "image", "state", "result", "exit_code", "reason", "hold", "agent", "created_at", "started_at",
                "ended_at", "slots"}
    assert promised <= session.keys()
    assert session["created_at"] <= session["started_at"] <= session["ended_at"]
    assert any(row["name"] == name for row in platform.ask("ps", "-a")["items"])
    assert all({"id", "dist", "version", "state", "why"} <= row.keys() for row in platform.ask("plugin", "ls"))


def test_a_repeated_request_makes_one_session(platform: Platform, name: str) -> None:
    body = {"type": "batch", "command": ["true"], "name": name}
    first = platform.rest("POST", "/v1/sessions", body, Idempotency_Key=name)
    again = platform.rest("POST", "/v1/sessions", body, Idempotency_Key=name)
    assert first["id"] == again["id"]
    platform.wait(name)


def test_pages_hold_every_session_once(platform: Platform) -> None:
    made = {platform.ask_for("true")["id"] for _ in range(7)}
    for identity in made:
        platform.wait(identity)
    seen: list[str] = []
    cursor = ""
    while True:
        page = platform.rest("GET", f"/v1/sessions?all=true&limit=3{cursor}")
        assert len(page["items"]) <= 3
        seen += [session["id"] for session in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


def test_events_tell_the_life_of_a_session(platform: Platform, name: str) -> None:
    platform.run("true", "--name", name)
    identity = platform.session(name)["id"]
    events = [json.loads(line) for line in platform.bai("events", "--json").text.splitlines()]
    assert len([event for event in events if identity in json.dumps(event)]) >= 3
