"""``bai plugin new``: the package of every group installs, is found, and passes its own tests as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from backendai.cli.main import main
from backendai.testing.check import KITS
from backendai.testing.scaffold import make_files

GROUPS = {spec.rpartition("_v")[0]: spec for spec in KITS}
pytestmark = pytest.mark.system  # builds, installs and tests nine packages


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Write one package for each group, and install them all into a folder; return the folder and the environment to use it."""
    folder = tmp_path_factory.mktemp("new")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for group in GROUPS:
            assert main(["plugin", "new", group, f"kit-{group.replace('_', '-')}"]) == 0
    finally:
        os.chdir(before)
    packages = sorted(str(path) for path in folder.glob("backendai-kit-*"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    "--disable-pip-version-check", "--target", str(folder / "site"), *packages], check=True, timeout=300)
    return folder, {**os.environ, "PYTHONPATH": str(folder / "site"), "HOME": str(folder)}


def test_each_passes_its_own_tests(made: tuple[Path, dict[str, str]]) -> None:
    folder, env = made
    tests = sorted(folder.glob("backendai-kit-*/tests"))
    pytest_alone = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    done = subprocess.run([*pytest_alone, "--import-mode=importlib", *map(str, tests)], env=env, cwd=folder, capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    grades = {line.split(" ")[0]: line.split("grade ")[1][0] for line in done.stdout.splitlines() if ": grade " in line}
    assert grades == {f"{spec}.kit-{group.replace('_', '-')}": "A" for group, spec in GROUPS.items()}


def test_each_is_up(made: tuple[Path, dict[str, str]]) -> None:
    folder, env = made
    bai = str(Path(sys.executable).with_name("bai"))
    done = subprocess.run([bai, "plugin", "ls", "--json"], env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    states = {row["id"]: row["state"] for row in json.loads(done.stdout) if ".kit-" in row["id"]}
    assert states == {f"{spec}.kit-{group.replace('_', '-')}": "up" for group, spec in GROUPS.items()}


@pytest.mark.parametrize("spec", KITS)
def test_the_tests_are_six_lines(spec: str) -> None:
    assert len(make_files(spec, "my-own")["tests/test_conformance.py"].splitlines()) <= 6


@pytest.mark.parametrize(("argv", "code", "said"), [
    (["planner", "mine"], 2, "There is no group 'planner'; there are: runtime, scheduler"),
    (["scheduler", "My_Policy"], 65, "cannot be a plugin's name"),
    (["scheduler", "../up"], 65, "cannot be a plugin's name"),
    (["scheduler", "a" * 41], 65, "40 letters at most"),
    (["scheduler", "runtime-docker"], 75, "is installed already"),
    (["scheduler", "taken"], 75, "is there already; choose another name"),
])
def test_what_cannot_be_is_refused_and_nothing_is_written(argv: list[str], code: int, said: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backendai-taken").mkdir()
    assert main(["plugin", "new", *argv]) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["backendai-taken"]


def test_a_group_may_be_named_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "backendai_scheduler_v10", "kit-own", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "scheduler_v10.kit-own", "folder": str(tmp_path / "backendai-kit-own")}
