"""An operation: one typed async function, which asks ``access.require``, and as data how each surface reaches it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from backendai.manager.access import Caller
from backendai.manager.context import Context
from backendai.model.errors import Failure

audit_log = logging.getLogger("backendai.audit")
T = TypeVar("T")


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every operation's input. A field that is not declared is refused by name."""


class Nothing(Input, frozen=True):
    """The input of an operation that takes none."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list, newest first. next: give it as ``cursor`` to get what follows; null at the end."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Http:
    """Where an operation is found. path: its ``{names}`` are fields of the input, as are those in *query*; the rest is the body."""

    method: str
    path: str
    status: int = 200
    query: tuple[str, ...] = ()

    @property
    def in_path(self) -> tuple[str, ...]:
        """Return the fields that the path holds."""
        return tuple(part.strip("{}") for part in self.path.split("/") if part.startswith("{"))


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked.

    name: ``sessions.create``. run: (context, caller, input) -> output. mutates: it is audited. creates: it honours an
    idempotency key. secret: its answer must not be kept by anything on the way. doc: for people, the function's own.
    """

    name: str
    run: Callable[[Context, Caller, Any], Awaitable[Any]]
    http: Http
    input: type[Input]
    output: Any
    mutates: bool = False
    creates: bool = False
    secret: bool = False

    @property
    def doc(self) -> str:
        """Return what the operation does, in its author's words."""
        return (self.run.__doc__ or "").strip()

    @property
    def body(self) -> tuple[str, ...]:
        """Return the fields that come in the body."""
        elsewhere = {*self.http.in_path, *self.http.query}
        return tuple(f.encode_name for f in msgspec.structs.fields(self.input) if f.encode_name not in elsewhere)


@dataclass(frozen=True, slots=True)
class Stream:
    """A route that speaks in a stream, so its handler is written by hand. content: media type of what it sends.

    query: what the address may hold. takes: media type of what it reads, empty for nothing. body, output: types where they are
    plain JSON. mutates: it is audited.
    """

    name: str
    http: Http
    doc: str
    query: type[Input] = Nothing
    content: str = "application/octet-stream"
    takes: str = ""
    body: Any = None
    output: Any = None
    mutates: bool = False


def declare(name: str, run: Callable[[Context, Caller, Any], Awaitable[Any]], method: str, path: str, *, status: int = 200,
            query: tuple[str, ...] = (), mutates: bool = False, creates: bool = False,
            secret: bool = False) -> Operation:
    """Declare an operation; its input and output are what *run*'s annotations say."""
    hints = get_type_hints(run)
    output = hints.pop("return")
    http = Http(method, path, status, query)
    return Operation(name, run, http, hints["input"], output, mutates, creates, secret)


def declare_stream(name: str, method: str, path: str, doc: str, *, query: type[Input] = Nothing, status: int = 200,
                   content: str = "application/octet-stream", takes: str = "", body: Any = None, output: Any = None,
                   mutates: bool = False) -> Stream:
    """Declare a hand-written route, so that the API's description and its routes cannot drift apart."""
    names = tuple(f.encode_name for f in msgspec.structs.fields(query))
    return Stream(name, Http(method, path, status, names), doc, query, content, takes, body, output, mutates)


class Registry:
    """The operations of one manager, by name."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}
        self._streams: dict[str, Stream] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Return the hand-written routes by name."""
        return self._streams

    def add(self, operation: Operation) -> None:
        """Register *operation*; raise ValueError when its name is taken."""
        if operation.name in self._operations or operation.name in self._streams:
            raise ValueError(f"there are two operations named {operation.name}")
        self._operations[operation.name] = operation

    def add_stream(self, stream: Stream) -> None:
        """Register a hand-written route; raise ValueError when its name is taken."""
        if stream.name in self._operations or stream.name in self._streams:
            raise ValueError(f"there are two operations named {stream.name}")
        self._streams[stream.name] = stream

    def get(self, name: str) -> Operation:
        """Return an operation; raise ``Failure('not-found')`` when there is none of that name."""
        try:
            return self._operations[name]
        except KeyError:
            raise Failure("not-found", f"There is no operation {name!r}; see /v1/openapi.json.") from None


async def invoke(context: Context, caller: Caller, operation: Operation, input: Input) -> Any:
    """Run *operation* for *caller*, whatever surface it came through: run, count and audit."""
    with counted(context, caller, operation.name, operation.mutates):
        return await operation.run(context, caller, input)


@contextmanager
def counted(context: Context, caller: Caller, name: str, mutates: bool) -> Iterator[None]:
    """Count what happens inside by its outcome and the time that it takes. mutates: write an audit line too."""
    started, outcome = time.perf_counter(), "ok"
    try:
        yield
    except Failure as failure:
        outcome = failure.code
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"  # its sender has gone
        raise
    except BaseException:
        outcome = "internal"
        raise
    finally:
        context.metrics.operation(name, outcome, time.perf_counter() - started)
        if mutates:
            audit_log.info("operation", extra={"fields": {"operation": name, "user": caller.user.name, "outcome": outcome}})


def read_input(operation: Operation, arguments: Mapping[str, Any]) -> Input:
    """Turn plain data into an operation's input; raise ``Failure('invalid-request')`` with the field named."""
    try:
        return msgspec.convert(dict(arguments), operation.input)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


def invalid(error: Exception) -> Failure:
    """Say what msgspec found wrong, with the field's name first."""
    said, at, where = str(error).partition(" - at `")
    field = where.rstrip("`").removeprefix("$").lstrip(".")
    return Failure("invalid-request", f"{field}: {said}." if at and field else f"{said}.")
