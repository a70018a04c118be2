"""The command, run in this process or as one of its own, against a platform inside this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backendai.cli.main import main

if TYPE_CHECKING:
    from tests.parts.inside import Inside

BAI = str(Path(sys.executable).with_name("bai"))


@dataclass(frozen=True, slots=True)
class Said:
    """What became of a command. code: its exit status."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Bai = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with no login, and no variables of the user's."""
    for name in list(os.environ):
        if name.startswith(("BACKENDAI_", "XDG_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def bai(home: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Bai]:
    """Run ``bai`` in this process, with its exit status, 0 unless said otherwise."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*argv: str, code: int | None = 0) -> Said:
        capfd.readouterr()
        try:
            status = main(argv)
        except SystemExit as end:  # --help
            status = int(end.code or 0)
        captured = capfd.readouterr()
        said = Said(status, captured.out, captured.err)
        assert code is None or status == code, said
        assert "Traceback" not in said.err
        return said

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def here(bai: Bai, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Bai:
    """The same, logged in at the platform."""
    monkeypatch.setenv("BACKENDAI_URL", inside.url)
    monkeypatch.setenv("BACKENDAI_TOKEN", inside.token)
    return bai


@pytest.fixture
def start(here: Bai) -> Callable[..., subprocess.Popen[bytes]]:
    """Start ``bai`` as a process of its own, its streams as pipes."""
    def begin(*argv: str, **more: Any) -> subprocess.Popen[bytes]:
        pipes: Mapping[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([BAI, *argv], **{**pipes, **more})

    return begin


@pytest.fixture
def lab(here: Bai, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an interactive session that runs."""
    name = f"lab-{abs(hash(request.node.nodeid)) % 10**9}"
    here("start", "--name", name, "-r", "cpu=0.01,mem=1m", "--grace", "1s")
    yield name
    here("rm", "-f", name, code=None)
