"""Every contract has its page, and the page says what the code says."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from backendai.spec import Spec, is_async

from tests.contracts import pages
from tests.contracts.surface import SPECS

each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.id)


def test_there_is_a_page_for_each_contract_and_the_index_leads_to_it() -> None:
    assert {path.stem for path in pages.FOLDER.glob("*.md")} == {*SPECS, "README"}
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (one by name|all) \|", (pages.FOLDER / "README.md").read_text(), re.MULTILINE)
    assert {name: arity for name, target, arity in rows if name == target} == {
        id: {"one": "one by name", "many": "all"}[spec.arity.value] for id, spec in SPECS.items()}


@each_spec
def test_every_hook_has_a_heading_in_the_order_of_the_contract(spec: Spec[Any]) -> None:
    assert pages.hooks_of(pages.page(spec).read_text()) == list(spec.hooks())


@each_spec
def test_a_page_holds_the_signature_that_the_code_has(spec: Spec[Any]) -> None:
    """Read back by other means than they were written: by executing what the page shows."""
    text = pages.page(spec).read_text()
    for name, declared in spec.hooks().items():
        block = re.search(rf"^### {name}\n\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        assert block is not None, name
        shown: dict[str, Any] = {}
        exec("from __future__ import annotations\n" + block[1], shown)
        assert inspect.signature(shown[name]) == inspect.signature(declared)
        assert is_async(shown[name]) is is_async(declared)


@each_spec
def test_a_page_is_as_it_would_be_written_now(spec: Spec[Any]) -> None:
    text = pages.page(spec).read_text()
    assert text == pages.render(text, spec), "run `python -m tests.contracts.pages`"


@each_spec
def test_a_page_says_something_about_each_hook(spec: Spec[Any]) -> None:
    text = pages.page(spec).read_text()
    parts = re.split(r"^##+ ", text, flags=re.MULTILINE)
    said = {part.partition("\n")[0]: re.sub(r"```.*?```|^\*.*\*$", "", part.partition("\n")[2], flags=re.MULTILINE | re.DOTALL).strip()
            for part in parts}
    assert [name for name in spec.hooks() if len(said[name]) < 20] == []
    assert f"`{spec.group}`" in text
    assert f"$ bai plugin check {spec.id}." in text.partition("## Certify")[2]


def test_what_is_generated_is_put_in_place_and_stays() -> None:
    spec = SPECS["cli_v10"]
    bare = "# T\n\n### commands\n\nMine.\n\n<!-- data -->\n<!-- end of data -->\n\n<!-- laws -->\nold\n<!-- end of laws -->\nEnd.\n"
    once = pages.render(bare, spec)
    assert "def commands(self) -> Sequence[Command]: ..." in once and "class Command:" in once and "old" not in once
    assert once.endswith("<!-- end of laws -->\nEnd.\n") and "\n\nMine.\n" in once
    assert pages.render(once, spec) == once
    wrong = once.replace("Sequence[Command]", "list[Command]").replace("*Required", "*Optional")
    assert wrong != once and pages.render(wrong, spec) == once


def test_a_long_signature_is_shown_on_several_lines() -> None:
    assert pages.shown(SPECS["runtime_v10"].hooks()["exec"]).splitlines()[:3] == ["async def exec(", "    self,", "    id: str,"]
