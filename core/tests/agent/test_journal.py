"""The journal: whenever the process dies, the old entry is there or the new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backendai.agent import journal as module
from backendai.agent.journal import Entry, Fact, Journal
from backendai.model.ids import make_id
from backendai.spec.accelerator_v21 import Grant
from backendai.wire.link import KernelOrder, KernelState

CALLS = ("open", "write", "fsync", "close", "replace")


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """The module ``os``, but it dies just before or half-way through the n-th call."""

    def __init__(self, calls: int, torn: bool) -> None:
        self.left = calls
        self.torn = torn

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*arguments: Any) -> Any:
            if self.left == 0:
                if self.torn and name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            self.left -= 1
            return real(*arguments)

        return call


def entry(**more: Any) -> Entry:
    kernel = make_id(1, 1)
    return Entry(KernelOrder(kernel, make_id(1, 2), "s", "o", env={"A": "b"}), **more)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("fsync", [False, True])
def test_a_death_at_any_call_leaves_the_old_entry_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool,
                                                                  torn: bool) -> None:
    old, new = entry(), entry(state=KernelState.RUNNING, container="c", grants=(Grant("cpu", "cpu", 1000),))
    seen = set()
    for calls in range(20):
        journal = Journal(tmp_path, fsync)
        journal.save(old)
        with monkeypatch.context() as patch:
            patch.setattr(module, "os", Mortal(calls, torn))
            try:
                journal.save(new)
            except Killed:
                pass
            else:
                break
        found = Journal(tmp_path).load()[old.order.kernel]
        assert found in (old, new)
        seen.add(found.state)
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]
    else:
        raise AssertionError("it never got through")
    assert Journal(tmp_path).load()[old.order.kernel] == new
    assert calls >= (6 if fsync else 3) and seen >= {KernelState.ACCEPTED}


def test_a_first_entry_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for calls in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(module, "os", Mortal(calls, torn=True))
            with pytest.raises(Killed):
                Journal(tmp_path).save(entry())
        assert Journal(tmp_path).load() == ({entry().order.kernel: entry()} if calls == 2 else {})
        assert not list(tmp_path.glob("*.json")) or calls == 2


@pytest.mark.parametrize("changes", [1, module.MOST - 1, module.MOST, module.MOST + 1, 3 * module.MOST])
def test_the_last_change_counts_and_the_file_stays_small(tmp_path: Path, changes: int) -> None:
    journal = Journal(tmp_path)
    for number in range(changes):
        journal.save(entry(exit_code=number))
        if number % 50 == 20:  # a restart
            journal = Journal(tmp_path)
            journal.load()
    assert Journal(tmp_path).load()[entry().order.kernel].exit_code == changes - 1
    [path] = tmp_path.iterdir()
    assert path.read_bytes().count(b"\n") <= module.MOST


def test_a_torn_line_is_no_line_wherever_it_was_torn(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(entry(exit_code=1))
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + b"\n" + whole[1:length])
        other = Journal(tmp_path)
        assert other.load()[entry().order.kernel].exit_code == 1
        path.write_bytes(whole + b"\n" + whole[1:length])
        Journal(tmp_path).save(entry(exit_code=2))
        assert Journal(tmp_path).load()[entry().order.kernel].exit_code == 2


def test_what_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(entry())
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_bytes(msgspec.json.encode(entry()))
    assert list(journal.load()) == [entry().order.kernel]
    assert sorted(path.name for path in tmp_path.glob("*.broken")) == ["a.broken", "b.broken"]
    journal.forget(entry().order.kernel)
    journal.forget(entry().order.kernel)
    assert journal.load() == {}


def test_everything_is_remembered_and_reported(tmp_path: Path) -> None:
    full = entry(state=KernelState.EXITED, container="c", image="i", exit_code=3, why="stopped", error="e", code="internal",
                 started_at=1.5, ended_at=2.5, stopping=True, dropped=True, purge=True, grants=())
    Journal(tmp_path).save(full)
    assert Journal(tmp_path).load() == {full.order.kernel: full}
    seen = full.observed()
    assert (seen.state, seen.container, seen.image, seen.exit_code, seen.why, seen.error, seen.code, seen.started_at, seen.ended_at) == (
        KernelState.EXITED, "c", "i", 3, "stopped", "e", "internal", 1.5, 2.5)


def test_a_fact_lasts(tmp_path: Path) -> None:
    fact = Fact(tmp_path / "cluster")
    assert fact.read() == ""
    fact.write("one")
    fact.write("two")
    assert Fact(tmp_path / "cluster").read() == "two" and [path.name for path in tmp_path.iterdir()] == ["cluster"]
