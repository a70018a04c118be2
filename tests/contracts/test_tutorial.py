"""Somebody goes the way of ``docs/write-a-plugin.md``: the package is written, its plugin replaced by the page's, and certified."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from backendai.plugin.host import Settings
from backendai.spec import Skip

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "write-a-plugin.md").read_text()
BAI = str(Path(sys.executable).with_name("bai"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


PLUGIN, TESTS, LIFE = blocks("python")
ENTRY, CONFIGURATION, VERSIONS = blocks("toml")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Write the package, and install it as far as Python can tell: the folder is on the path, with the metadata of a distribution."""
    written = subprocess.run([BAI, "plugin", "new", "scheduler", "newest"], cwd=tmp_path, check=True, capture_output=True, text=True)
    folder = tmp_path / "backendai-newest"
    assert "cd backendai-newest" in written.stdout
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "backendai_newest-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (group, names), = project["entry-points"].items()
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in names.items()))
    return folder


def run(package: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=package, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_as_the_page_says(package: Path) -> None:
    assert tomllib.loads(ENTRY)["project"]["entry-points"].items() <= tomllib.loads(
        (package / "pyproject.toml").read_text())["project"]["entry-points"].items()
    assert (package / "tests" / "test_conformance.py").read_text().strip() == TESTS.strip()


def test_the_page_s_plugin_is_up_certified_and_passes_the_tests_that_were_written_for_it(package: Path) -> None:
    (package / "backendai_newest" / "__init__.py").write_text(PLUGIN)
    assert re.search(r"^scheduler_v10.newest +backendai-newest +0.1.0 +up", run(package, BAI, "plugin", "ls"), re.MULTILINE)
    for options in ([], ["-o", "patient=true"]):
        said = run(package, BAI, "plugin", "check", "scheduler_v10.newest", *options)
        assert "scheduler_v10.newest: grade " in said and "grade C" not in said
    assert "passed" in run(package, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")


def test_the_page_s_configuration_is_one(package: Path) -> None:
    given = tomllib.loads(CONFIGURATION)
    assert given["manager"] == {"scheduler": "newest"}
    lists = {"disabled", "required", "order"}
    assert lists == {field for field in Settings.__dataclass_fields__ if field != "options"}
    assert given["plugins"].keys() - lists == {"scheduler_v10.newest"}
    assert lists == set(re.findall(r"^\| `(\w+)` \| ids ", PAGE, re.MULTILINE))


async def test_the_page_s_life_skips() -> None:
    names: dict[str, type] = {}
    exec(LIFE, names)
    with pytest.raises(Skip, match="no sensor"):
        await names["Sensor"]().setup()
    assert await names["Sensor"]().teardown() is None


def test_two_versions_are_two_groups() -> None:
    assert set(tomllib.loads(VERSIONS)["project"]["entry-points"]) == {"backendai_scheduler_v10", "backendai_scheduler_v11"}
