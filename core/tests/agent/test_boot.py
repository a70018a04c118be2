"""The bootstrap script: what came of it, as far as its user can be believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from backendai.agent.boot import complaint, make_boot, status_of


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    make_boot(tmp_path, "true", (os.getuid(), os.getgid()))
    return tmp_path / "boot" / "ended"


@pytest.mark.parametrize(("text", "status"), [
    ("0\n", 0), ("3\n", 3), ("137\n", 137), ("", None), ("0", None), ("-1\n", None), ("1e9\n", None), ("9999\n", None), ("0\n0\n", None)])
def test_a_status_is_one_whole_line(ended: Path, text: str, status: int | None) -> None:
    ended.write_text(text)
    assert status_of(ended.parents[1]) == status


def test_nothing_else_that_a_user_puts_there_is_opened(ended: Path, tmp_path: Path) -> None:
    assert status_of(tmp_path) is None
    (tmp_path / "elsewhere").write_text("0\n")
    ended.symlink_to(tmp_path / "elsewhere")
    assert status_of(tmp_path) is None
    ended.unlink()
    os.mkfifo(ended)
    assert status_of(tmp_path) is None, "and it does not wait for a writer"
    ended.unlink()
    ended.mkdir()
    assert status_of(tmp_path) is None


def test_a_script_may_be_made_again(ended: Path, tmp_path: Path) -> None:
    make_boot(tmp_path, "#!/bin/sh\nexit 1\n", (os.getuid(), os.getgid()))
    script = tmp_path / "boot" / "script"
    assert script.read_text() == "#!/bin/sh\nexit 1\n" and os.access(script, os.X_OK)


@pytest.mark.parametrize(("status", "code", "overdue", "said"), [
    (0, 5, False, ""), (3, 3, False, "failed with status 3"), (None, 143, True, "did not end within 9 s"), (None, 127, False, "no /bin/sh"),
    (None, 137, False, "ended before its bootstrap script")])
def test_why_the_kernel_fails_is_said(status: int | None, code: int, overdue: bool, said: str) -> None:
    found = complaint(status, code, overdue, 9.0)
    assert said in found and bool(said) == bool(found)
