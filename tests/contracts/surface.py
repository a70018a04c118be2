"""Read the contracts' surface from the code: hooks with their terms, data with types and defaults, as lines of text."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from types import ModuleType
from typing import Any, Protocol

import backendai.spec
from backendai.model import errors
from backendai.spec import Spec, is_async

SPECS: Mapping[str, Spec[Any]] = {
    found.name: importlib.import_module(f"backendai.spec.{found.name}").SPEC for found in pkgutil.iter_modules(backendai.spec.__path__)
}


def signature(function: Callable[..., Any]) -> str:
    """Return a hook's or a method's signature as it is written, without ``self``: ``async devices() -> Sequence[Device]``."""
    whole = inspect.signature(function)
    arguments = []
    for parameter in list(whole.parameters.values())[1:]:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise TypeError(f"{function.__qualname__}: {parameter} must be an argument that can be given by place and by name")
        default = "" if parameter.default is parameter.empty else f" = {value(parameter.default)}"
        arguments.append(f"{parameter.name}: {parameter.annotation}{default}")
    return f"{'async ' if is_async(function) else ''}{function.__name__}({', '.join(arguments)}) -> {whole.return_annotation}"


def terms(spec: Spec[Any], hook: str) -> str:
    """Return a hook's terms as words, the unit of its deadline included."""
    these = spec.terms()[hook]
    declared: Any = spec.hooks()[hook]
    words = ["optional" if these.optional else "required", f"deadline_s={these.deadline_s}", f"on_error={these.on_error.value}"]
    words += ["first"] if declared.backendai_spec["firstresult"] else []
    return ", ".join(words if these.fired else [*words, "not-yet-fired"])


def value(given: object) -> str:
    """Write a default as a reader would."""
    if isinstance(given, Enum):
        return f"{type(given).__name__}.{given.name}"
    if isinstance(given, frozenset):
        return f"frozenset({sorted(given) or ''})"
    if is_dataclass(given) and not isinstance(given, type) and given == type(given)():
        return f"{type(given).__name__}()"
    return repr(given)


def default(field: Field[Any]) -> str:
    """Return `` = DEFAULT`` of a dataclass field, empty when it has none."""
    if field.default is not MISSING:
        return f" = {value(field.default)}"
    factory: Any = field.default_factory
    return "" if factory is MISSING else f" = {factory.__name__}()"


def of(spec: Spec[Any]) -> Iterator[str]:
    """Yield one line for each thing in a contract."""
    yield f"{spec.id} arity {spec.arity.value}"
    for name, declared in spec.hooks().items():
        yield f"{spec.id} hook {signature(declared)} [{terms(spec, name)}]"
    module = importlib.import_module(spec.contract.__module__)
    for thing in data(module, spec):
        yield from _lines(spec.id, thing, spec)
    yield from _constants(spec.id, module)


def shared() -> Iterator[str]:
    """Yield the lines of what contracts take from ``backendai.model``, and of the words that every plugin uses."""
    for name in ("Reject", "Skip", "hookimpl"):
        assert hasattr(backendai.spec, name)
        yield f"spec name {name}"
    reached = {thing for spec in SPECS.values() for thing in _reached(importlib.import_module(spec.contract.__module__))}
    for thing in sorted(reached, key=lambda thing: (thing.__module__, thing.__name__)):
        yield from _lines(thing.__module__.removeprefix("backendai."), thing, None)
    for kind in errors.KINDS.values():
        yield f"model.errors code {kind.code} = status {kind.status}, exit {kind.exit}"


def data(module: ModuleType, spec: Spec[Any]) -> list[type]:
    """Return the classes of values that a contract's module defines, in the order of writing."""
    return [thing for name, thing in vars(module).items()
            if isinstance(thing, type) and thing.__module__ == module.__name__ and thing is not spec.contract and name[0] != "_"]


def text() -> str:
    """Return the whole surface."""
    parts = ["\n".join(lines) for lines in (*map(of, SPECS.values()), shared())]
    return "\n\n".join(parts) + "\n"


def _lines(where: str, thing: type, spec: Spec[Any] | None) -> Iterator[str]:
    if is_dataclass(thing):
        yield from (f"{where} field {thing.__name__}.{field.name}: {field.type}{default(field)}" for field in fields(thing))
    elif issubclass(thing, Enum):
        yield from (f"{where} member {thing.__name__}.{member.name} = {member.value!r}" for member in thing)
    elif Protocol in thing.__mro__:
        returned = [str(inspect.signature(hook).return_annotation) for hook in spec.hooks().values()] if spec else []
        side = "plugin" if any(re.search(rf"\b{thing.__name__}\b", text) for text in returned) else "platform"
        methods = [method for name, method in vars(thing).items() if inspect.isfunction(method) and name[0] != "_"]
        yield from (f"{where} method {thing.__name__}.{signature(method)} [by the {side}]" for method in methods)
    else:
        raise TypeError(f"{thing.__qualname__} is neither a dataclass nor an enum nor a protocol; a contract has no place for it")


def _constants(where: str, module: ModuleType) -> Iterator[str]:
    """Yield the aliases of a module as they are written, and the elements of its sets."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id != "SPEC":
            name = node.targets[0].id
            known = getattr(module, name)
            if isinstance(known, frozenset):
                yield from (f"{where} element {name} {element!r}" for element in sorted(known))
            else:
                yield f"{where} alias {name} = {ast.unparse(node.value)}"


def _reached(module: ModuleType) -> set[type]:
    """Return the classes of ``backendai.model`` that a contract's module imports, and those that their fields name."""
    found: set[type] = set()
    todo = [module]
    while todo:
        names = vars(todo.pop())
        for thing in list(names.values()):
            ours = isinstance(thing, type) and thing.__module__.startswith("backendai.model.") and not issubclass(thing, Exception)
            if ours and thing not in found:
                found.add(thing)
                todo.append(importlib.import_module(thing.__module__))
    return found
