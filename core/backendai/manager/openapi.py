"""The OpenAPI 3.1 document, derived from the operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

import backendai
from backendai.manager.operations.registry import Operation, Registry, Stream
from backendai.model.errors import KINDS


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457). code: one of a closed set. detail: what is wrong and what to do. request: to tell your administrator."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request: str


def document(registry: Registry) -> dict[str, Any]:
    """Return the whole description of the API."""
    operations, streams = list(registry), list(registry.streams.values())
    wanted = [o.output for o in operations if o.http.status != 204] + [o.input for o in operations] + [Problem]
    wanted += [t for s in streams for t in (s.query, s.body, s.output) if t is not None]
    schemas, components = msgspec.json.schema_components(wanted, ref_template="#/components/schemas/{name}")
    shapes = {id(kind): schema for kind, schema in zip(wanted, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, shapes, components)
        paths.setdefault(operation.http.path, {})[operation.http.method.lower()] = described
    for stream in streams:
        paths.setdefault(stream.http.path, {})[stream.http.method.lower()] = _stream(stream, shapes, components)
    inputs = {shapes[id(kind)]["$ref"].rpartition("/")[2] for kind in [o.input for o in operations] + [s.query for s in streams]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "backendai", "version": backendai.__version__, "description": _codes()},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {name: schema for name, schema in components.items() if name not in inputs},
                       "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(operation: Operation, shapes: dict[int, Any], components: dict[str, Any]) -> dict[str, Any]:
    shape = components[shapes[id(operation.input)]["$ref"].rpartition("/")[2]]
    properties, required = shape.get("properties", {}), shape.get("required", [])
    here: dict[str, Any] = {
        "operationId": operation.name, "summary": operation.doc.partition("\n")[0], "tags": [operation.name.partition(".")[0]],
        "parameters": _parameters(operation.http.in_path, operation.http.query, properties, required),
        "responses": {str(operation.http.status): _answer(operation, shapes), "default": _problem(shapes)},
    }
    if operation.creates:
        here["parameters"].append({"name": "Idempotency-Key", "in": "header", "required": False,
                                   "schema": {"type": "string", "maxLength": 128}})
    if operation.body and operation.http.method in ("POST", "PUT", "PATCH"):
        mine = {name: properties[name] for name in operation.body}
        needed = [name for name in required if name in mine]
        schema = {"type": "object", "properties": mine, "required": needed, "additionalProperties": False,
                  "description": shape.get("description", "")}
        here["requestBody"] = {"required": bool(needed), "content": {"application/json": {"schema": schema}}}
    return here


def _stream(stream: Stream, shapes: dict[int, Any], components: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    query = components[shapes[id(stream.query)]["$ref"].rpartition("/")[2]]
    good: dict[str, Any] = {"description": stream.doc}
    if stream.http.status == 200:
        good["content"] = {stream.content: {"schema": text if stream.output is None else shapes[id(stream.output)]}}
    here: dict[str, Any] = {
        "operationId": stream.name, "summary": stream.doc, "tags": [stream.name.partition(".")[0]],
        "parameters": _parameters(stream.http.in_path, stream.http.query, query.get("properties", {}), query.get("required", [])),
        "responses": {str(stream.http.status): good, "default": _problem(shapes)},
    }
    if stream.body is not None:
        here["requestBody"] = {"required": True, "content": {"application/json": {"schema": shapes[id(stream.body)]}}}
    elif stream.takes:
        here["requestBody"] = {"required": True, "content": {stream.takes: {"schema": text}}}
    return here


def _parameters(in_path: Iterable[str], query: Iterable[str], properties: dict[str, Any],
                required: Iterable[str]) -> list[dict[str, Any]]:
    text = {"type": "string"}
    places = [(name, "path", True) for name in in_path] + [(name, "query", name in required) for name in query]
    return [{"name": name, "in": place, "required": needed, "schema": properties.get(name, text)} for name, place, needed in places]


def _answer(operation: Operation, shapes: dict[int, Any]) -> dict[str, Any]:
    if operation.http.status == 204:
        return {"description": "Done."}
    content = {"application/json": {"schema": shapes[id(operation.output)]}}
    return {"description": operation.doc.partition("\n")[0], "content": content}


def _problem(shapes: dict[int, Any]) -> dict[str, Any]:
    return {"description": "An error.", "content": {"application/problem+json": {"schema": shapes[id(Problem)]}}}


def _codes() -> str:
    lines = [f"- `{kind.code}` ({kind.status}): {kind.title}." for kind in KINDS.values()]
    return "Errors are problem+json with one of these codes:\n\n" + "\n".join(lines)
