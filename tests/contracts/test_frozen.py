"""The contracts may not drift by accident: the code, ``specs.txt`` and what was committed before say the same, or more."""

from __future__ import annotations

import importlib
import re
import subprocess
from dataclasses import is_dataclass
from typing import Any

import pytest
from backendai.spec import Spec, is_async

from tests.contracts import surface
from tests.contracts.drift import drift
from tests.contracts.freeze import FILE, frozen

OLD = """\
toy_v10 arity one
toy_v10 hook ask(view: View, limit: int = 3) -> Answer [required, deadline_s=1.0, on_error=raise, first]
toy_v10 hook put(id: str, path: str) -> None [required, deadline_s=None, on_error=raise]
toy_v10 hook async tell(news: str) -> None [optional, deadline_s=5.0, on_error=ignore, not-yet-fired]
toy_v10 field View.now: float
toy_v10 field View.names: tuple[str, ...] = ()
toy_v10 member Answer.YES = 'yes'
toy_v10 method Stream.async read() -> bytes [by the plugin]
toy_v10 method Platform.async call(name: str) -> str [by the platform]
toy_v10 element FEATURES 'fast'
toy_v10 alias Amounts = tuple[int, ...]
spec name Reject
model.session field Session.id: str
model.session member State.NEW = 'new'
model.errors code conflict = status 409, exit 75
"""


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == frozen(), "run `python -m tests.contracts.freeze`"


def test_nothing_that_was_committed_has_changed() -> None:
    """Against the last commit, the one before (which this commit may have broken), and the newest release, as far as they are here."""
    bases = ["HEAD", "HEAD^", git("describe", "--tags", "--abbrev=0")]
    assert {base: broken for base in bases if base and (broken := drift(git("show", f"{base}:specs.txt"), frozen()))} == {}


def git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=FILE.parent, check=False, capture_output=True, text=True, timeout=30).stdout.strip("\n")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize(("old", "new", "word"), [
    pytest.param(r"toy_v10 hook ask.*\n", "", "ask is gone", id="a removed hook"),
    pytest.param("view: View,", "view: Sight,", "ask has changed", id="an argument's type"),
    pytest.param("view: View,", "sight: View,", "ask has changed", id="an argument's name"),
    pytest.param("id: str, path: str", "path: str, id: str", "put has changed", id="the order of arguments"),
    pytest.param("view: View, limit: int = 3", "view: View", "ask has changed", id="a removed argument"),
    pytest.param("limit: int = 3", "limit: int = 4", "ask has changed", id="an argument's default"),
    pytest.param("limit: int = 3", "limit: int", "ask has changed", id="an argument loses its default"),
    pytest.param("id: str, path: str", "id: str, path: str, more: int", "put has changed", id="an argument without default"),
    pytest.param("limit: int = 3", "more: int = 1, limit: int = 3", "ask has changed", id="an argument put before another"),
    pytest.param("-> Answer", "-> str", "ask has changed", id="a return type"),
    pytest.param("hook ask", "hook async ask", "ask has changed", id="a hook that is awaited now"),
    pytest.param("deadline_s=1.0", "deadline_ms=1.0", "ask has changed", id="the unit of a deadline"),
    pytest.param("deadline_s=1.0", "deadline_s=0.5", "ask has changed", id="a deadline"),
    pytest.param("on_error=ignore", "on_error=deny", "tell has changed", id="a failure policy"),
    pytest.param(", first", "", "ask has changed", id="who ends a call"),
    pytest.param("optional, deadline_s=5.0", "required, deadline_s=5.0", "tell has changed", id="an optional hook becomes required"),
    pytest.param("$", "toy_v10 hook more() -> None [required, deadline_s=1.0, on_error=raise]\n", "more is new and required",
                 id="a new required hook"),
    pytest.param("$", "toy_v10 field View.later: float\n", "View.later is new and has no default", id="a field without default"),
    pytest.param("$", "model.session field Session.name: str\n", "Session.name is new", id="a field of the model without default"),
    pytest.param("View.now: float", "View.now: int", "View.now has changed", id="a field's type"),
    pytest.param("View.now: float", "View.now_ms: float", "View.now is gone", id="a field's name, and with it its unit"),
    pytest.param(re.escape("...] = ()"), "...] = ('a',)", "View.names has changed", id="a field's default"),
    pytest.param(re.escape("...] = ()"), "...]", "View.names has changed", id="a field loses its default"),
    pytest.param("'yes'", "'y'", "Answer.YES has changed", id="a member's value"),
    pytest.param("toy_v10 member.*\n", "", "Answer.YES is gone", id="a removed member"),
    pytest.param("$", "toy_v10 member Answer.NO = 'no'\n", "Answer.NO is new", id="a member of a closed choice"),
    pytest.param("async read", "read", "Stream.read has changed", id="a method's colour"),
    pytest.param("$", "toy_v10 method Stream.async close() -> None [by the plugin]\n", "Stream.close is new", id="a method to implement"),
    pytest.param("toy_v10 element.*\n", "", "FEATURES 'fast' is gone", id="a removed element"),
    pytest.param(re.escape("tuple[int, ...]"), "list[int]", "Amounts has changed", id="an alias"),
    pytest.param("arity one", "arity many", "arity", id="the arity"),
    pytest.param("spec name Reject\n", "", "Reject is gone", id="a word that plugins import"),
    pytest.param("status 409", "status 422", "conflict has changed", id="an error's status"),
])
def test_what_breaks_plugins_is_caught(old: str, new: str, word: str) -> None:
    changed = re.sub(old + (r"\Z" if old == "$" else ""), lambda _: new, OLD, count=1)
    assert changed != OLD
    assert [complaint for complaint in drift(OLD, changed) if word in complaint] != []


