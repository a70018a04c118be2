"""The contracts: one module for each versioned spec, with its data, its hooks' signatures and their docstrings, and nothing else.

Inside a version only additions are made: a hook, an argument with a default, a field with a default. Anything else is a new module
beside the old one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import pluggy

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

hookspec = pluggy.HookspecMarker("backendai")
hookimpl = pluggy.HookimplMarker("backendai")


class Arity(Enum):
    """How many plugins of a spec answer one call."""

    ONE = "one"  # drivers: the caller names one
    MANY = "many"  # everyone is heard, in order


class OnError(Enum):
    """What a plugin's failure means to the caller of a hook."""

    RAISE = "raise"  # the caller gets a ``PluginFault`` that names the plugin
    DENY = "deny"  # as a veto: when in doubt, no
    IGNORE = "ignore"  # logged, counted, forgotten


class Reject(Exception):
    """A plugin's deliberate veto. Any other exception is a fault of the plugin.

    reason: a sentence that the user will read.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason or "A policy of this site refused it and did not say why."


class Skip(Exception):
    """Raise it in ``setup`` when the plugin is not usable here, such as without its hardware. reason: what is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one hook.

    optional: a plugin may leave the hook out. deadline_s: seconds that an awaited call may take, None where the hook waits by
    nature (a stream). on_error: what a failure means. fired: False while no part of the platform calls the hook yet.
    """

    optional: bool = False
    deadline_s: float | None = 30.0
    on_error: OnError = OnError.RAISE
    fired: bool = True


def hook(*, optional: bool = False, deadline_s: float | None = 30.0, on_error: OnError = OnError.RAISE,
         fired: bool = True, first: bool = False) -> Callable[[F], F]:
    """Mark a method of a contract as a hook, with its terms. first: the first answer that is not None ends the call."""
    terms = Terms(optional, deadline_s, on_error, fired)

    def mark(function: F) -> F:
        marked: F = hookspec(firstresult=first)(function)
        marked.__terms__ = terms  # type: ignore[attr-defined]  # a plain attribute, as pluggy itself does
        return marked

    return mark


@dataclass(frozen=True, slots=True)
class Spec(Generic[C]):
    """A versioned contract: ``scheduler`` + ``10`` is ``scheduler_v10``, its entry-point group ``backendai_scheduler_v10``."""

    name: str
    version: int
    contract: type[C]
    arity: Arity

    @property
    def id(self) -> str:
        return f"{self.name}_v{self.version}"

    @property
    def group(self) -> str:
        return f"backendai_{self.id}"

    def hooks(self) -> dict[str, Callable[..., Any]]:
        """Return the contract's hooks by name, in the order in which they are written."""
        return {name: f for name, f in vars(self.contract).items() if hasattr(f, "__terms__")}

    def terms(self) -> Mapping[str, Terms]:
        """Return each hook's terms by name."""
        return {name: f.__terms__ for name, f in self.hooks().items()}  # type: ignore[attr-defined]  # set by ``hook``


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether a hook is awaited; an async generator is called plainly and iterated."""
    return inspect.iscoroutinefunction(function)
