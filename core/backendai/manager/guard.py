"""Streams last; what their reader may do does not. Each is asked about again whenever a token or a role changes, and at the token's end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from backendai.manager.access import Caller, Verb
from backendai.manager.answering import Handler
from backendai.manager.auth import authenticate
from backendai.manager.context import Context
from backendai.manager.store.sessions import find_session
from backendai.model.errors import Failure


def guarded(verb: Verb, handler: Handler) -> Handler:
    """Return *handler* so that it ends, with the reason, when its caller may not do *verb* to the session any more."""

    async def handle(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
        working = asyncio.ensure_future(handler(context, caller, request))
        watching = asyncio.ensure_future(_until_refused(context, caller, request, verb))
        try:
            await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            return watching.result()
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    return handle


async def _until_refused(context: Context, caller: Caller, request: web.Request, verb: Verb) -> web.StreamResponse:
    """Wait for as long as the caller may; raise ``Failure`` with the reason then."""
    with context.tokens.watch() as changed:
        while True:
            left = None if caller.expires_at is None else max(0.0, caller.expires_at - context.clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()
            changed.clear()
            caller = await authenticate(context, request)
            try:
                await find_session(context, caller, request.match_info["id"], verb)
            except Failure as failure:
                said = "What you may do here has changed, and this ends."
                raise Failure("forbidden", f"{said} {failure.message}") from failure
