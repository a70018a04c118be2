"""Interactive sessions, files in and out, stopping, cancelling and removing."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.platform import BAI, Platform


@pytest.fixture
def lab(platform: Platform, name: str) -> Iterator[str]:
    """An interactive session that runs."""
    platform.begin("--name", name)
    yield name
    platform.bai("rm", "--force", name)


def test_commands_run_in_it(platform: Platform, lab: str) -> None:
    done = platform.bai("exec", lab, "--", "sh", "-c", "echo out; echo err >&2; exit 9", code=9)
    assert done.out == b"out\n"
    assert b"err\n" in done.err


def test_standard_input_is_passed_through_to_its_end(platform: Platform, lab: str) -> None:
    data = os.urandom(300_000)
    assert platform.bai("exec", "-i", lab, "--", "cat", stdin=data).out == data


def test_output_comes_as_it_is_written(platform: Platform, lab: str) -> None:
    with platform.spawn("exec", lab, "--", "sh", "-c", "echo first; read x; echo second") as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"first\n"
        process.kill()


def test_a_terminal_is_one_and_resizes(platform: Platform, lab: str) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen([BAI, "exec", "-it", lab, "--", "sh"], stdin=slave, stdout=slave, stderr=slave, env=platform.env,
                               start_new_session=True)
    os.close(slave)
    try:
        os.write(master, b"stty size; tty >/dev/null && echo a-$((40+2))-terminal\n")
        assert b"a-42-terminal" in read_until(master, b"a-42-terminal")
        os.write(master, b"exit 5\n")
        assert process.wait(20) == 5
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(fd: int, mark: bytes, within_s: float = 20.0) -> bytes:
    """Read a terminal until *mark* appears."""
    seen, deadline = b"", time.monotonic() + within_s
    while mark not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{mark!r} did not appear in {seen!r}"
        seen += os.read(fd, 65536)
    return seen


def test_files_go_in_and_out(platform: Platform, lab: str, tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "in.bin").write_bytes(data)
    platform.bai("cp", str(tmp_path / "in.bin"), f"{lab}:/home/work/")
    size = platform.bai("exec", lab, "--", "sh", "-c", "wc -c </home/work/in.bin; id -u; stat -c %u /home/work/in.bin").text.split()
    assert size == [str(len(data)), "1000", "1000"]
    platform.bai("cp", f"{lab}:/home/work/in.bin", str(tmp_path / "out.bin"))
    assert (tmp_path / "out.bin").read_bytes() == data


def test_folders_go_in_and_out(platform: Platform, lab: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "ünï.txt").write_text("yes")
    platform.bai("cp", str(tree), f"{lab}:/home/work/")
    platform.bai("cp", f"{lab}:/home/work/tree", str(tmp_path / "back"))
    assert [path.read_text() for path in (tmp_path / "back").rglob("ünï.txt")] == ["yes"]


def test_a_missing_file_is_said(platform: Platform, lab: str, tmp_path: Path) -> None:
    done = platform.bai("cp", f"{lab}:/no/such/file", str(tmp_path / "x"), code=None)
    assert done.code not in (0, 1)
    assert "/no/such/file" in done.said


def test_statistics_are_measured(platform: Platform, lab: str) -> None:
    deadline = time.monotonic() + 30
    while not re.search(r"\d", str(stats := platform.ask("stats", lab))):
        assert time.monotonic() < deadline, stats
        time.sleep(0.5)


def test_stopping_an_interactive_session_is_its_good_end(platform: Platform, name: str) -> None:
    platform.begin("--name", name)
    platform.bai("stop", name)
    session = platform.wait(name)
    assert (session["state"], session["result"]) == ("TERMINATED", "success")
    platform.bai("rm", name)
    assert platform.bai("info", name, code=66).said


def test_stopping_a_batch_session_is_a_failure(platform: Platform, name: str) -> None:
    platform.detach("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done", "--name", name)
    platform.wait(name, "running")
    with platform.spawn("logs", "-f", name) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"up\n"
        platform.bai("stop", name)
        session = platform.wait(name)
        assert follower.stdout.read() == b"bye\n"
    assert (session["state"], session["result"]) == ("TERMINATED", "failure")
    assert "stopped" in session["reason"]


def test_what_ignores_the_signal_is_killed_after_its_grace(platform: Platform, name: str) -> None:
    session = platform.ask_for("trap '' TERM; while :; do sleep 0.1; done", name=name, grace_s=1)
    platform.wait(session["id"], "running")
    platform.bai("stop", name)
    assert platform.wait(name)["state"] == "TERMINATED"


def test_a_waiting_session_is_cancelled_and_says_why_it_waited(platform: Platform, name: str) -> None:
    agent = platform.rest("GET", "/v1/agents")["items"][0]
    everything = {"cpu": 0.1, "mem": int(agent["capacity"]["mem"])}
    blocker = platform.ask_for("sleep 600", slots={"cpu": 0.1, "mem": "64m"})
    platform.wait(blocker["id"], "running")
    platform.ask_for("true", name=name, slots=everything)
    deadline = time.monotonic() + 20
    while not (session := platform.session(name))["hold"]:
        assert time.monotonic() < deadline, session
        time.sleep(0.1)
    assert session["state"] == "PENDING"
    platform.bai("stop", name)
    assert platform.wait(name)["state"] == "CANCELLED"
    platform.bai("rm", "--force", blocker["id"])


def test_removing_needs_an_end_or_force(platform: Platform, name: str) -> None:
    platform.begin("--name", name)
    assert "stop" in platform.bai("rm", name, code=75).said
    platform.bai("rm", "--force", name)
    deadline = time.monotonic() + 30
    while platform.bai("info", name, code=None).code != 66:
        assert time.monotonic() < deadline
        time.sleep(0.2)
