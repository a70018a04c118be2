"""Write what the code knows into ``docs/contracts``: signatures, terms, data and laws. ``python -m tests.contracts.pages``."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backendai.spec import Arity, OnError, Spec, is_async
from backendai.testing.check import kit_of, laws

from tests.contracts.surface import SPECS, signature

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "contracts"
WIDTH = 110
FAILURE = {
    OnError.RAISE: "a failure is the caller's to handle", OnError.DENY: "any failure is a refusal",
    OnError.IGNORE: "a failure is logged and forgotten",
}


def page(spec: Spec[Any]) -> Path:
    """Return where a contract's page is."""
    return FOLDER / f"{spec.id}.md"


def hooks_of(text: str) -> list[str]:
    """Return the names that have a heading of their own."""
    return re.findall(r"^### `?(\w+)`?$", text, re.MULTILINE)


def render(text: str, spec: Spec[Any]) -> str:
    """Return a page's text with everything that is generated brought up to date."""
    for name, declared in spec.hooks().items():
        block = f"### {name}\n\n```python\n{shown(declared)}\n```\n\n*{in_words(spec, name)}*\n"
        text = re.sub(rf"^### {name}\n(?:\n```python\n.*?^```\n(?:\n\*[^\n]*\*\n)?)?", block.replace("\\", r"\\"), text, count=1,
                      flags=re.MULTILINE | re.DOTALL)
    text = _fill(text, "data", "\n\n".join(data(spec)))
    return _fill(text, "laws", "\n".join(f"- {law.sentence} *({law.weight.value})*" for law in laws(kit_of(spec.id))))


def shown(declared: Callable[..., Any]) -> str:
    """Return a hook's signature as Python, on several lines where it is long."""
    words = signature(declared)
    colour = "async " if is_async(declared) else ""
    line = f"{colour}def {words.removeprefix('async ')}".replace("(", "(self, ", 1).replace("(self, )", "(self)") + ": ..."
    if len(line) <= WIDTH:
        return line
    arguments = ", ".join(signature_part(line))
    return line if not arguments else line.replace(arguments, "\n    " + ",\n    ".join(signature_part(line)) + ",\n", 1)


def signature_part(line: str) -> list[str]:
    """Return the arguments of a signature's line, each as it is written."""
    parsed = ast.parse(line).body[0]
    assert isinstance(parsed, ast.FunctionDef | ast.AsyncFunctionDef)
    return [ast.get_source_segment(line, argument) or "" for argument in parsed.args.args]


def in_words(spec: Spec[Any], name: str) -> str:
    """Return a hook's terms for people."""
    terms, declared = spec.terms()[name], spec.hooks()[name]
    within = "no deadline" if terms.deadline_s is None else f"{terms.deadline_s:g} s"
    words = ["Optional" if terms.optional else "Required"]
    if is_async(declared):
        words.append("awaited, no deadline" if terms.deadline_s is None else f"awaited for at most {within}")
    elif "Iterator[" in str(inspect.signature(declared).return_annotation):
        words.append("an asynchronous generator, no deadline")
    else:
        words.append(f"called plainly: it must not wait for anything, and come to an end within {within}")
    words.append(FAILURE[terms.on_error])
    if spec.arity is Arity.MANY and vars(declared)["backendai_spec"]["firstresult"]:
        words.append("the first answer that is not None is taken")
    return " · ".join(words if terms.fired else [*words, "not fired yet"])


def data(spec: Spec[Any]) -> Iterator[str]:
    """Yield each class and constant of a contract's module: what it says of itself, and how it is written."""
    module = importlib.import_module(spec.contract.__module__)
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "SPEC":
            yield "```python\n" + "\n".join(lines[node.lineno - 1:node.end_lineno]) + "\n```"
        elif isinstance(node, ast.ClassDef) and node.name != spec.contract.__name__:
            said = ast.get_docstring(node)
            first = node.body[1] if said else node.body[0]
            body = [line for line in lines[first.lineno - 1:node.end_lineno] if line]
            bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
            block = "\n".join(["```python", f"class {node.name}{bases}:", *body, "```"])
            yield f"**`{node.name}`** " + (said or "").replace("``", "`") + "\n\n" + block


def _fill(text: str, name: str, content: str) -> str:
    """Put *content* between the marks of *name*."""
    return re.sub(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text,
                  flags=re.DOTALL)


def main() -> int:
    for spec in SPECS.values():
        path = page(spec)
        text = path.read_text()
        if lacking := [name for name in spec.hooks() if name not in hooks_of(text)]:
            sys.stderr.write(f"{path.name} has no heading for {', '.join(lacking)}; write `### {lacking[0]}` and what it is for.\n")
            return 1
        path.write_text(render(text, spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
