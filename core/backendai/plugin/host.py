"""The host: the one object that knows every plugin in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, cast

import msgspec
import pluggy

from backendai.plugin.call import Choir, Driver, OnFault, bind
from backendai.plugin.discovery import Candidate, find
from backendai.plugin.errors import Incompatible, Missing
from backendai.spec import Skip, Spec, is_async

log = logging.getLogger(__name__)
C = TypeVar("C")
LIFECYCLE_DEADLINE_S = 30.0


class State(StrEnum):
    """A plugin's fate."""

    UP = "up"
    OFF = "off"  # switched off; never imported
    SKIP = "skip"  # not usable here
    BROKEN = "broken"


@dataclass(slots=True)
class Row:
    """One line of ``bai plugin ls``."""

    id: str
    dist: str
    version: str
    state: State
    why: str = ""
    plugin: Any = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``[plugins]`` table of a role's configuration. disabled, required, order: plugin ids; options: by plugin id."""

    disabled: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    order: Sequence[str] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class PluginHost:
    """Find, check, configure, start, call and stop the plugins of some specs.

    on_fault is told of every failure of a plugin, after it was logged.
    """

    def __init__(self, specs: Iterable[Spec[Any]], settings: Settings | None = None, on_fault: OnFault | None = None) -> None:
        self._specs = tuple(specs)
        self._settings = settings or Settings()
        self._on_fault = on_fault
        self._drivers: dict[str, dict[str, Any]] = {spec.id: {} for spec in self._specs}
        self._choirs: dict[str, Any] = {}
        self._found: dict[str, Candidate] = {}  # those that are up
        self._variants: dict[tuple[str, bytes], tuple[Any, Any]] = {}  # plugin and driver, by id and options
        self.rows: list[Row] = []

    async def start(self) -> None:
        """Bring every plugin up; raise ``Missing`` when a required one is not. Whatever it raises, nothing is left up."""
        try:
            for spec in self._specs:
                for found in sorted(find(spec, self._settings.disabled), key=self._rank):
                    self.rows.append(await self._bring_up(found))
                self._choirs[spec.id] = Choir(spec, list(self._drivers[spec.id].values()))
            self._check_settings()
        except BaseException:
            await self.stop()
            raise

    def _check_settings(self) -> None:
        """Raise ``Missing`` when a required plugin is not up, and warn of settings for a plugin that nobody has installed."""
        rows, settings = {row.id: row for row in self.rows}, self._settings
        named = {*settings.disabled, *settings.order, *settings.options}
        ours = tuple(f"{spec.id}." for spec in self._specs)
        for id in sorted(id for id in named if id.startswith(ours) and id not in rows):
            log.warning("the configuration names the plugin %s, which is not installed", id)
        lacking = sorted(id for id in settings.required if id not in rows or rows[id].state is not State.UP)
        if lacking:
            why = {id: f"{rows[id].state}: {rows[id].why}" if id in rows else "not installed" for id in lacking}
            raise Missing("; ".join(f"{id} is required and is {why[id]}" for id in lacking))

    async def stop(self) -> None:
        """Stop in reverse; one plugin's failure never keeps another up."""
        while self._variants:
            (id, _), (plugin, _) = self._variants.popitem()
            await _stop(id, plugin)
        for row in reversed(self.rows):
            if row.state is State.UP:
                await self._take_down(row, State.OFF, "stopped")

    async def give_up(self, spec: Spec[Any], name: str, why: str) -> None:
        """Take down a plugin that turned out to be of no use; raise ``Missing`` when it is required."""
        row = next(row for row in self.rows if row.id == f"{spec.id}.{name}")
        log.warning("plugin %s from %s %s is broken: %s", row.id, row.dist, row.version, why)
        del self._drivers[spec.id][name]
        self._choirs[spec.id] = Choir(spec, list(self._drivers[spec.id].values()))
        await self._take_down(row, State.BROKEN, why)
        if row.id in self._settings.required:
            raise Missing(f"{row.id} is required and is {row.state}: {why}")

    async def _take_down(self, row: Row, state: State, why: str) -> None:
        row.state, row.why = state, why
        await _stop(row.id, row.plugin)

    def one(self, spec: Spec[C], name: str) -> C:
        """Return the driver *name*, typed as its contract; raise ``Missing`` with the reason when it is not up.

        An optional hook that the plugin leaves out is an absent attribute.
        """
        try:
            return cast(C, self._drivers[spec.id][name])
        except KeyError:
            why = next((f"{row.state}: {row.why}" for row in self.rows if row.id == f"{spec.id}.{name}"), "not installed")
            raise Missing(f"{spec.id}.{name} is {why}") from None

    def check(self, spec: Spec[Any], name: str, options: Mapping[str, Any]) -> None:
        """Raise ``Missing`` when the driver *name* is not up, ``Incompatible`` when it would not take *options*."""
        self.one(spec, name)
        configure(self._found[f"{spec.id}.{name}"], options)

    async def variant(self, spec: Spec[C], name: str, options: Mapping[str, Any]) -> C:
        """Return the driver *name* with *options* in place of the configured ones; it is made once, and stopped with the host.

        Raise as ``check`` does, and whatever its ``setup`` raises.
        """
        id, driver = f"{spec.id}.{name}", self.one(spec, name)
        if not options:
            return driver
        key = id, msgspec.json.encode(options, order="deterministic")
        if key not in self._variants:
            plugin = configure(self._found[id], options)
            made = connect(self._found[id], plugin, self._on_fault)
            await _lifecycle(plugin, "setup")
            self._variants[key] = plugin, made
        return cast(C, self._variants[key][1])

    def each(self, spec: Spec[C]) -> Mapping[str, C]:
        """Return every plugin of *spec* that is up, by name, in order, each typed as its contract."""
        return cast(Mapping[str, C], self._drivers[spec.id])

    def all(self, spec: Spec[C]) -> C:
        """Return a voice of all plugins of *spec*: a call is heard by each, by the terms of the hook (see ``call.Choir``)."""
        return cast(C, self._choirs[spec.id])

    def _rank(self, found: Candidate) -> tuple[int, str]:
        order = list(self._settings.order)
        return (order.index(found.id) if found.id in order else len(order), found.name)

    async def _bring_up(self, found: Candidate) -> Row:
        row = Row(found.id, found.dist, found.version, State.BROKEN, found.error)
        if found.off:
            row.state, row.why = State.OFF, "disabled by the configuration"
        if found.off or found.error:
            return row
        try:
            row.plugin = configure(found, self._settings.options.get(found.id, {}))
            driver = connect(found, row.plugin, self._on_fault)
            await _lifecycle(row.plugin, "setup")
        except Skip as skip:
            row.state, row.why = State.SKIP, skip.reason
        except Exception as error:
            row.why = f"{type(error).__name__}: {error}"
            log.warning("plugin %s from %s %s is broken: %s", row.id, row.dist, row.version, row.why)
        else:
            row.state = State.UP
            self._found[found.id] = found
            self._drivers[found.spec.id][found.name] = driver
        return row


