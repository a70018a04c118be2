"""The rule of versions: inside one, a contract may only grow, and only in ways that no plugin can notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A line of ``specs.txt``.

    where: the contract, or a module of the model. kind: such as ``hook``. name: what it is about. rest: all else.
    """

    where: str
    kind: str
    name: str
    rest: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.where, self.kind, self.name

    def __str__(self) -> str:
        return f"{self.where} {self.kind} {self.name}"


def drift(old: str, new: str) -> list[str]:
    """Return a sentence for each change from *old* to *new* that needs a new version; empty when plugins of *old* go on working."""
    before, after = _lines(old), _lines(new)
    return [*_losses(before, after), *_additions(before, after)]


def _losses(before: Mapping[tuple[str, str, str], Line], after: Mapping[tuple[str, str, str], Line]) -> Iterator[str]:
    for key, line in before.items():
        if (now := after.get(key)) is None:
            yield f"{line} is gone"
        elif now.rest != line.rest and not (line.kind == "hook" and _hook_grows(line.rest, now.rest)):
            yield f"{line} has changed from {line.rest!r} to {now.rest!r}"


def _additions(before: Mapping[tuple[str, str, str], Line], after: Mapping[tuple[str, str, str], Line]) -> Iterator[str]:
    """Yield what may not be added to what *before* has; whatever belongs to a new contract or a new class is free."""
    owners = {(line.where, line.kind, _owner(line.name)) for line in before.values()}
    for key, line in after.items():
        if key in before or (line.where, line.kind, _owner(line.name)) not in owners:
            continue
        if line.kind == "hook" and "required" in _terms(line.rest):
            yield f"{line} is new and required; make it optional"
        if line.kind == "field" and " = " not in line.rest:
            yield f"{line} is new and has no default"
        if line.kind == "member" and not line.where.startswith("model."):
            yield f"{line} is new: a plugin may have counted on knowing them all"
        if line.kind == "method" and line.rest.endswith("[by the plugin]"):
            yield f"{line} is new: plugins do not have it"


def _hook_grows(old: str, new: str) -> bool:
    """Tell whether a hook only gained arguments with defaults at its end, or is fired now and was not."""
    fired_now = [term for term in _terms(old) if term != "not-yet-fired"]
    if _terms(new) not in (_terms(old), fired_now):
        return False
    was, now = _parsed(old), _parsed(new)
    count = len(was.args.args)
    added, defaults = now.args.args[count:], now.args.defaults[len(was.args.defaults):]
    same = type(was) is type(now) and _text(was.returns) == _text(now.returns)
    return (same and [_text(a) for a in was.args.args] == [_text(a) for a in now.args.args[:count]]
            and [_text(d) for d in was.args.defaults] == [_text(d) for d in now.args.defaults[:len(was.args.defaults)]]
            and len(defaults) == len(added))


def _parsed(rest: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Read a hook's signature, which is Python but for ``def`` and a body."""
    text = rest.rpartition(" [")[0]
    words = text.removeprefix("async ")
    parsed = ast.parse(f"{'async ' if words != text else ''}def {words}: ...").body[0]
    assert isinstance(parsed, ast.FunctionDef | ast.AsyncFunctionDef)
    return parsed


def _text(node: ast.AST | None) -> str:
    return "" if node is None else ast.unparse(node)


def _terms(rest: str) -> list[str]:
    return rest.rpartition(" [")[2].removesuffix("]").split(", ")


def _owner(name: str) -> str:
    """Return the class of a field, member or method; a hook, an arity or an alias belongs to the contract itself."""
    return name.rpartition(".")[0]


def _lines(text: str) -> dict[tuple[str, str, str], Line]:
    lines = [_line(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {line.key: line for line in lines}


def _line(text: str) -> Line:
    where, kind, rest = text.split(" ", 2)
    if kind in {"hook", "method"}:
        owner, dot, signature = rest.partition(".") if kind == "method" else ("", "", rest)
        return Line(where, kind, owner + dot + signature.removeprefix("async ").partition("(")[0], signature)
    if kind == "field":
        name, _, type_and_default = rest.partition(": ")
        return Line(where, kind, name, type_and_default)
    if kind == "arity":
        return Line(where, kind, "", rest)
    if kind == "element":
        return Line(where, kind, rest, "")
    name, _, value = rest.partition(" = ")
    return Line(where, kind, name, value)
