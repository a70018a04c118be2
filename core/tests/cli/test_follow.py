"""Staying with a session over connections that break, and being interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from backendai.cli import follow
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from conftest import Bai
    from tests.parts.inside import Inside

SMALL = ("-r", "cpu=0.01,mem=1m")
COUNT = 60_000
WANT = "".join(f"line {number:07}\n" for number in range(COUNT))
Start = Callable[..., "subprocess.Popen[bytes]"]


class Proxy:
    """Passes bytes on to a platform, and cuts connections off. cuts: after so many bytes each, one connection after the other."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.cuts: list[int] = []
        self.taken = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._socket.accept()
            except OSError:
                return  # the test is over
            outer = socket.create_connection(self._target)
            self._open |= {inner, outer}
            threading.Thread(target=self._pass, args=(inner, outer, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(outer, inner, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        try:
            while data := source.recv(16384):
                if counted and self.cuts and passed + len(data) > self.cuts[0]:
                    target.sendall(data[: self.cuts.pop(0) - passed])
                    self.taken += 1
                    break
                target.sendall(data)
                passed += len(data)
        except OSError:
            pass  # the other side has gone, or was cut off
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # else it listens on as long as a thread waits for somebody
        self._socket.close()
        for end in self._open:
            end.close()


@pytest.fixture
def proxy(here: Bai, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way of every command to the platform."""
    proxy = Proxy(inside.url)
    monkeypatch.setenv("BACKENDAI_URL", proxy.url)
    monkeypatch.setattr(follow, "PAUSE_S", 0.01)
    yield proxy
    proxy.close()


def test_output_is_complete_and_nothing_comes_twice(here: Bai, proxy: Proxy) -> None:
    here("run", *SMALL, "-e", f"COUNT={COUNT}", "-e", "SAY=first\n!err\n", "--name", "cut", "--", "true")
    proxy.cuts = [300_000, 5000, 700_000, 700_000]
    said = here("logs", "-f", "cut")
    assert proxy.taken == 4
    assert said.out == "first\n" + WANT
    assert [line for line in said.err.splitlines() if not line.startswith("bai: ")] == ["!err"]
    assert "trying again" in said.err


def test_run_goes_on_where_it_was_cut_off(here: Bai, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.cuts = [400_000]
    said = here("run", *SMALL, "-e", f"COUNT={COUNT}", "--", "exit", "3", code=3)
    assert (proxy.taken, said.out) == (1, WANT)


def test_following_events_goes_on_where_it_was_cut_off(here: Bai, proxy: Proxy, start: Start) -> None:
    ids = [here("run", *SMALL, "--json", "--", "true").json["id"] for _ in range(3)]
    proxy.cuts = [900, 900, 900]
    seen: list[dict[str, Any]] = []
    with start("events", "-f", "--since", "0", "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(json.loads(line))
            if (seen[-1]["subject"], seen[-1]["type"]) == (ids[-1], "session.terminated"):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert proxy.taken == 3
    assert [event["id"] for event in seen] == list(range(seen[0]["id"], seen[0]["id"] + len(seen)))


def test_a_manager_that_stays_away_is_given_up(here: Bai, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    id = here("start", *SMALL, "--name", "away").out.strip()
    monkeypatch.setattr(follow, "RETRY_S", 0.2)
    monkeypatch.setenv("BACKENDAI_URL", "http://127.0.0.1:1")
    said = here("logs", "-f", id, code=69)
    assert said.err.count("trying again") == 1 and said.out == ""


def test_a_broken_tail_is_said(here: Bai, proxy: Proxy) -> None:
    """Where the last lines begin is not known any more once others came, so it is not tried again."""
    here("run", *SMALL, "-e", f"COUNT={COUNT}", "--name", "tail", "--", "true")
    proxy.cuts = [200_000]
    said = here("logs", "-f", "--tail", "50000", "tail", code=69)
    assert "broke off" in said.err and len(said.out) < 200_000


def test_patience_ends_and_begins_anew_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tries, done = [0.0], [0], [0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(follow.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def fail() -> None:
        tries[0] += 1
        done[0] += tries[0] == 30
        raise Failure("unreachable", "Gone.")

    with pytest.raises(Failure):
        follow.patiently(fail, lambda: done[0])
    assert now[0] == pytest.approx(29 * follow.PAUSE_S + follow.RETRY_S)
    tries[0] = 0

    def refuse() -> None:
        tries[0] += 1
        raise Failure("not-found", "No.")

    with pytest.raises(Failure):
        follow.patiently(refuse)
    assert tries[0] == 1, "only what may pass is waited for"


# --- interruptions ---


def until_running(here: Bai, name: str) -> None:
    end = time.monotonic() + 30
    while True:
        said = here("info", name, "--json", code=None)
        if said.code == 0 and said.json["state"] == "RUNNING":
            return
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_its_session_and_waits_for_its_end(here: Bai, start: Start, number: signal.Signals) -> None:
    name = f"int-{number.name.lower()}"
    with start("run", *SMALL, "--name", name, "-e", "SAY=begun\n", "--", "sleep", "600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"stopping {name}" in err.decode() and "Traceback" not in err.decode()
    assert here("info", name, "--json").json["state"] == "TERMINATED"


def test_an_interrupted_start_stops_what_does_not_run_yet(here: Bai, start: Start) -> None:
    total = here("agents", "box", "--json").json["capacity"]["cpu"]
    here("start", *SMALL, "--name", "blocks")
    with start("start", "-r", f"cpu={total},mem=1m", "--name", "never") as process:
        end = time.monotonic() + 30
        while here("info", "never", code=None).code:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert process.stderr is not None
        assert "never: pending: " in process.stderr.readline().decode(), "it says why it waits"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert here("info", "never", "--json").json["state"] == "CANCELLED"
    here("rm", "-f", "blocks")


def test_a_run_whose_reader_goes_stops_its_session(here: Bai, start: Start) -> None:
    with start("run", *SMALL, "--name", "unread", "-e", "COUNT=200000", "--", "sleep", "600") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
    end = time.monotonic() + 30
    while here("info", "unread", "--json").json["state"] != "TERMINATED":
        assert time.monotonic() < end
        time.sleep(0.05)


# --- exec as a process ---


def test_exec_passes_standard_input_to_its_end(start: Start, lab: str) -> None:
    data = os.urandom(2_000_000)
    with start("exec", "-i", lab, "--", "cat") as process:
        out, err = process.communicate(data, timeout=60)
    assert (out == data, err, process.returncode) == (True, b"", 0)


def test_exec_ends_though_its_input_does_not(start: Start, lab: str) -> None:
    """The input goes on and nobody takes it: nothing is said of that."""
    with start("exec", "-i", lab, "--", "sh", "-c", "head -c 5; exit 4") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        feeder = threading.Thread(target=flood, args=(process.stdin,), daemon=True)
        feeder.start()
        assert process.stdout.read() == b"yyyyy"
        assert (process.wait(30), process.stderr.read()) == (4, b"")
        feeder.join(30)


def flood(stream: Any) -> None:
    try:
        while True:
            stream.write(b"y" * 65536)
            stream.flush()
    except BrokenPipeError:
        return


def test_exec_without_a_standard_input(start: Start, lab: str) -> None:
    for words in (("exec", "-i", lab, "--", "cat"), ("exec", lab, "--", "cat")):
        with start(*words, stdin=subprocess.DEVNULL) as process:
            assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0


def test_ctrl_c_is_the_command_s(start: Start, lab: str) -> None:
    with start("exec", lab, "--", "sh", "-c", "trap 'echo got it; exit 9' INT; echo up; while :; do sleep 0.1; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"got it\n"
        assert process.wait(30) == 9


def test_a_second_ctrl_c_gives_up(start: Start, lab: str) -> None:
    with start("exec", lab, "--", "sh", "-c", "trap 'echo no' INT; echo up; while :; do sleep 0.1; done") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"no\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None and b"Traceback" not in process.stderr.read()


def test_exec_over_a_connection_that_is_cut_says_so(here: Bai, start: Start, lab: str, proxy: Proxy) -> None:
    proxy.cuts = [300_000]
    with start("exec", lab, "--", "sh", "-c", "seq 100000; sleep 600") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 69 and b"broke off" in err and b"Traceback" not in err
    assert out and out.decode() == "".join(f"{n}\n" for n in range(1, 100001))[: len(out)]


def test_the_loop_is_not_left_behind(here: Bai, lab: str) -> None:
    here("exec", lab, "--", "true")
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
