"""Who imports what, beyond the floors that ``lint-imports`` checks: plugins, heavy libraries, clocks in pure code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "backendai"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
FOR_PLUGINS = ("backendai.spec", "backendai.model")
# A heavy or vendor library, and the only files that may import it.
ONE_PLACE: Mapping[str, tuple[str, ...]] = {
    "stevedore": ("core/backendai/plugin/discovery.py",),
    "pluggy": ("core/backendai/plugin", "core/backendai/spec/__init__.py"),
    "sqlalchemy": ("core/backendai/manager",),
    "alembic": ("core/backendai/manager/store",),
    "asyncpg": ("core/backendai/manager/store",),
    "aiosqlite": ("core/backendai/manager/store",),
    "prometheus_client": ("core/backendai/manager",),
    "numpy": ("core/backendai/sokovan", "core/backendai/spec/agentselector_v10.py", "core/backendai/testing/agentselector_v10.py",
              "core/backendai/testing/simulate", "plugins/agentselector"),
    "aiodocker": ("plugins/runtime_docker",),
    "argcomplete": ("core/backendai/cli",),
}
# What a decision may not look at: the same snapshot must give the same plan.
IMPURE = {"asyncio", "time", "datetime", "random", "secrets", "uuid", "os", "pathlib", "socket", "subprocess", "threading"}


def modules_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "tests" not in path.relative_to(folder).parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of each import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            base = node.module or ""
            # `from backendai import spec` imports backendai.spec
            yield from ((node.lineno, f"{base}.{alias.name}" if base == "backendai" else base) for alias in node.names)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_only_the_contracts_and_the_model_of_ours(plugin: Path) -> None:
    others = {f"backendai_{other.name}" for other in PLUGINS if other != plugin}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in modules_of(plugin) for line, name in imported(path)
        if (name.split(".")[0] == "backendai" and not f"{name}.".startswith(tuple(f"{allowed}." for allowed in FOR_PLUGINS)))
        or name.split(".")[0] in others]
    assert wrong == []


@pytest.mark.parametrize("library", ONE_PLACE)
def test_a_heavy_library_is_imported_in_one_place(library: str) -> None:
    allowed = tuple(ROOT / place for place in ONE_PLACE[library])
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in (CORE, *PLUGINS) for path in modules_of(folder) for line, name in imported(path)
        if name.split(".")[0] == library and not any(path.is_relative_to(place) for place in allowed)]
    assert wrong == []


def test_the_brain_has_no_clock_and_no_input_or_output() -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line}: {name}" for path in modules_of(CORE / "sokovan") for line, name in imported(path)
             if name.split(".")[0] in IMPURE]
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after *statement*, beyond those it starts with."""
    code = f"import sys; before = set(sys.modules); {statement}; print('\\n'.join(set(sys.modules) - before))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def not_of_python(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names}


def test_the_contracts_are_light_to_import() -> None:
    assert len(not_of_python(loaded_by("import backendai.spec"))) < 50


def test_the_sdk_is_light_and_has_no_server_in_it() -> None:
    modules = loaded_by("import backendai.client")
    assert len(modules) < 200
    assert not {name for name in modules if name.startswith(("backendai.manager", "backendai.agent", "sqlalchemy"))}


def test_importing_a_package_does_nothing_else() -> None:
    """No thread, no open file, no output: nothing happens at import."""
    names = ", ".join(f"backendai.{path.name}" for path in sorted(CORE.iterdir()) if (path / "__init__.py").exists())
    code = f"import threading, {names}; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
