"""Calling plugins: one by name, or all of them by the terms of the hook; with a deadline, and with blame."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pluggy

from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.spec import OnError, Reject, Spec, Terms, is_async

log = logging.getLogger(__name__)
OnFault = Callable[[PluginFault], None]
_SPOKEN = (Reject, Failure)  # what a plugin says on purpose
_EMPTY = inspect.Parameter.empty


class Driver:
    """One plugin; each hook that it implements is an attribute of the contract's name and signature.

    id: such as ``scheduler_v10.fifo``. dist: who ships it, with its version.
    """

    def __init__(self, id: str, dist: str) -> None:
        self._id = id
        self._dist = dist

    def __repr__(self) -> str:
        return f"<{self._id} from {self._dist}>"


def bind(driver: Driver, name: str, declared: Callable[..., Any], impl: pluggy.HookImpl, terms: Terms,
         on_fault: OnFault | None) -> Callable[..., Any]:
    """Return a function with the contract's signature that calls *impl* within its deadline and names it when it fails."""
    arguments = _arguments(declared, impl)
    function: Callable[..., Any] = impl.function
    deadline_s = terms.deadline_s

    def blame(error: BaseException, problem: str) -> PluginFault:
        fault = PluginFault(driver._id, driver._dist, name, problem)
        fault.__cause__ = error
        log.warning("%s", fault)
        if on_fault is not None:
            on_fault(fault)
        return fault

    def call(*given: Any, **named: Any) -> Any:
        values = arguments(given, named)
        try:
            return function(*values)
        except _SPOKEN:
            raise
        except Exception as error:
            raise blame(error, f"{type(error).__name__}: {error}") from error

    async def acall(*given: Any, **named: Any) -> Any:
        values = arguments(given, named)
        try:
            async with asyncio.timeout(deadline_s) as limit:
                return await function(*values)
        except _SPOKEN:
            raise
        except TimeoutError as error:
            problem = f"no answer within {deadline_s:g} s" if limit.expired() else f"TimeoutError: {error}"
            raise blame(error, problem) from error
        except Exception as error:
            raise blame(error, f"{type(error).__name__}: {error}") from error

    return acall if is_async(declared) else call


def _arguments(declared: Callable[..., Any], impl: pluggy.HookImpl) -> Callable[[tuple[Any, ...], dict[str, Any]], Sequence[Any]]:
    """Return what turns a call by the contract into the arguments that *impl* takes, in its order.

    A plugin takes the arguments that it wants. One that it gives a default itself is passed where the contract has it, so that a plugin
    can be written for a newer contract and run on an older one. Calling against the contract is our own TypeError, never its fault.
    """
    parameters = list(inspect.signature(declared).parameters.values())[1:]
    names = tuple(p.name for p in parameters)
    defaults = {p.name: p.default for p in parameters if p.default is not _EMPTY}
    wanted = (*impl.argnames, *_known(impl.kwargnames, names))
    places = tuple(names.index(name) for name in wanted)
    as_it_is, count = places == tuple(range(len(names))), len(names)

    def arrange(given: tuple[Any, ...], named: dict[str, Any]) -> Sequence[Any]:
        if len(given) != count or named:
            values = defaults | dict(zip(names, given, strict=False)) | named
            if len(given) > count or values.keys() != set(names):
                raise TypeError(f"{declared.__qualname__}() takes {', '.join(names) or 'nothing'}")
            given = tuple(values[name] for name in names)
        return given if as_it_is else [given[place] for place in places]

    return arrange


def _known(optional: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the leading arguments of *optional* that the contract has: a gap cannot be jumped when they are passed by position."""
    known = []
    for name in optional:
        if name not in names:
            break
        known.append(name)
    return known


class Choir:
    """All plugins of a spec, called at once by each hook's terms.

    An answer hook (``first``) asks in order and returns the first answer that is not None. A notice (``IGNORE``) is told to all
    at once and returns when all have heard it or failed. Any other hook asks in order and returns the list of answers; a ``Reject``
    ends it, and where the terms say ``DENY`` any other failure is one.
    """

    def __init__(self, spec: Spec[Any], drivers: Sequence[Driver]) -> None:
        terms = spec.terms()
        for name, declared in spec.hooks().items():
            voices = [getattr(driver, name) for driver in drivers if hasattr(driver, name)]
            first = bool(getattr(declared, "backendai_spec", {}).get("firstresult"))
            if is_async(declared):
                setattr(self, name, _choose(voices, terms[name], first))
            else:
                setattr(self, name, lambda *given, _voices=voices, **named: [voice(*given, **named) for voice in _voices])


def _choose(voices: Sequence[Callable[..., Any]], terms: Terms, first: bool) -> Callable[..., Awaitable[Any]]:
    async def notify(*given: Any, **named: Any) -> None:
        await asyncio.gather(*(_quietly(voice, given, named) for voice in voices))

    async def ask(*given: Any, **named: Any) -> Any:
        answers = []
        for voice in voices:
            try:
                answer = await voice(*given, **named)
            except PluginFault as fault:
                if terms.on_error is OnError.DENY:
                    raise Reject(f"The plugin {fault.plugin} could not decide; ask your administrator to look at it.") from fault
                raise
            except Failure as failure:
                if terms.on_error is OnError.DENY:
                    raise Reject(failure.message) from failure
                raise
            if first and answer is not None:
                return answer
            answers.append(answer)
        return None if first else answers

    return notify if terms.on_error is OnError.IGNORE else ask


async def _quietly(voice: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> None:
    try:
        await voice(*given, **named)
    except PluginFault:
        pass  # logged where it was blamed
    except _SPOKEN as veto:
        log.warning("a veto in a notice changes nothing: %s", veto)
