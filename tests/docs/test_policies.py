"""Every scheduler and selector of ours has a page; it tells all options with their defaults, and its example runs."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "policies"
HEADINGS = ["How it decides", "Options", "When to choose it", "Example"]


def shipped() -> dict[str, Any]:
    """Return the classes of our policies, by name."""
    found = {}
    for member in ("scheduler", "agentselector"):
        groups = tomllib.loads((ROOT / "plugins" / member / "pyproject.toml").read_text())["project"]["entry-points"]
        for name, target in groups[f"backendai_{member}_v10"].items():
            module, _, cls = target.partition(":")
            found[name] = getattr(import_module(module), cls)
    return found


POLICIES = shipped()
named = pytest.mark.parametrize("name", POLICIES)


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


def test_there_is_a_page_for_each_and_the_index_leads_there() -> None:
    assert {file.stem for file in FOLDER.glob("*.md")} - {"README"} == set(POLICIES)
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", page("README"), re.MULTILINE)) == set(POLICIES)


@named
def test_a_page_says_how_and_when(name: str) -> None:
    text = page(name)
    assert text.startswith(f"# {name}\n")
    assert [one for one in re.findall(r"^## (.+)$", text, re.MULTILINE) if one in HEADINGS] == HEADINGS


@named
def test_a_page_tells_every_option_with_its_default(name: str) -> None:
    told = {option: ast.literal_eval(default.capitalize() if default in {"true", "false"} else default)
            for option, default in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page(name), re.MULTILINE)}
    config = getattr(POLICIES[name], "Config", None)
    assert told == ({field.name: field.default for field in fields(config)} if config else {})


@named
def test_the_example_of_a_page_is_so(name: str) -> None:
    block = re.search(r"^```python\n(.*?)^```", page(name).partition("## Example")[2], re.MULTILINE | re.DOTALL)
    assert block is not None
    assert "assert " in block[1]
    exec(compile(block[1], f"{name}.md", "exec"), {})


def test_the_promises_in_the_index_are_those_that_are_given() -> None:
    table = page("README").partition("| promise |")[2].partition("## ")[0]
    rows = dict(re.findall(r"^\| ([a-z ]+) \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE))
    given = {name: {promise.value for promise in made().promises()} if hasattr(made, "promises") else set()
             for name, made in POLICIES.items() if hasattr(made, "attempts")}
    assert rows.keys() == set().union(*given.values())
    for promise, who in rows.items():
        by = {name for name, promises in given.items() if promise in promises}
        named_ones = set(re.findall(r"`(\w+)`", who)) - {"overtake"}
        assert by == (set(given) - named_ones if who.startswith("all but") else named_ones)
