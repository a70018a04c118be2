"""The plugins of a run, as they are installed: ``backfill``, ``backfill/fragmentation``, ``fifo:overtake=true/dispersed``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backendai.model.errors import Failure
from backendai.plugin.discovery import find
from backendai.plugin.errors import Missing
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import Spec, agentselector_v10, scheduler_v10
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler

SCHEDULER, SELECTOR = "backfill", "concentrated"


@dataclass(frozen=True, slots=True)
class Policy:
    """A scheduler and a selector by name, each with its options."""

    scheduler: str
    selector: str = SELECTOR
    options: Mapping[str, Any] = field(default_factory=dict)
    selector_options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.scheduler_said}/{self.selector_said}"

    @property
    def scheduler_said(self) -> str:
        """The scheduler with its options, as ``read_policy`` reads it."""
        return _said(self.scheduler, self.options)

    @property
    def selector_said(self) -> str:
        """The selector with its options."""
        return _said(self.selector, self.selector_options)


def read_policy(text: str, selector: str = SELECTOR) -> Policy:
    """Read ``SCHEDULER[:OPTION=VALUE...][/SELECTOR[:OPTION=VALUE...]]``; selector: where the text names none."""
    first, slash, second = text.partition("/")
    scheduler, options = _words(first, text)
    chosen, more = _words(second, text) if slash else _words(selector, text)
    return Policy(scheduler, chosen, options, more)


def with_options(policy: Policy, words: Sequence[str]) -> Policy:
    """Add ``scheduler.NAME=VALUE`` and ``selector.NAME=VALUE``; what the policy itself says comes first."""
    given: dict[str, dict[str, Any]] = {"scheduler": {}, "selector": {}}
    for word in words:
        whose, dot, rest = word.partition(".")
        name, equals, value = rest.partition("=")
        if whose not in given or not dot or not equals or not name:
            raise Failure("invalid-request", f"-o {word}: write scheduler.NAME=VALUE or selector.NAME=VALUE, such as scheduler.depth=4.")
        given[whose][name] = _value(value)
    return Policy(policy.scheduler, policy.selector, {**given["scheduler"], **policy.options},
                  {**given["selector"], **policy.selector_options})


@contextmanager
def plugins_of(policy: Policy) -> Iterator[tuple[Scheduler, AgentSelector]]:
    """Bring the two plugins up, and no other, and take them down again; raise ``Failure`` where one cannot be used.

    What runs between is no task, so that Ctrl-C ends it at once.
    """
    wanted = {"scheduler_v10": (policy.scheduler, policy.options), "agentselector_v10": (policy.selector, policy.selector_options)}
    specs: tuple[Spec[Any], ...] = (scheduler_v10.SPEC, agentselector_v10.SPEC)
    others = frozenset(found for spec in specs for found in _ids(spec) if found != f"{spec.id}.{wanted[spec.id][0]}")
    host = PluginHost(specs, Settings(others, options={f"{spec}.{name}": options for spec, (name, options) in wanted.items()}))
    with asyncio.Runner() as runner:
        runner.run(host.start())
        try:
            yield _one(host, scheduler_v10.SPEC, policy.scheduler), _one(host, agentselector_v10.SPEC, policy.selector)
        finally:
            runner.run(host.stop())


def _ids(spec: Spec[Any]) -> list[str]:
    return [candidate.id for candidate in find(spec)]


def _one(host: PluginHost, spec: Spec[Any], name: str) -> Any:
    try:
        return host.one(spec, name)
    except Missing as error:
        names = ", ".join(id.partition(".")[2] for id in _ids(spec))
        raise Failure("not-found", f"The plugin {error}. Here are: {names or 'none'}.") from None


def _words(text: str, whole: str) -> tuple[str, dict[str, Any]]:
    name, *pairs = text.split(":")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise Failure("invalid-request", f"{whole}: write SCHEDULER[:OPTION=VALUE][/SELECTOR[:OPTION=VALUE]], such as "
                                             "backfill:depth=4/dispersed.")
        options[key] = _value(value)
    if not name:
        raise Failure("invalid-request", f"{whole!r} names no plugin; `bai plugin ls` lists them.")
    return name, options


def _value(text: str) -> Any:
    """Read JSON; what is none is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _said(name: str, options: Mapping[str, Any]) -> str:
    return ":".join([name, *(f"{key}={json.dumps(value)}" for key, value in options.items())])
