"""Distributions that are really installed, as far as anybody can tell: a folder on the path with metadata and modules."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

NUMBERS = itertools.count(1)  # a module of a new name for each distribution: Python imports a name once


class Shelf:
    """A folder to install into. imported: the modules of ours that Python has imported so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def install(self, group: str, source: str, dist: str = "toys", version: str = "1.0", **names: str) -> str:
        """Install *source* as a module of *dist* that offers *names* (entry point to attribute) in *group*; return the module's name."""
        module = f"shelf_module_{next(NUMBERS)}"
        self.modules.append(module)
        head = ("import asyncio\nfrom dataclasses import dataclass\nfrom backendai.model.errors import Failure\n"
                "from backendai.spec import Reject, Skip, hookimpl\n")
        (self.folder / f"{module}.py").write_text(head + dedent(source))
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        lines = [f"[{group}]", *(f"{name} = {module}:{attribute}" for name, attribute in names.items())]
        with (info / "entry_points.txt").open("a") as file:
            file.write("\n".join(lines) + "\n")
        return module

    @property
    def imported(self) -> list[str]:
        return [module for module in self.modules if module in sys.modules]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(tmp_path))
    shelf = Shelf(tmp_path)
    yield shelf
    for module in shelf.imported:
        del sys.modules[module]
