"""``bai up`` and ``bai serve`` as processes: what they say, what they keep, and how they end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from backendai.client.settings import load_settings, settings_path

if TYPE_CHECKING:
    from conftest import Bai

BAI = str(Path(sys.executable).with_name("bai"))
pytestmark = pytest.mark.system  # whole platforms, as processes


class Roles:
    """Processes of the platform, which end with the test."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([BAI, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._running.append(process)
        return process

    def up(self, *more: str) -> subprocess.Popen[str]:
        return self.start("up", "--data", str(self.data), "--listen", "127.0.0.1:0", "--runtime", "null", *more)

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def roles(bai: Bai, tmp_path: Path) -> Iterator[Roles]:
    roles = Roles(tmp_path / "data")
    yield roles
    roles.end()


def lines_until(stream: IO[str] | None, mark: str) -> str:
    """Read lines until one has *mark*."""
    assert stream is not None
    seen = ""
    for line in stream:
        seen += line
        if mark in line:
            return seen
    raise AssertionError(f"{mark!r} was not said: {seen}")


def test_it_says_where_it_is_and_what_to_type_and_the_next_command_works(roles: Roles, bai: Bai) -> None:
    process = roles.up()
    said = lines_until(process.stdout, "Ctrl-C")
    url = re.search(r"address +(http://127.0.0.1:\d+)$", said, re.MULTILINE)
    assert url is not None and "run -- echo hello" in said and str(settings_path()) in said
    assert load_settings().current == url[1] and load_settings().logins[url[1]].token in said
    assert settings_path().stat().st_mode & 0o777 == 0o600
    assert bai("run", "--", "true").code == 0
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "") and err == "SIGINT: stopping; once more ends it at once\n"


def test_as_json_it_is_one_object(roles: Roles, bai: Bai) -> None:
    process = roles.up("--json")
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said.keys() == {"url", "token", "data", "runtime", "cluster"} and said["runtime"] == "null"
    assert bai("whoami", "--json").json["cluster"] == said["cluster"]


def test_a_second_one_on_the_same_folder_says_so(roles: Roles) -> None:
    lines_until(roles.up().stdout, "Ctrl-C")
    second = roles.up()
    out, err = second.communicate(timeout=30)
    assert second.returncode == 75 and "Traceback" not in err
    assert "Another manager" in err and "--data" in err and out == "", err


def test_an_address_that_is_taken_is_said(roles: Roles, tmp_path: Path) -> None:
    said = lines_until(roles.up().stdout, "Ctrl-C")
    found = re.search(r"127.0.0.1:\d+", said)
    assert found is not None
    second = roles.start("up", "--data", str(tmp_path / "other"), "--listen", found[0], "--runtime", "null")
    _, err = second.communicate(timeout=30)
    assert second.returncode == 75 and found[0] in err and "--listen" in err and "Traceback" not in err


def test_it_comes_back_with_the_same_token_and_sessions(roles: Roles, bai: Bai) -> None:
    first = roles.up("--json")
    assert first.stdout is not None
    before = json.loads(first.stdout.readline())
    bai("run", "--name", "kept", "--", "exit", "4", code=4)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    second = roles.up("--json")
    assert second.stdout is not None
    after = json.loads(second.stdout.readline())
    assert (after["cluster"], after["token"]) == (before["cluster"], before["token"])
    assert bai("info", "kept", "--json").json["exit_code"] == 4
    assert list(load_settings().logins) == [after["url"]], "the old address is forgotten"


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--runtime", "no-such"), 69, "bai plugin ls"), (("--data", "/proc/no/such"), 2, "--data"), (("--listen", "x:y"), 2, "HOST:PORT"),
    (("--data", "/dev/null/x"), 2, "--data"), (("--log-level", "loud"), 2, "debug")])
def test_what_cannot_be_served_is_said(roles: Roles, words: tuple[str, ...], code: int, said: str) -> None:
    process = roles.up(*words)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, ""), err
    assert said in err and "Traceback" not in err


def test_settings_that_cannot_be_read_are_said_before_anything_is_begun(roles: Roles) -> None:
    settings_path().parent.mkdir(parents=True)
    settings_path().write_text("{")
    process = roles.up()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2 and str(settings_path()) in err and not roles.data.exists()


def test_manager_and_agent_as_processes_of_their_own(roles: Roles, bai: Bai) -> None:
    manager = roles.start("serve", "manager", "--data", str(roles.data / "m"), "--listen", "127.0.0.1:0", "--log-level", "error")
    said = lines_until(manager.stdout, "Add machines")
    url, token = (re.search(pattern, said) for pattern in (r"http://127.0.0.1:\d+", r"bai_\S+"))
    assert url is not None and token is not None and f"bai login {url[0]}" in said
    bai("login", url[0], "--token", token[0])
    secret = bai("token", "create", "--agent", "node7").out.strip()
    agent = roles.start("serve", "agent", "--data", str(roles.data / "a"), "--manager", url[0], "--token", secret, "--name", "node7",
                        "--runtime", "null", "--log-level", "error")
    said = lines_until(agent.stdout, "joined")
    assert "The agent node7 runs containers with null" in said and url[0] in said
    assert bai("agents", "node7", "--json").json["connected"] is True
    assert bai("run", "--", "exit", "3", code=3)
    for process in (agent, manager):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_an_agent_without_a_token_says_where_one_comes_from(bai: Bai, tmp_path: Path) -> None:
    said = bai("serve", "agent", "--manager", "http://127.0.0.1:1", "--data", str(tmp_path / "a"), code=2).err
    assert "bai token create --agent" in said and "BACKENDAI_AGENT_TOKEN" in said


def test_an_agent_with_a_wrong_token_goes_on_trying_and_says_why(roles: Roles, bai: Bai) -> None:
    manager = roles.start("serve", "manager", "--data", str(roles.data / "m"), "--listen", "127.0.0.1:0", "--log-level", "error")
    url = re.search(r"http://127.0.0.1:\d+", lines_until(manager.stdout, "Add machines"))
    assert url is not None
    agent = roles.start("serve", "agent", "--data", str(roles.data / "a"), "--manager", url[0], "--token", "baa_wrong", "--runtime", "null")
    lines_until(agent.stdout, "runs containers")
    assert "bai token create --agent" in lines_until(agent.stderr, "token")
    assert agent.poll() is None
