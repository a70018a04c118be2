"""What the documentation says is so: commands exist with their options, code parses, links lead somewhere."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BAI = str(Path(sys.executable).with_name("bai"))
GROUPS = {  # commands with commands of their own
    "agent", "config", "domain", "group", "image", "plugin", "preset", "project", "quota", "reservation", "serve", "token", "user",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. line: of its first line of text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    fence = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
    for page in PAGES:
        text = page.read_text()
        for found in fence.finditer(text):
            yield Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])


BLOCKS = list(blocks())
PARSERS: Mapping[str, Callable[[str], object]] = {"python": ast.parse, "toml": tomllib.loads, "json": json.loads}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in PARSERS], ids=str)
def test_code_parses(block: Block) -> None:
    PARSERS[block.language](block.text)


def test_every_block_names_its_language() -> None:
    """The picture in the README is the one block that is in none."""
    assert [str(block) for block in BLOCKS if not block.language and not set(block.text) & set("│─▼→")] == []


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (where, words after ``bai``) of each command in console blocks and in code spans that begin with ``bai``."""
    for block in BLOCKS:
        if block.language in {"console", "sh", "bash"}:
            for number, line in enumerate(block.text.splitlines(), block.line):
                if block.language != "console" or line.startswith("$ "):
                    yield from bai_words(f"{block.page.relative_to(ROOT)}:{number}", line.removeprefix("$ "))
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for span in re.findall(r"`(bai [^`]+)`", line):
                yield from bai_words(f"{page.relative_to(ROOT)}:{number}", span)


def bai_words(where: str, line: str) -> Iterator[tuple[str, list[str]]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return  # a heredoc or a quote that goes on: no one-line command
    starts = [at for at, word in enumerate(words) if word == "bai" or word.endswith("/bai")]
    for at, end in zip(starts, [*starts, len(words)][1:], strict=True):
        part = words[at + 1:end]
        stop = next((i for i, word in enumerate(part) if word in {"&&", "||", "|", ";", "&", ">"}), len(part))
        if part[:stop]:
            yield where, part[:stop]


@functools.cache
def help_of(*words: str) -> str:
    done = subprocess.run([BAI, *words, "--help"], check=False, capture_output=True, text=True, timeout=30)
    return done.stdout if done.returncode == 0 else ""


@pytest.mark.parametrize(("where", "words"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_commands_exist_with_their_options(where: str, words: list[str]) -> None:
    if words[0].startswith(("-", "…", "[", "<")):
        return
    named = words[:2] if words[0] in GROUPS and len(words) > 1 and words[1].isalpha() else words[:1]
    text = help_of(*named)
    assert text, f"{where}: there is no `bai {' '.join(named)}`"
    own = words[len(named):words.index("--")] if "--" in words else words[len(named):]
    known = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", text + help_of()))
    options = {option.split("=")[0].strip("[],.") for option in own if re.match(r"\[?--?[a-zA-Z]", option)}
    bundled = {option for option in options if re.fullmatch(r"-[a-z]{2,}", option) and {f"-{letter}" for letter in option[1:]} <= known}
    assert options - known - bundled == set(), f"{where}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    local = [target.split("#")[0] for target in targets if "://" not in target and not target.startswith(("#", "mailto:"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """A code span such as `core/backendai/model` or `docs/cli.md` names something in the repository."""
    spans = re.findall(r"`((?:core|plugins|kernels|tests|docs|scripts)/[\w./-]*)`", page.read_text())
    assert [span for span in spans if not (ROOT / span).exists()] == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^|\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert named - targets == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_the_readme_s_plugin_is_one() -> None:
    """The ten lines in the README load, and do what they say."""
    block = next(block for block in BLOCKS if block.page.name == "README.md" and block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    newest = names["Newest"]()
    view = type("View", (), {"waiting": [type("Waiting", (), {"id": name})() for name in "abc"]})()
    assert [attempt.session for attempt in newest.attempts(view)] == ["c", "b", "a"]
