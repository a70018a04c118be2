"""One kept connection to a manager, from the standard library."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import socket
from collections.abc import Generator, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from backendai.client.call import Call, failure
from backendai.model.errors import Failure

CONNECT_S = 10.0
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # notices a peer that is gone while a stream is silent
PIECE = 64 * 1024


class Http:
    """Sends calls to *url* with *token*, one after the other. Use one in each thread; a stream takes a connection of its own."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        self._parts = urlsplit(url)
        self._kept: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Let go of the connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def ask(self, call: Call[Any]) -> bytes:
        """Send *call* and return the body of the answer; raise ``Failure`` when it is an error, or when nobody answers."""
        kept, self._kept = self._kept, None  # whatever interrupts this leaves no half-used connection behind
        if kept is not None and _is_closed(kept):
            kept.close()
        elif kept is not None:
            try:
                return self._ask(kept, call)
            except (ConnectionError, http.client.HTTPException) as error:
                if not call.repeatable:  # else it was closed while this went out
                    raise self._broken(error, call) from error
            except OSError as error:
                raise self._broken(error, call) from error
        try:
            return self._ask(self._connect(), call)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error, call) from error

    def _ask(self, connection: http.client.HTTPConnection, call: Call[Any]) -> bytes:
        try:
            connection.sock.settimeout(call.answer_s)
            connection.request(call.method, self._parts.path + call.target, call.payload(), call.headers(self._token))
            answer = connection.getresponse()
            data = answer.read()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # else the server wishes to close it
            self._kept = connection
        if answer.status >= 400:
            raise failure(answer.status, data)
        return data

    def stream(self, call: Call[Any], body: Iterable[bytes] | None = None,
               headers: dict[str, str] | None = None) -> Generator[bytes, None, None]:
        """Send *call*, with *body* piece by piece, and yield the answer as it comes; raise ``Failure`` when it breaks off."""
        connection = self._connect()
        try:
            connection.sock.settimeout(None)
            given = {**call.headers(self._token), **(headers or {})}
            answer = self._begin(connection, call, body, given)
            if answer.status >= 400:
                raise failure(answer.status, answer.read())
            while piece := answer.read1(PIECE):
                yield piece
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error, call) from error
        finally:
            connection.close()

    def _begin(self, connection: http.client.HTTPConnection, call: Call[Any], body: Iterable[bytes] | None,
               headers: dict[str, str]) -> http.client.HTTPResponse:
        target = self._parts.path + call.target
        if body is None:
            connection.request(call.method, target, call.payload(), headers)
            return connection.getresponse()
        try:
            connection.request(call.method, target, body, {**headers, "Transfer-Encoding": "chunked"}, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it was all sent; the answer says why
        return connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=CONNECT_S)
        try:
            connection.connect()
        except OSError as error:
            raise nobody(self.url, error) from error
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connection

    def _broken(self, error: Exception, call: Call[Any]) -> Failure:
        if isinstance(error, TimeoutError):
            return Failure("deadline", f"{self.url} did not answer within {call.answer_s:g} s; try again.")
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
            return Failure("unreachable", f"{self.url} does not speak HTTP; is this the address of a manager?")
        return Failure("unreachable", f"The connection to {self.url} broke off ({type(error).__name__}); try again.")


def nobody(url: str, error: OSError) -> Failure:
    """Return the failure to tell when no connection can be made."""
    if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
        hint = "Start the platform with `bai up`, or log in elsewhere with `bai login URL`."
    else:
        hint = "Is the address right, and the manager up? `bai login URL` changes it."
    known = error.errno is not None and error.errno > 0
    why = os.strerror(error.errno or 0) if known else error.strerror or error  # asyncio puts words of its own into strerror
    return Failure("unreachable", f"Nobody answers at {url} ({why}). {hint}")


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Tell whether the server has closed a connection that nothing is asked on: there is something to read, which is its end."""
    with selectors.DefaultSelector() as look:
        look.register(connection.sock, selectors.EVENT_READ)
        return bool(look.select(0))


def read_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream, without their ends."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def read_json_lines(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each line's object; raise the ``Failure`` that the last line tells of."""
    done = False
    for line in filter(None, read_lines(pieces)):
        given: dict[str, Any] = json.loads(line)
        if "error" in given:
            raise told(given["error"])
        done = done or bool(given.get("done"))
        yield given
    if not done:
        raise Failure("unreachable", "The answer broke off before its end; try again.")


def told(error: dict[str, Any]) -> Failure:
    """Return the failure that a stream's last words tell of."""
    return failure(500, json.dumps({"code": error.get("code"), "detail": error.get("message")}).encode())


def read_events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each server-sent event; comments and retry times are passed over."""
    data: list[bytes] = []
    for line in read_lines(pieces):
        if line.startswith(b"data:"):
            data.append(line[5:].lstrip(b" "))
        elif not line.strip() and data:
            yield b"\n".join(data)
            data = []
