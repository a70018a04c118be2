"""The contracts as a whole: light, pure, and complete."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import backendai.model
import backendai.spec
import pytest
from backendai.spec import Arity, OnError, Reject, Skip, Spec, Terms, hook, hook_v20, is_async

FOLDERS = [Path(path) for package in (backendai.spec, backendai.model) for path in package.__path__]
SPECS: list[Spec[Any]] = [importlib.import_module(f"backendai.spec.{m.name}").SPEC for m in pkgutil.iter_modules(backendai.spec.__path__)]
IMPURE = {"asyncio", "logging", "os", "pathlib", "random", "secrets", "socket", "ssl", "subprocess", "threading", "time"}
CALLS = {"open", "print", "input", "exec", "eval"}
CLOCKS = {"now", "utcnow", "today"}  # of datetime, which otherwise only converts


@pytest.mark.parametrize("statement", ["import backendai.spec", *(f"import {spec.contract.__module__}" for spec in SPECS)])
def test_a_contract_is_light_to_import(statement: str) -> None:
    code = f"import sys; before = set(sys.modules); {statement}; print('\\n'.join(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    beyond = {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names}
    assert "backendai.spec" in beyond
    assert len(beyond) < 50


@pytest.mark.parametrize("path", [path for folder in FOLDERS for path in sorted(folder.glob("*.py"))], ids=lambda path: path.name)
def test_contracts_and_values_have_no_clock_no_chance_and_no_input_or_output(path: Path) -> None:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            names.append(node.func.id)
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS and ast.unparse(node.value).endswith(("datetime", "date")):
            names.append(node.attr)
    assert [name for name in names if name.split(".")[0] in IMPURE | CALLS | CLOCKS] == []


def test_there_are_ten_contracts() -> None:
    assert {spec.id: spec.arity for spec in SPECS} == {
        "accelerator_v21": Arity.MANY, "agentselector_v10": Arity.ONE, "cli_v10": Arity.MANY, "hook_v20": Arity.MANY,
        "monitor_error_v10": Arity.MANY, "monitor_stats_v10": Arity.MANY, "network_v10": Arity.ONE, "runtime_v10": Arity.ONE,
        "scheduler_v10": Arity.ONE, "webapp_v20": Arity.MANY,
    }
    assert {spec.group for spec in SPECS} == {f"backendai_{spec.id}" for spec in SPECS}


def test_a_spec_shows_its_hooks_in_order_with_their_terms() -> None:
    class Toy:
        @hook()
        def one(self) -> int:
            """Return one."""
            return 1

        def no_hook(self) -> None: ...

        @hook(optional=True, deadline_s=None, on_error=OnError.DENY, fired=False, first=True)
        async def two(self) -> None: ...

    spec = Spec("toy", 3, Toy, Arity.ONE)
    assert (spec.id, spec.group) == ("toy_v3", "backendai_toy_v3")
    assert list(spec.hooks()) == ["one", "two"]
    assert spec.terms() == {"one": Terms(), "two": Terms(True, None, OnError.DENY, False)}
    assert [is_async(declared) for declared in spec.hooks().values()] == [False, True]


EVENTS = {  # event: (policy, whether an answer ends it)
    "activate_manager": ("deny", False), "pre_auth": ("deny", True), "authorize": ("deny", True), "post_authorize": ("deny", True),
    "pre_signup": ("deny", False), "verify_password_format": ("deny", False), "post_signup": ("ignore", False),
    "pre_enqueue_session": ("deny", False), "post_enqueue_session": ("ignore", False), "post_agent_heartbeat": ("ignore", False),
    "predicate": ("deny", False), "pre_start_session": ("deny", False), "post_start_session": ("ignore", False),
    "pre_destroy_session": ("deny", False), "post_destroy_session": ("ignore", False),
}


def test_none_of_the_fifteen_events_has_vanished() -> None:
    spec = hook_v20.SPEC
    assert len(EVENTS) == 15
    assert {name: (terms.on_error.value, bool(vars(spec.hooks()[name])["backendai_spec"]["firstresult"]))
            for name, terms in spec.terms().items()} == EVENTS
    assert all(terms.optional and terms.deadline_s and is_async(spec.hooks()[name]) for name, terms in spec.terms().items())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_data_is_frozen_and_slotted(spec: Spec[Any]) -> None:
    module = importlib.import_module(spec.contract.__module__)
    values = [thing for thing in vars(module).values() if dataclasses.is_dataclass(thing) and isinstance(thing, type)]
    for thing in values:
        assert thing.__dataclass_params__.frozen, thing  # type: ignore[attr-defined]  # dataclass sets it
        assert "__slots__" in vars(thing), thing


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_every_argument_and_answer_has_a_type(spec: Spec[Any]) -> None:
    untyped = [name for name, declared in spec.hooks().items()
               if inspect.signature(declared).return_annotation is inspect.Signature.empty
               or any(p.annotation is p.empty for p in list(inspect.signature(declared).parameters.values())[1:])]
    assert untyped == []


@pytest.mark.parametrize("word", [Reject, Skip])
def test_a_reason_is_what_people_read(word: type[Reject] | type[Skip]) -> None:
    assert str(word("no such hardware")) == word("no such hardware").reason == "no such hardware"


def test_credentials_keep_their_secrets_out_of_logs() -> None:
    shown = repr(hook_v20.Credentials("ann", "hunter2", {"code": "123456"}))
    assert "ann" in shown and "hunter2" not in shown and "123456" not in shown
