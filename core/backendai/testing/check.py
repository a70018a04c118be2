"""Trying all laws of a contract on a plugin, and the grade that it earns.

A: every law holds. B: every required law holds, a recommended one does not. C: a required law is broken. A law that cannot be tried
here counts neither way; where nothing but the general laws could be tried there is no grade.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, cast

from backendai.model.errors import Failure
from backendai.spec import Spec
from backendai.testing.laws import LAW, Body, Conformance, NotHere, Violation, Weight

KITS: Mapping[str, str] = {
    "runtime_v10": "RuntimeConformance",
    "scheduler_v10": "SchedulerConformance",
    "agentselector_v10": "AgentSelectorConformance",
    "network_v10": "NetworkConformance",
    "accelerator_v21": "AcceleratorConformance",
    "hook_v20": "HookConformance",
    "webapp_v20": "WebappConformance",
    "monitor_stats_v10": "StatsMonitorConformance",
    "monitor_error_v10": "ErrorMonitorConformance",
    "cli_v10": "CliConformance",
}
_BLAMES = "backendai.plugin.call"  # where the platform logs the faults of plugins


class Outcome(StrEnum):
    """What came of one law."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Grade(StrEnum):
    """What a plugin is worth."""

    A = "A"
    B = "B"
    C = "C"
    NONE = "-"


@dataclass(frozen=True, slots=True)
class Law:
    """One law. name: of its test. sentence: what it says."""

    name: str
    sentence: str
    weight: Weight
    body: Body
    general: bool


@dataclass(frozen=True, slots=True)
class Result:
    """One law tried on one plugin. why: unless it holds."""

    law: Law
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All laws tried on one plugin."""

    plugin: str
    results: tuple[Result, ...]

    @property
    def broken(self) -> list[str]:
        """The names of the laws that do not hold."""
        return [result.law.name for result in self.results if result.outcome is Outcome.FAIL]

    @property
    def good(self) -> bool:
        """Whether every required law that could be tried holds, and some could."""
        return self.grade in (Grade.A, Grade.B)

    @property
    def grade(self) -> Grade:
        failed = {result.law.weight for result in self.results if result.outcome is Outcome.FAIL}
        if Weight.REQUIRED in failed:
            return Grade.C
        if all(result.law.general or result.outcome is Outcome.SKIP for result in self.results):
            return Grade.NONE
        return Grade.B if failed else Grade.A


def kit_of(spec: str) -> type[Conformance[Any]]:
    """Return the conformance class of a contract such as ``scheduler_v10``; raise ``Failure('not-found')`` where there is none."""
    if spec not in KITS:
        raise Failure("not-found", f"There is no contract {spec}; there are: {', '.join(KITS)}.")
    return cast(type[Conformance[Any]], getattr(import_module(f"backendai.testing.{spec}"), KITS[spec]))


def specs() -> list[Spec[Any]]:
    """Return every contract of this core."""
    return [import_module(f"backendai.spec.{name}").SPEC for name in KITS]


def laws(kit: type[Conformance[Any]]) -> list[Law]:
    """Return a kit's laws in the order in which they are written, the general ones first."""
    found = {name: test for one in reversed(kit.__mro__) for name, test in vars(one).items() if hasattr(test, LAW)}
    return [_law(name, test) for name, test in found.items() if getattr(kit, name) is test]


def _law(name: str, test: Any) -> Law:
    weight, body = getattr(test, LAW)
    return Law(name, inspect.getdoc(test) or "", weight, body, name in vars(Conformance))


def check(kit: type[Conformance[Any]], plugin: Any = None, options: Mapping[str, Any] | None = None, **more: Any) -> Report:
    """Try every law of *kit*. plugin, options, more: set on the kit's class, as its subclass would."""
    return Report(str(plugin or kit.plugin), tuple(check_each(kit, plugin, options, **more)))


def check_each(kit: type[Conformance[Any]], plugin: Any = None, options: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Result]:
    """Try one law after the other and yield what came of each."""
    for law in laws(kit):
        tried = kit()
        for name, value in {"plugin": plugin, "options": options, **more}.items():
            if value is not None:
                setattr(tried, name, value)
        with _quiet():
            yield _try(tried, law)


def _try(tried: Conformance[Any], law: Law) -> Result:
    try:
        asyncio.run(tried.obey(law.body))
    except NotHere as reason:
        return Result(law, Outcome.SKIP, str(reason))
    except Violation as violation:
        return Result(law, Outcome.FAIL, str(violation))
    except Exception as error:  # a plugin may raise anything, from within an exception group too
        return Result(law, Outcome.FAIL, f"it raised {type(error).__name__}: {error}")
    return Result(law, Outcome.PASS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the platform from logging the faults that a report tells anyway."""
    log = logging.getLogger(_BLAMES)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
