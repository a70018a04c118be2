"""What a law is, and how one is tried on a plugin: the same way under pytest and by ``bai plugin check``.

Subclass the conformance class of a contract, name your plugin, done. A law is a test method whose docstring is the law in one
sentence; each is tried on a plugin of its own, brought up as the platform does it and taken down afterwards.
"""

from __future__ import annotations

import asyncio
import inspect
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, cast

from backendai.model.errors import Failure
from backendai.plugin.discovery import Candidate, find
from backendai.plugin.errors import PluginError, PluginFault
from backendai.plugin.host import LIFECYCLE_DEADLINE_S, configure, connect
from backendai.spec import Skip, Spec, is_async
from backendai.testing.watch import cpu_limit

C = TypeVar("C")
Factory = Callable[..., Any]
Body = Callable[[Any, Any], Awaitable[None]]
Test = Callable[[Any], None]
LAW = "__law__"


class Weight(StrEnum):
    """What it means to break a law."""

    REQUIRED = "required"  # the platform relies on it
    RECOMMENDED = "recommended"  # users or operators will miss it


class Violation(AssertionError):
    """A law is broken. The text says how, in a sentence."""


class Unfit(Violation):
    """The plugin does not even fit its contract, so that no other law can be tried."""


class Unstarted(Violation):
    """The plugin cannot be set up or torn down, so that no other law can be tried."""


class NotHere(unittest.SkipTest):
    """The law cannot be tried on this plugin or on this machine. The text says why; pytest takes it as a skipped test."""


def ensure(condition: object, sentence: str) -> None:
    """Raise ``Violation`` with *sentence* unless *condition* holds."""
    if not condition:
        raise Violation(sentence)


def law(weight: Weight = Weight.REQUIRED) -> Callable[[Body], Test]:
    """Make a test method of a coroutine that takes the plugin and raises ``Violation`` or ``NotHere``."""

    def mark(body: Body) -> Test:
        def test(self: Any) -> None:
            asyncio.run(self.obey(body))

        test.__name__, test.__qualname__ = body.__name__, body.__qualname__
        test.__doc__, test.__module__ = body.__doc__, body.__module__
        setattr(test, LAW, (weight, body))
        return test

    return mark


class Conformance(Generic[C]):
    """The laws that hold for the plugins of every contract.

    plugin: the id of an installed one, such as ``scheduler_v10.newest``, or its class, or a function that makes one. options: as an
    operator would configure them. patience_s: seconds that anything may take which the contract gives no deadline.
    """

    spec: ClassVar[Spec[Any]]
    plugin: ClassVar[str | Factory] = ""
    options: Mapping[str, Any] = {}
    patience_s: float = 30.0

    @law()
    async def test_it_fits_its_contract(self, plugin: C) -> None:
        """It has every hook that the contract requires, with the contract's arguments, and takes its options."""
        self.load()

    @law()
    async def test_it_starts_and_stops(self, plugin: C) -> None:
        """It can be set up and torn down, and then another one in its place."""
        for _ in range(2):
            made, _driver = self.load()
            await _live(made, "setup")
            await _live(made, "teardown")

    async def obey(self, body: Body) -> None:
        """Try one law; return where it holds."""
        with cpu_limit(self.patience_s, lambda: Violation(f"it did not come to an end within {self.patience_s:g} s of computing")):
            try:
                async with self.started() as plugin, self.lent(plugin) as given:
                    await body(self, given)
            except (Unfit, Unstarted) as worse:
                if body.__name__ == _TOLD[type(worse)]:
                    raise
                raise NotHere(f"{_TOLD[type(worse)]} is broken: {worse}") from worse
            except Failure as failure:
                if failure.code == "unsupported":
                    raise NotHere(failure.message) from failure
                raise Violation(f"it says {failure.code}: {failure.message}") from failure
            except PluginFault as fault:
                raise Violation(f"{fault.hook}() failed: {str(fault).partition(': ')[2]}") from fault

    @asynccontextmanager
    async def lent(self, plugin: C) -> AsyncIterator[Any]:
        """Give what a law is handed: the plugin itself, or something around it."""
        yield plugin

    @asynccontextmanager
    async def started(self) -> AsyncIterator[C]:
        """Bring a new one up as the platform would, typed as its contract, and take it down at the end."""
        made, driver = self.load()
        await _live(made, "setup")
        try:
            yield driver
        finally:
            with suppress(Unstarted):  # a law of its own looks at that
                await _live(made, "teardown")

    def load(self) -> tuple[Any, C]:
        """Make one; return it bare, and as the platform calls it."""
        found = self._candidate()
        if found.error:
            raise Unfit(f"it cannot be imported: {found.error}")
        try:
            made = configure(found, self.options)
            return made, cast(C, connect(found, made, None))
        except PluginError as error:
            raise Unfit(str(error)) from error
        except Exception as error:
            raise Unfit(f"it cannot be made: {type(error).__name__}: {error}") from error

    def _candidate(self) -> Candidate:
        wanted = vars(self).get("plugin") or inspect.getattr_static(type(self), "plugin")
        if isinstance(wanted, staticmethod):
            wanted = wanted.__func__
        if callable(wanted):
            return Candidate(self.spec, getattr(wanted, "__name__", "plugin"), "nobody", "0", wanted)
        try:
            found = {one.id: one for one in find(self.spec)}
        except PluginError as error:
            raise Unfit(str(error)) from error
        if wanted not in found:
            raise Unfit(f"{wanted} is not installed; install its package, and name it as `bai plugin ls` does")
        return found[wanted]


async def _live(made: Any, verb: str) -> None:
    """Run ``setup`` or ``teardown`` if there is one."""
    if (method := getattr(made, verb, None)) is None:
        return
    if not is_async(method):
        raise Unstarted(f"{verb}() must be async")
    try:
        async with asyncio.timeout(LIFECYCLE_DEADLINE_S):
            await method()
    except Skip as skip:
        raise NotHere(f"it is not usable here: {skip.reason}") from skip
    except Exception as error:
        raise Unstarted(f"{verb}() failed: {type(error).__name__}: {error}") from error


_TOLD: Mapping[type[Violation], str] = {Unfit: "test_it_fits_its_contract", Unstarted: "test_it_starts_and_stops"}
