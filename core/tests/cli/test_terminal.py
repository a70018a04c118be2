"""What is different on a terminal: the line that changes, tables that are cut, keys that go to the other side, a question."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backendai.cli import screen

if TYPE_CHECKING:
    from conftest import Bai
    from tests.parts.inside import Inside

BAI = str(Path(sys.executable).with_name("bai"))
SMALL = ("-r", "cpu=0.01,mem=1m")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: Sequence[str], rows: int = 24, columns: int = 80, **options: object) -> None:
        self.master, slave = pty.openpty()
        self.size(rows, columns)
        self.seen = b""
        env = dict(os.environ)  # not the C library's, where readline keeps the size of a terminal
        self.process = subprocess.Popen(argv, env=env, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        start_new_session=True, **{"stdin": slave, "stdout": slave, "stderr": slave, **options})
        os.close(slave)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def until(self, mark: bytes) -> bytes:
        """Read until *mark* appears after what was read before; return everything up to it."""
        end = time.monotonic() + 30
        while mark not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{mark!r} did not appear in {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        before, found, self.seen = self.seen.partition(mark)
        return before + found

    def rest(self) -> bytes:
        """Read to the end; return what was not read before."""
        try:
            while data := os.read(self.master, 65536):
                self.seen += data
        except OSError:
            pass  # so a terminal says that its other side is closed
        self.process.wait(30)
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(here: Bai) -> Iterator[Open]:
    """Open ``bai`` on a terminal."""
    opened: list[Terminal] = []

    def begin(*argv: str, **options: object) -> Terminal:
        opened.append(Terminal([BAI, *argv], **options))  # type: ignore[arg-type]  # they go through
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


def test_a_shell_follows_the_size_of_the_terminal(terminal: Open, lab: str) -> None:
    shell = terminal("exec", "-it", "-e", "PS1=$ ", lab, "--", "sh", rows=33, columns=77)
    shell.type(b"stty size\r")
    shell.until(b"33 77")
    shell.size(44, 99)
    os.killpg(shell.process.pid, 28)  # SIGWINCH, which a terminal sends its group
    time.sleep(0.3)
    shell.type(b"stty size\r")
    shell.until(b"44 99")
    shell.type(b"exit 5\r")
    shell.rest()
    assert shell.process.returncode == 5


def test_keys_go_to_the_other_side_and_the_terminal_is_as_it_was(terminal: Open, lab: str) -> None:
    shell = terminal("exec", "-it", lab, "--", "sh", "-c", "trap 'echo caught' INT; echo up; until read x; do :; done; echo got $x")
    before = termios.tcgetattr(shell.master)
    shell.until(b"up")
    shell.type(b"\x03")
    shell.until(b"caught")
    shell.type(b"word\r")
    shell.until(b"got word")
    shell.rest()
    assert shell.process.returncode == 0
    assert termios.tcgetattr(shell.master) == before


def test_what_is_typed_ahead_is_kept(terminal: Open, lab: str) -> None:
    shell = terminal("exec", "-it", lab, "--", "sh", "-c", "read x; echo got-$x")
    shell.type(b"early\r")
    shell.until(b"got-early")
    shell.rest()


def test_t_alone_takes_the_keys_too(terminal: Open, lab: str) -> None:
    shell = terminal("exec", "-t", lab, "--", "sh", "-c", "read x; echo got-$x")
    shell.type(b"y\r")
    shell.until(b"got-y")
    shell.rest()


def test_a_table_is_cut_at_the_edge_of_a_narrow_terminal(terminal: Open, lab: str) -> None:
    narrow = terminal("ps", columns=40).rest().decode().splitlines()
    assert len(narrow) >= 2 and all(len(line) <= 40 for line in narrow) and all(line.endswith("…") for line in narrow)
    wide = terminal("ps", columns=300).rest().decode()
    assert "…" not in wide and "cpu=0.01,mem=1m" in wide


def test_json_is_for_people_on_a_terminal(terminal: Open, lab: str) -> None:
    shown = terminal("info", "--json", lab).rest().decode().replace("\r", "")
    assert json.loads(shown)["name"] == lab and shown.startswith('{\n  "id"')


def test_a_token_is_asked_for_and_not_shown(terminal: Open, inside: Inside) -> None:
    asked = terminal("login", inside.url)
    asked.until(b"Token: ")
    asked.type(inside.token.encode() + b"\r")
    shown = asked.rest().decode()
    assert "You are admin" in shown and inside.token not in shown


def test_ctrl_c_at_the_question_for_a_token(terminal: Open, inside: Inside) -> None:
    asked = terminal("login", inside.url)
    asked.until(b"Token: ")
    asked.type(b"\x03")
    assert b"Traceback" not in asked.rest()
    assert asked.process.returncode == 130


# --- the line that changes ---


def test_waiting_is_a_line_that_changes_and_goes(here: Bai, terminal: Open) -> None:
    total = here("agents", "box", "--json").json["capacity"]["cpu"]
    here("start", *SMALL, "--name", "holds")
    waits = terminal("run", "-r", f"cpu={total},mem=1m", "--name", "waits-tty", "--", "true", columns=60)
    waits.until(b"\r\x1b[Kwaits-tty: pending: ")
    here("rm", "-f", "holds")
    rest = waits.rest()
    assert waits.process.returncode == 0
    assert rest.endswith(b"\r\x1b[K"), "nothing of it stays"
    assert all(len(line) < 60 for line in re.split(rb"\r\x1b\[K|\r\n", rest))


def spoken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tty: bool, *steps: tuple[float, str]) -> str:
    """Return what a status writes that is told each text after so many seconds."""
    now = [100.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)
    with screen.Status() as status:
        for after_s, text in steps:
            now[0] += after_s
            status.show(text)
    return capsys.readouterr().err


def test_nothing_is_said_of_what_takes_less_than_a_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for tty in (False, True):
        assert spoken(monkeypatch, capsys, tty, (0.5, "a"), (0.4, "b")) == ""


def test_on_a_pipe_each_change_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert spoken(monkeypatch, capsys, False, (1.1, "a"), (1, "a"), (1, ""), (1, "b\x1b[2J\n"), (1, "a")) == "a\nb?[2J \na\n"


def test_on_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    said = spoken(monkeypatch, capsys, True, (1.1, "a"), (1, "a"), (1, "a long text\x07"))
    assert said == "\r\x1b[Ka\r\x1b[Ka long te\r\x1b[K"


def test_a_table_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show_table(("A", "LONG", "C"), [("first", "x", "y" * 300), ("a", "", "")])
    assert capsys.readouterr().out == f"A      LONG  C\nfirst  x     {'y' * 300}\na\n"
    screen.show_table(("A", "B"), [])
    assert capsys.readouterr().out == "A  B\n"


def test_top_is_live_follows_the_size_and_leaves_the_terminal_as_it_was(here: Bai, terminal: Open, lab: str) -> None:
    top = terminal("top", rows=40, columns=120)
    before = termios.tcgetattr(top.master)
    top.until(b"\x1b[?1049h")
    top.until(lab.encode())
    top.until(b"q quits")
    for number in range(9):
        here("start", "-d", "--name", f"newcomer-{number}", "--grace", "0s", *SMALL)
    top.until(b"newcomer-8")
    top.size(16, 60)
    os.killpg(top.process.pid, 28)
    top.until(b" more")
    top.type(b"xq")
    assert top.rest().endswith(b"\x1b[?25h\x1b[?1049l") and top.process.returncode == 0
    assert termios.tcgetattr(top.master) == before
    here("rm", "-f", *(f"newcomer-{number}" for number in range(9)))


def test_top_ends_by_ctrl_c_and_by_a_signal_and_leaves_the_terminal_as_it_was(terminal: Open, lab: str) -> None:
    for end in (lambda top: top.type(b"\x03"), lambda top: top.process.terminate()):
        top = terminal("top")
        before = termios.tcgetattr(top.master)
        top.until(b"q quits")
        end(top)
        assert top.rest().endswith(b"\x1b[?25h\x1b[?1049l") and top.process.returncode == 130
        assert termios.tcgetattr(top.master) == before


def test_top_has_colours_unless_none_are_wanted(terminal: Open, lab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for wanted, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", wanted)
        assert (b"\x1b[1m" in terminal("top", "--once").rest()) is coloured