def configure(found: Candidate, given: Mapping[str, Any]) -> Any:
    """Build the plugin with its options; raise ``Incompatible`` with the option named when one is unknown or ill-typed."""
    shape: Any = getattr(found.factory, "Config", None)
    known = {f.name for f in fields(shape)} if shape else set()
    if unknown := sorted(given.keys() - known):
        raise Incompatible(f"unknown option {', '.join(unknown)}; known are: {', '.join(sorted(known)) or 'none'}")
    if shape is None:
        return found.factory()
    try:
        config = msgspec.convert(dict(given), shape)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        raise Incompatible(f"option {path.rstrip('`')}: {problem}" if path else f"options: {problem}") from error
    return found.factory(config)


def connect(found: Candidate, plugin: Any, on_fault: OnFault | None) -> Driver:
    """Have pluggy check the plugin's hooks and arguments; check completeness and colour; return the callable driver."""
    spec = found.spec
    manager = pluggy.PluginManager("backendai")  # one for each: what a plugin does wrong is nobody else's trouble
    manager.add_hookspecs(spec.contract)
    try:
        manager.register(plugin, name=found.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise Incompatible(str(error).splitlines()[-1].strip().partition(" in plugin <")[0]) from error
    driver = Driver(found.id, f"{found.dist} {found.version}")
    for name, declared in spec.hooks().items():
        terms = spec.terms()[name]
        impl = next(iter(getattr(manager.hook, name).get_hookimpls()), None)
        if impl is None:
            if not terms.optional:
                raise Incompatible(f"{name}() is not implemented")
            continue
        if impl.wrapper or impl.hookwrapper:
            raise Incompatible(f"{name}() is a wrapper; a plugin may not change what others answer")
        if is_async(impl.function) is not is_async(declared):
            raise Incompatible(f"{name}() must {'' if is_async(declared) else 'not '}be async")
        setattr(driver, name, bind(driver, name, declared, impl, terms, on_fault))
    return driver


async def _stop(id: str, plugin: Any) -> None:
    try:
        await _lifecycle(plugin, "teardown")
    except Exception:
        log.exception("%s did not stop cleanly", id)


async def _lifecycle(plugin: Any, verb: str) -> None:
    """Await the plugin's ``setup`` or ``teardown`` if it has one."""
    if (method := getattr(plugin, verb, None)) is None:
        return
    if not is_async(method):
        raise Incompatible(f"{verb}() must be async")
    try:
        async with asyncio.timeout(LIFECYCLE_DEADLINE_S) as limit:
            await method()
    except TimeoutError as error:
        raise TimeoutError(f"{verb}() did not end within {LIFECYCLE_DEADLINE_S:g} s" if limit.expired() else str(error)) from error
