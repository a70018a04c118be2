"""``GET /v1/events``: what happens, as server-sent events that a reader can resume."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.auth import authenticate
from backendai.manager.bus import Event, Subscription
from backendai.manager.context import Context
from backendai.manager.operations.streams import EventsQuery
from backendai.manager.rest import CONTEXT, REQUEST, caller_of, read_query
from backendai.manager.store.schema import events
from backendai.model.errors import Failure
from backendai.model.views import EventLine

KEEP_ALIVE_S = 15.0  # a comment so often keeps middlemen from closing a quiet stream
REPLAY = 500  # events in one read
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def watch(request: web.Request) -> web.StreamResponse:
    """Replay what came after ``Last-Event-ID``, then follow unless ``follow=false``. Without that header it starts now."""
    context, caller = request.app[CONTEXT], caller_of(request)
    require(caller, Verb.READ, _thing(caller.id))
    follow = read_query(request, EventsQuery).follow
    after = _resume_point(request)
    with context.bus.subscribe() as subscription:  # before the replay, so that nothing falls between
        if after is None:
            after = 0 if not follow else context.store.last_event
        response = web.StreamResponse(headers=_HEADERS)
        response.headers["X-Request-Id"] = request[REQUEST]
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
        after = await _replay(context, caller, response, after)
        if follow:
            await _follow(context, request, response, subscription, after)
    await response.write_eof()
    return response


def _resume_point(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Failure("invalid-request", "Last-Event-ID: must be the id of an event.")
    return int(text)


async def _replay(context: Context, caller: Caller, response: web.StreamResponse, after: int) -> int:
    while True:
        query = select(events).where(events.c.id > after).order_by(events.c.id).limit(REPLAY)
        if not caller.superadmin:
            query = query.where(events.c.owner_id == caller.id)

        async def job(connection: AsyncConnection, query: Any = query) -> Sequence[Row[Any]]:
            return (await connection.execute(query)).all()

        rows = await context.store.read(job)
        lines = [Event(r.id, r.at, r.type, r.subject, r.owner_id, msgspec.json.decode(r.data)) for r in rows]
        if lines:
            await response.write(b"".join(map(_line, lines)))
            after = lines[-1].id
        if len(rows) < REPLAY:
            return after


async def _follow(context: Context, request: web.Request, response: web.StreamResponse, subscription: Subscription, after: int) -> None:
    caller, known = caller_of(request), context.tokens.generation
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                event = await subscription.next()
        except TimeoutError:
            await response.write(b": still here\n\n")
            continue
        if event is None:
            return
        ended = caller.expires_at is not None and caller.expires_at <= context.clock()
        if ended or context.tokens.generation != known:  # somebody's token or role changed: who is this now?
            known = context.tokens.generation
            try:
                caller = await authenticate(context, request)
            except Failure:
                return
        if event.id > after and may(caller, Verb.READ, _thing(event.owner_id)):
            await response.write(_line(event))


def _thing(owner_id: str | None) -> Thing:
    return Thing("event", owner_id)


def _line(event: Event) -> bytes:
    line = EventLine(event.id, event.at, event.type, event.subject, dict(event.data))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), msgspec.json.encode(line))
