"""A role's configuration: the file, the command line, and what is wrong with them in words."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backendai.cli import setting, up
from backendai.cli.serve import read_labels
from backendai.manager.config import ManagerConfig
from backendai.model.errors import Failure
from backendai.model.slots import SCALE

if TYPE_CHECKING:
    from conftest import Bai

GOOD = """
[manager]
scheduler = "lifo"
port = 9000
default_slots = { cpu = 2, mem = "1g" }

[agent]
name = "node7"
mount_roots = ["/data"]
allow_caps = ["SYS_NICE"]

[plugins]
disabled = ["agentselector_v10.dispersed"]

[plugins."runtime_v10.docker"]
parallel_starts = 10
"""


def configured(tmp_path: Path, text: str, **options: Any) -> tuple[Any, Any]:
    """Return both roles' configurations as ``bai up`` makes them."""
    (tmp_path / "bai.toml").write_text(text)
    given = {"config": tmp_path / "bai.toml", "listen": None, "runtime": None, **options}
    return up.configure(Namespace(**given), tmp_path / "data")


def test_everything_in_the_file_is_heeded(tmp_path: Path) -> None:
    manager, agent = configured(tmp_path, GOOD)
    assert (manager.scheduler, manager.selector, manager.host, manager.port) == ("lifo", "concentrated", "127.0.0.1", 9000)
    assert manager.default_slots == {"cpu": 2 * SCALE, "mem": 1 << 30}
    assert (agent.name, agent.mount_roots, agent.allow_caps) == ("node7", ("/data",), frozenset({"SYS_NICE"}))
    for role in (manager, agent):
        assert list(role.plugins.disabled) == ["agentselector_v10.dispersed"]
        assert role.plugins.options["runtime_v10.docker"] == {"parallel_starts": 10}
    assert (manager.data, agent.data) == (tmp_path / "data/manager", tmp_path / "data/agent")


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    text = '[manager]\nhost = "::1"\nport = 9000\n[agent]\nruntime = "docker"\n'
    manager, agent = configured(tmp_path, text, listen=":1", runtime="null")
    assert (manager.host, manager.port, agent.runtime) == ("0.0.0.0", 1, "null")
    manager, agent = configured(tmp_path, '[manager]\nhost = "::1"\n[agent]\nruntime = "docker"\n')
    assert (manager.host, manager.port, agent.runtime, agent.name) == ("::1", 8080, "docker", "box")


def test_sessions_see_neither_the_platform_s_files_nor_the_user_s_token(tmp_path: Path) -> None:
    _, agent = configured(tmp_path, '[plugins."runtime_v10.sandbox"]\nhide = ["/secret"]\n')
    hidden = agent.plugins.options["runtime_v10.sandbox"]["hide"]
    assert "/secret" in hidden and str(tmp_path / "data") in hidden and any(path.endswith("/backendai") for path in hidden)


@pytest.mark.parametrize(("text", "said"), [
    ("[manager\n", "cannot be read"),
    ("[maneger]\n", "maneger"),
    ("manager = 3\n", "manager must be a table"),
    ('[manager]\nshceduler = "x"\n', "shceduler"),
    ("[manager]\nscheduler = 3\n", "scheduler"),
    ('[manager]\nport = "x"\n', "port"),
    ("[manager]\ndefault_slots = { cpu = -1 }\n", "default_slots"),
    ('[manager]\ndefault_slots = { mem = "much" }\n', "default_slots"),
    ('[manager]\ndefault_slots = "all"\n', "default_slots"),
    ("[agent]\nmount_roots = 3\n", "mount_roots"),
    ("[plugins]\ndisabled = 3\n", "disabled"),
    ("[plugins]\ndisable = []\n", "disable"),
    ('[plugins."runtime_v10.docker"]\n\n[[agent]]\n', "agent"),
])
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Failure) as refused:
        configured(tmp_path, text)
    assert refused.value.code == "invalid-request"
    assert said in refused.value.message and "bai.toml" in refused.value.message


def test_a_name_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(Failure) as refused:
        configured(tmp_path, "[agent]\nmounts = []\n")
    assert "mount_roots" in refused.value.message and "log_limit" in refused.value.message


@pytest.mark.parametrize("words", [("up",), ("serve", "manager"), ("serve", "agent", "--manager", "http://127.0.0.1:1", "--token", "t")])
def test_a_file_that_is_not_there_is_said_and_nothing_is_begun(bai: Bai, tmp_path: Path, words: tuple[str, ...]) -> None:
    said = bai(*words, "--data", str(tmp_path / "data"), "--config", str(tmp_path / "none.toml"), code=2)
    assert "none.toml" in said.err and not (tmp_path / "data").exists()


def test_without_a_file_everything_has_its_usual_value() -> None:
    config = setting.shape(setting.read_file(None), "manager", ManagerConfig, {"data": Path("/x")})
    assert config == ManagerConfig(Path("/x"))


def test_labels_are_read_and_none_leave_the_file_s_in_force() -> None:
    assert read_labels(["zone=r1", "note=a=b"]) == {"zone": "r1", "note": "a=b"}
    assert read_labels(None) is None
    with pytest.raises(Failure, match=r"--label zone: write NAME=VALUE"):
        read_labels(["zone"])


@pytest.mark.parametrize(("text", "host", "port"), [
    ("127.0.0.1:80", "127.0.0.1", 80), (":9000", "0.0.0.0", 9000), ("host.example", "host.example", 8080), ("localhost:0", "localhost", 0),
    ("[::1]:80", "::1", 80), ("[::]:0", "::", 0), ("[fe80::1]", "fe80::1", 8080), ("0.0.0.0:65535", "0.0.0.0", 65535)])
def test_where_to_listen(text: str, host: str, port: int) -> None:
    assert setting.read_listen(text) == (host, port)


@pytest.mark.parametrize("text", ["", "::1", "::1:80", "host:", "host:x", "host:65536", "host:-1", "http://host:80", "a b:1", "[::1"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(Failure) as refused:
        setting.read_listen(text)
    assert refused.value.code == "invalid-request" and "HOST:PORT" in refused.value.message


def test_where_things_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting.os, "geteuid", lambda: 0)
    assert setting.default_data() == Path("/var/lib/backendai")
    monkeypatch.setattr(setting.os, "geteuid", lambda: 1000)
    assert setting.default_data() == home / ".local/share/backendai"
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "x"))
    assert setting.default_data() == home / "x/backendai"
