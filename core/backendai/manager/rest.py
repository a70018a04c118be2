"""REST, derived from the operations: routes, decoding, errors as problem+json."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from backendai.manager import faults
from backendai.manager.access import Caller, Once
from backendai.manager.auth import authenticate
from backendai.manager.context import Context
from backendai.manager.logs import REQUEST_ID
from backendai.manager.operations.registry import Input, Operation, Registry, invalid, invoke
from backendai.model.errors import Failure
from backendai.plugin.errors import PluginFault

log = logging.getLogger(__name__)
CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
REQUEST: web.RequestKey[str] = web.RequestKey("request", str)
MAX_BODY = 1024 * 1024  # bytes of JSON
MAX_KEY = 128  # characters of an idempotency key
_PROBLEM = "application/problem+json"
_OPEN = ("/v1/openapi.json",)  # of /v1, without a token; the link authenticates agents by itself
_BY_STATUS = {400: "invalid-request", 401: "unauthenticated", 403: "forbidden", 404: "not-found", 405: "not-allowed",
              413: "too-large", 429: "too-many"}
_encoder = msgspec.json.Encoder()
T = TypeVar("T", bound=Input)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def caller_of(request: web.Request) -> Caller:
    """Return who sent a request below /v1."""
    return request[CALLER]


def routes(registry: Registry) -> list[web.RouteDef]:
    """Return one route for each operation."""
    return [web.route(o.http.method, o.http.path, answer_to(o)) for o in registry]


def answer_to(operation: Operation) -> Handler:
    """Return what answers *operation*'s requests; everything that can be prepared is prepared here."""
    read = _reader(operation)
    status, secret, creates = operation.http.status, operation.secret, operation.creates

    async def handle(request: web.Request) -> web.Response:
        caller = request[CALLER]
        body = await read_body(request) if request.can_read_body else b""
        if creates and (key := request.headers.get("Idempotency-Key")) is not None:
            caller = replace(caller, once=_once(key, request, body))
        output = await invoke(request.app[CONTEXT], caller, operation, read(request, body))
        if status == 204:
            return web.Response(status=204)
        response = web.Response(status=status, body=_encoder.encode(output), content_type="application/json")
        response.headers["Cache-Control"] = "no-store" if secret else "no-cache"
        return response

    return handle


def _reader(operation: Operation) -> Callable[[web.Request, bytes], Input]:
    """Return a function that turns a request into the operation's input."""
    in_path, in_query, has_body = operation.http.in_path, frozenset(operation.http.query), bool(operation.body)
    kinds = {f.encode_name: f.type for f in msgspec.structs.fields(operation.input) if f.encode_name in in_query}

    def read(request: web.Request, body: bytes) -> Input:
        values = _read_json(body) if has_body else {}
        if misplaced := sorted(values.keys() & {*in_path, *in_query}):
            raise Failure("invalid-request", f"{misplaced[0]}: this belongs into the address, not into the body.")
        values |= _read_query(request, kinds)
        for name in in_path:
            values[name] = request.match_info[name]
        try:
            return msgspec.convert(values, operation.input)
        except msgspec.ValidationError as error:
            raise invalid(error) from error

    return read


def _read_json(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure("invalid-request", f"The body is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise Failure("invalid-request", "The body must be a JSON object.")
    return values


def _read_query(request: web.Request, kinds: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, text in request.query.items():
        if name not in kinds:
            raise Failure("invalid-request", f"{name}: unknown in the query; known are: {', '.join(sorted(kinds)) or 'none'}.")
        if kinds[name] is bool:
            text = {"1": "true", "0": "false", "": "true"}.get(text, text.lower())
        try:
            values[name] = msgspec.convert(text, kinds[name], strict=False)
        except msgspec.ValidationError as error:
            raise Failure("invalid-request", f"{name}: {text!r} is not usable here: {error}.") from error
    return values


def read_query(request: web.Request, kind: type[T]) -> T:
    """Return the address's query as *kind*."""
    values = _read_query(request, {f.encode_name: f.type for f in msgspec.structs.fields(kind)})
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


async def read_json(request: web.Request, kind: type[T]) -> T:
    """Return a JSON request's body as *kind*."""
    try:
        return msgspec.convert(_read_json(await read_body(request)), kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


async def read_body(request: web.Request, most: int = MAX_BODY) -> bytes:
    """Return a JSON request's body; raise ``Failure('too-large')`` when it has more than *most* bytes."""
    too_large = Failure("too-large", f"The body may have at most {most} bytes.")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)


def _once(key: str, request: web.Request, body: bytes) -> Once:
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise Failure("invalid-request", f"Idempotency-Key: must be 1 to {MAX_KEY} printable characters.")
    said = b"\0".join((request.method.encode(), request.rel_url.raw_path.encode(), body))
    return Once(key, hashlib.sha256(said).hexdigest())


@web.middleware
async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, know its sender, and turn every error into problem+json."""
    request_id = request[REQUEST] = f"{random.getrandbits(64):016x}"  # nobody gains by guessing it
    REQUEST_ID.set(request_id)
    try:
        if request.path.startswith("/v1/") and request.path not in _OPEN and not request.path.startswith("/v1/link"):
            request[CALLER] = await authenticate(request.app[CONTEXT], request)
        response = await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = problem(_from_http(request, error), request_id)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Failure as failure:
        if failure.detail:
            log.info("%s: %s", failure.code, failure.detail)
        response = problem(failure, request_id)
    except PluginFault as fault:
        said = f"The plugin {fault.plugin} failed; ask your administrator to look at it."
        response = problem(Failure("plugin-fault", said), request_id)
    except Exception as error:
        faults.unexpected(request.app[CONTEXT], error, {"method": request.method, "path": request.path})
        said = f"Something broke on our side; tell your administrator the request's id {request_id}."
        response = problem(Failure("internal", said), request_id)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
    log.debug("%s %s %d", request.method, request.path, response.status)
    return response


def problem(failure: Failure, request_id: str) -> web.Response:
    """Return *failure* as the client sees it (RFC 9457)."""
    body: Mapping[str, object] = {**failure.problem(), "request": request_id}
    response = web.Response(status=failure.kind.status, body=_encoder.encode(body), content_type=_PROBLEM)
    response.headers["Cache-Control"] = "no-store"
    if failure.kind.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _from_http(request: web.Request, error: web.HTTPException) -> Failure:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Failure("not-allowed", f"{request.path} does not take {request.method}, only {allowed}.")
    if error.status == 404:
        return Failure("not-found", f"There is nothing at {request.path}; see /v1/openapi.json.")
    code = _BY_STATUS.get(error.status, "invalid-request" if error.status < 500 else "internal")
    return Failure(code, f"{error.reason}.")
