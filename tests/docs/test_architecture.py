"""The page on the architecture leads through files that are there, in the order of the floors, and misses no part of the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "backendai"
PAGES = [ROOT / "docs" / name for name in ("architecture.md", "sokovan.md")]
PAGE = PAGES[0]
WAY = ("cli", "client", "manager", "sokovan", "wire", "agent")  # the packages that a session passes


def named(page: Path) -> Iterator[str]:
    """Yield each file or folder that a code span of *page* names."""
    for span in re.findall(r"`([\w./-]+)`", page.read_text()):
        if span.endswith((".py", "/")) or (span.count("/") and not span.startswith("/")):
            yield span


def find(span: str) -> Path | None:
    """Return what *span* names: below the packages, from the root, or beside the tests that the page speaks of."""
    places = (CORE / span, ROOT / span, ROOT / "core" / "tests" / "manager" / span)
    return next((place for place in places if place.exists()), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    spans = list(named(page))
    assert len(spans) > 5
    assert [span for span in spans if find(span) is None] == []


def test_names_in_a_file_are_in_it() -> None:
    """Where a page says ``NAME in FILE``, the file has it."""
    found = [(name, file) for page in PAGES for name, file in re.findall(r"`(\w+)` in `([\w./-]+\.py)`", page.read_text())]
    assert found
    wrong = [(name, file) for name, file in found if not re.search(rf"\b{name}\b", (find(file) or PAGE).read_text()) or find(file) is None]
    assert wrong == []


def test_the_way_of_a_session_passes_every_package() -> None:
    passed = {span.split("/")[0] for span in named(PAGE) if span.endswith(".py")}
    assert set(WAY) <= passed


def test_no_part_of_the_brain_is_left_out() -> None:
    """Whoever adds a module to it has to say where it stands on the way."""
    modules = {f"sokovan/{path.name}" for path in (CORE / "sokovan").glob("*.py")} - {"sokovan/__init__.py"}
    assert modules - set(named(PAGE)) == set()


def test_the_floors_on_the_page_are_those_that_are_checked() -> None:
    config = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r'^layers = \[(.*)\]$', config, re.MULTILINE)
    assert layers is not None
    wanted = [name.strip() for layer in re.findall(r'"([^"]+)"', layers[1]) for name in layer.split("|")]
    sentence = re.search(r"Floors, each importing only what stands below: (.*?)\.", PAGE.read_text(), re.DOTALL)
    assert sentence is not None
    assert re.findall(r"`(\w+)`", sentence[1]) == wanted


def test_every_deadline_is_in_the_table() -> None:
    from backendai.model.session import DEADLINES, FINAL, SessionState

    table = dict(re.findall(r"^\| `([A-Z]+)` \| ([^|]+) \|", (ROOT / "docs" / "sokovan.md").read_text(), re.MULTILINE))
    written = {SessionState.SCHEDULED: "60 s", SessionState.PREPARING: "30 min", SessionState.STARTING: "2 min",
               SessionState.TERMINATING: "2 min"}
    seconds = {"60 s": 60.0, "30 min": 1800.0, "2 min": 120.0}
    assert {state: seconds[words] for state, words in written.items()} == DEADLINES, "the page and this test say other numbers"
    for state in SessionState:
        if state not in FINAL:
            assert table[state].startswith(written.get(state, "for ever")), state


def test_every_reason_to_wait_is_on_the_page() -> None:
    """The beginnings of the sentences, as ``holds.py`` makes them."""
    page = (ROOT / "docs" / "sokovan.md").read_text()
    source = (CORE / "sokovan" / "holds.py").read_text()
    fixed = re.findall(r'return "([A-Z][^"{]+)"', source)
    assert len(fixed) >= 3 and [said for said in fixed if said not in page] == []
    begins = re.findall(r'return f"([A-Z][^"{]+)\{', source)
    assert len(begins) >= 3 and [said for said in begins if said.strip() not in page] == []
