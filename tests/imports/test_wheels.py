"""Every plugin in plugins/ builds, installs beside the others and is up, and no file outside its folder says its name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = [ROOT / "core", *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
PREFIX = "backendai_"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A wheel of each member."""
    folder = tmp_path_factory.mktemp("wheels")
    for member in MEMBERS:
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=member, check=True,
                       capture_output=True, text=True)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_bai(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bai command of a fresh environment that has the wheels, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "-qq", "--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index",
                    *map(str, wheels)], check=True, timeout=120)
    # Their libraries come from this environment, without its .pth files: the checkout itself must not be importable.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({ours!r})\n")
    return folder / "bin" / "bai"


def test_there_is_a_wheel_for_each_member(wheels: list[Path]) -> None:
    assert len(wheels) == len(MEMBERS)


def test_no_wheel_has_tests_in_it(wheels: list[Path]) -> None:
    inside = [name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()]
    assert [name for name in inside if "/tests/" in name or name.startswith("tests/")] == []


def test_each_plugin_is_found_in_a_clean_environment(clean_bai: Path, tmp_path: Path) -> None:
    listed = subprocess.run([str(clean_bai), "plugin", "ls", "--json"], check=True, capture_output=True, text=True, timeout=60,
                            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}).stdout
    rows = {row["id"]: row for row in json.loads(listed)}
    missing = [identity for member in MEMBERS for identity in registered(member) if identity not in rows]
    assert missing == []
    assert {identity: row["why"] for identity, row in rows.items() if row["state"] == "broken"} == {}


def registered(member: Path) -> list[str]:
    """Return the ids that a member's pyproject registers, such as ``scheduler_v10.fifo``."""
    groups = tomllib.loads((member / "pyproject.toml").read_text())["project"].get("entry-points", {})
    return [f"{group.removeprefix(PREFIX)}.{name}" for group, names in groups.items() if group.startswith(PREFIX) for name in names]


@pytest.mark.parametrize("plugin", [member for member in MEMBERS if member.parent.name == "plugins"], ids=lambda path: path.name)
def test_the_core_does_not_know_a_plugin_by_its_package(plugin: Path) -> None:
    package = re.compile(rf"\b{PREFIX}{plugin.name}(?!_v\d)\b")  # backendai_scheduler, and not the group backendai_scheduler_v10
    assert [str(path) for path in (ROOT / "core" / "backendai").rglob("*.py") if package.search(path.read_text())] == []