@pytest.mark.parametrize("more", [
    pytest.param(("limit: int = 3", "limit: int = 3, more: str = ''"), id="an argument with a default"),
    pytest.param((", not-yet-fired", ""), id="a hook that is fired now"),
    pytest.param(("$", "toy_v10 hook async more() -> None [optional, deadline_s=1.0, on_error=raise]\n"), id="an optional hook"),
    pytest.param(("$", "toy_v10 field View.later: float | None = None\n"), id="a field with a default"),
    pytest.param(("$", "toy_v10 field Fresh.first: int\ntoy_v10 member Fruit.APPLE = 'apple'\n"), id="new classes"),
    pytest.param(("$", "toy_v10 method Pipe.read() -> bytes [by the plugin]\n"), id="a new protocol"),
    pytest.param(("$", "toy_v10 method Platform.async more() -> str [by the platform]\n"), id="a method of the platform's"),
    pytest.param(("$", "toy_v10 element FEATURES 'faster'\n"), id="an element"),
    pytest.param(("$", "toy_v11 arity one\n" + OLD.splitlines()[1].replace("v10", "v11") + "\n"), id="a new version"),
    pytest.param(("$", "model.session member State.OLD = 'old'\nmodel.errors code new = status 400, exit 2\n"), id="growth of the model"),
    pytest.param(("toy_v10 arity one\n", "# a remark\n\ntoy_v10 arity one\n"), id="remarks and empty lines"),
])
def test_what_no_plugin_notices_is_free(more: tuple[str, str]) -> None:
    old, new = more
    changed = OLD + new if old == "$" else OLD.replace(old, new)
    assert changed != OLD
    assert drift(OLD, changed) == []


def test_a_module_is_named_after_its_version() -> None:
    assert {module: spec.id for module, spec in surface.SPECS.items()} == {module: module for module in surface.SPECS}


def test_the_surface_shows_everything_that_it_is_to_freeze() -> None:
    """One of each kind of line, looked up by hand in the contracts."""
    lines = set(surface.text().splitlines())
    assert {
        "accelerator_v21 arity many",
        "scheduler_v10 hook attempts(view: QueueView) -> Generator[Attempt | Reserve, Outcome, None] "
        "[required, deadline_s=1.0, on_error=raise, first]",
        "hook_v20 hook async authorize(credentials: Credentials) -> User | None "
        "[optional, deadline_s=10.0, on_error=deny, first, not-yet-fired]",
        "runtime_v10 field ContainerSpec.user: tuple[int, int] = (1000, 1000)",
        "scheduler_v10 member Outcome.BLOCKED = 'blocked'",
        "runtime_v10 method ByteStream.async read(limit: int = 65536) -> bytes [by the plugin]",
        "webapp_v20 method Platform.async call(operation: str, arguments: Mapping[str, Any], token: str) -> Any [by the platform]",
        "runtime_v10 element FEATURES 'read-only-root'",
        "model.session field SessionSpec.grace_s: float = 10.0",
        "model.errors code bad-image = status 422, exit 65",
    } - lines == set()


@pytest.mark.parametrize("spec", surface.SPECS.values(), ids=lambda spec: spec.id)
def test_every_hook_and_every_class_says_what_it_is(spec: Spec[Any]) -> None:
    module = importlib.import_module(spec.contract.__module__)
    silent = [name for name, hook in spec.hooks().items() if not hook.__doc__]
    silent += [thing.__name__ for thing in surface.data(module, spec)
               if is_dataclass(thing) and (thing.__doc__ or "").startswith(f"{thing.__name__}(")]
    assert silent == []


@pytest.mark.parametrize("spec", surface.SPECS.values(), ids=lambda spec: spec.id)
def test_a_hook_whose_failure_has_a_meaning_is_awaited(spec: Spec[Any]) -> None:
    """All plugins of a plain hook are asked one after the other, and the first failure is the caller's."""
    terms = spec.terms()
    assert [name for name, hook in spec.hooks().items() if terms[name].on_error.value != "raise" and not is_async(hook)] == []
