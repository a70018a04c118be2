"""Somebody goes the way of ``docs/write-a-scheduler.md``: writes it, tests it, tries it on the trace, and switches a group to it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "write-a-scheduler.md").read_text()
BAI = str(Path(sys.executable).with_name("bai"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


PLUGIN, TESTS = blocks("python")
TRACE, = blocks("text")
COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


def bai(beginning: str) -> list[str]:
    """Return the one command of the page that begins so, without ``bai``."""
    found, = (line for line in COMMANDS if line.startswith(beginning))
    return shlex.split(found)[1:]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the package and make it the page's; it is installed as far as Python can tell: on the path, with a distribution's metadata."""
    where = tmp_path_factory.mktemp("author")
    subprocess.run([BAI, *bai("bai plugin new")], cwd=where, check=True, capture_output=True)
    folder = where / "backendai-shortest"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "backendai_shortest-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (group, names), = project["entry-points"].items()
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in names.items()))
    (folder / "backendai_shortest" / "__init__.py").write_text(PLUGIN)
    (folder / "tests" / "test_shortest.py").write_text(TESTS)
    (folder / "day.jsonl").write_text(TRACE)
    return folder


def run(package: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=package, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_twenty_lines() -> None:
    """Twenty that do something: neither empty, nor imports, nor its docstring."""
    lines = [line for line in PLUGIN.splitlines() if line.strip() and not line.startswith("from ") and '"""' not in line]
    assert len(lines) <= 20


def test_it_is_certified_and_its_tests_pass(package: Path) -> None:
    said = run(package, BAI, *bai("bai plugin check"))
    assert "scheduler_v10.shortest: grade A" in said
    assert "passed" in run(package, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")


def test_the_trace_shows_what_the_page_says(package: Path) -> None:
    words = bai("bai simulate --trace day")
    assert "shortest" in run(package, BAI, *words)
    assert "shortest" in (package / words[words.index("--html") + 1]).read_text()
    runs = json.loads(run(package, BAI, *words, "--json"))["runs"]
    hours = {one["scheduler"]: one["classes"]["user"]["lee"]["mean_s"] / 3600 for one in runs}
    assert hours == {"fifo": pytest.approx(3, abs=0.1), "backfill": pytest.approx(3, abs=0.1), "shortest": pytest.approx(1, abs=0.1)}


@pytest.fixture
def platform(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("PYTHONPATH", str(package))
    made = Platform("null")
    made.start()
    yield made
    assert made.remove() == []


def test_a_group_runs_by_it(platform: Platform) -> None:
    assert "scheduler_v10.shortest" in platform.bai(*bai("bai plugin ls --server")).text
    platform.bai(*bai("bai group set default --scheduler shortest"))
    assert "shortest" in platform.bai(*bai("bai group show")).text
    platform.bai(*bai("bai run"))
    platform.bai(*bai("bai group set default --scheduler ''"))
    assert "shortest" not in platform.bai(*bai("bai group show")).text
