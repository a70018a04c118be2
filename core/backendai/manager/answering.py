"""What every handler of a stream shares: it is counted, and a failure after the beginning is told in the stream's own way."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from backendai.manager.access import Caller
from backendai.manager.context import Context
from backendai.manager.operations.registry import Stream, counted
from backendai.manager.rest import REQUEST, caller_of
from backendai.model.errors import Failure

CLOSE_S = 2.0  # for the other side to answer a close
LATE_S = 5.0  # for it to take the reason of a failure
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
T = TypeVar("T")
Late = Callable[[Failure], Awaitable[None]]
Handler = Callable[[Context, Caller, web.Request], Awaitable[web.StreamResponse]]
BEGUN: web.RequestKey[tuple[web.StreamResponse, Late]] = web.RequestKey("begun", tuple)


async def begin(request: web.Request, response: web.StreamResponse, late: Late) -> None:
    """Send the response's head; from here on *late* tells of a failure."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # what proxies understand as: pass it on at once
    response.headers["X-Request-Id"] = request[REQUEST]
    await response.prepare(request)
    request[BEGUN] = (response, late)


def counted_handler(context: Context, stream: Stream, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return *handler* as the application calls it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = caller_of(request)
        try:
            with counted(context, caller, stream.name, stream.mutates):
                return await handler(context, caller, request)
        except (Failure, ConnectionError, web.HTTPException) as error:
            if BEGUN not in request:
                raise
            response, late = request[BEGUN]
            try:
                async with asyncio.timeout(LATE_S):
                    if isinstance(error, Failure):
                        await late(error)
            except (ConnectionError, RuntimeError):
                pass  # the client has gone too
            except TimeoutError:
                break_off(request)
            return response

    return handle


def break_off(request: web.Request) -> None:
    """End the connection without the end of the body; what was written until now still arrives."""
    if request.transport is not None:
        request.transport.close()


async def body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the request's body as it comes; raise when it breaks off."""
    try:
        async for data in request.content.iter_any():
            yield data
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(reason="The body broke off") from None


async def while_feeding(feed: Awaitable[None], answer: Awaitable[T]) -> T:
    """Return or raise as *answer* does, which may be before *feed* has said everything; raise when our side broke off."""
    feeding, answering = asyncio.ensure_future(feed), asyncio.ensure_future(answer)
    try:
        await asyncio.wait([feeding, answering], return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and not isinstance(feeding.exception(), Failure | None):
            feeding.result()
        return await answering  # says why when the agent has gone
    finally:
        for task in (feeding, answering):
            task.cancel()
        await asyncio.gather(feeding, answering, return_exceptions=True)


def keep_alive(request: web.Request) -> None:
    """Let the network notice a peer that is gone for good.

    WebSocket pings cannot do that on a stream: a pong waits behind the data that a slow reader has not taken yet.
    """
    socket = request.transport.get_extra_info("socket") if request.transport is not None else None
    if socket is not None:
        for name, value in KEEP_ALIVE.items():
            if hasattr(sockets, name):
                socket.setsockopt(sockets.IPPROTO_TCP, getattr(sockets, name), value)
