"""Calling plugins: one by name, or all of them by the terms of the hook; with a deadline, and with blame."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault
from backendai.spec import OnError, Reject, Spec, Terms, is_async

log = logging.getLogger(__name__)
OnFault = Callable[[PluginFault], None]
_SPOKEN = (Reject, Failure)  # what a plugin says on purpose


class Driver:
    """One plugin; each hook that it implements is an attribute of the contract's name and signature."""

    def __init__(self, id: str, dist: str) -> None:
        self._id = id
        self._dist = dist

    def __repr__(self) -> str:
        return f"<{self._id} from {self._dist}>"


def bind(driver: Driver, name: str, declared: Callable[..., Any], impl: pluggy.HookImpl, terms: Terms,
         on_fault: OnFault | None) -> Callable[..., Any]:
    """Return a function with the contract's signature that calls *impl* within its deadline and names it when it fails."""
    names = tuple(inspect.signature(declared).parameters)[1:]
    wanted, function, deadline_s = impl.argnames, impl.function, terms.deadline_s

    def arguments(given: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        values = dict(zip(names, given, strict=False)) | named
        return [values[w] for w in wanted]

    def blame(error: BaseException, problem: str) -> PluginFault:
        fault = PluginFault(driver._id, driver._dist, name, problem)
        fault.__cause__ = error
        log.warning("%s", fault)
        if on_fault is not None:
            on_fault(fault)
        return fault

    if not is_async(declared):

        def call(*given: Any, **named: Any) -> Any:
            try:
                return function(*arguments(given, named))
            except _SPOKEN:
                raise
            except Exception as error:
                raise blame(error, f"{type(error).__name__}: {error}") from error

        return call

    async def acall(*given: Any, **named: Any) -> Any:
        try:
            async with asyncio.timeout(deadline_s) as limit:
                return await function(*arguments(given, named))
        except _SPOKEN:
            raise
        except TimeoutError as error:
            problem = f"no answer within {deadline_s:g} s" if limit.expired() else f"TimeoutError: {error}"
            raise blame(error, problem) from error
        except Exception as error:
            raise blame(error, f"{type(error).__name__}: {error}") from error

    return acall


class Choir:
    """All plugins of a spec, called at once by each hook's terms.

    An answer hook (``first``) asks in order and returns the first answer that is not None. A notice (``IGNORE``) is told to all
    at once and returns when all have heard it or failed. Any other hook asks in order and returns the list of answers; a ``Reject``
    ends it, and where the terms say ``DENY`` so does a fault.
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


def _choose(voices: Sequence[Callable[..., Any]], terms: Terms, first: bool) -> Callable[..., Any]:
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
