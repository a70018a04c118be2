"""Who sent a request: bearer tokens, hashed in the store and remembered in memory, and plugins that vouch for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller
from backendai.manager.store.owners import read_caller
from backendai.manager.store.schema import tokens, users
from backendai.model.errors import Failure
from backendai.spec import Reject
from backendai.spec.hook_v20 import SPEC as HOOK
from backendai.spec.hook_v20 import Request
from backendai.wire.tokens import AGENT_PREFIX, hash_token

if TYPE_CHECKING:
    from backendai.manager.context import Context

REMEMBERED = 10_000  # tokens in memory; unknown ones are not kept, so nobody can fill it
MAX_TOKEN = 256  # characters; ours have 47


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller | None  # None: an agent's
    token: str  # its id
    expires_at: float | None


class TokenCache:
    """What tokens prove, by their hash. A look-up takes the same work for every token that is remembered."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._watching: set[asyncio.Event] = set()
        self.generation = 0

    def get(self, hash: str, now: float) -> _Known | None:
        """Return what the token proves, None when it is not remembered or has expired."""
        known = self._known.get(hash)
        return None if known is None or _expired(known, now) else known

    def put(self, hash: str, known: _Known, generation: int) -> None:
        """Remember, unless something was revoked since *generation* was read."""
        if generation != self.generation:
            return
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[hash] = known

    def forget(self) -> None:
        """Forget everything: a token was revoked, or what a user is changed."""
        self.generation += 1
        self._known.clear()
        for event in self._watching:
            event.set()

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something was forgotten."""
        event = asyncio.Event()
        self._watching.add(event)
        try:
            yield event
        finally:
            self._watching.discard(event)


def _expired(known: _Known, now: float) -> bool:
    return known.expires_at is not None and known.expires_at <= now


async def authenticate(context: Context, request: web.Request) -> Caller:
    """Return who sent *request*; raise ``Failure('unauthenticated')`` when nobody can tell."""
    token = bearer(request)
    if token is None:
        return await _vouched(context, request)
    return await authenticate_token(context, token)


async def authenticate_token(context: Context, token: str) -> Caller:
    """Return whose *token* it is; raise ``Failure('unauthenticated')`` when it is nobody's or an agent's."""
    known = await _look_up(context, token)
    if known is None or known.caller is None:
        raise Failure("unauthenticated", "The token is not valid, or it has expired; sign in with `bai login`.")
    return known.caller


async def authenticate_agent(context: Context, request: web.Request) -> str:
    """Return the id of the agent's token that *request* carries; raise ``Failure`` if it carries none."""
    token = bearer(request)
    known = await _look_up(context, token) if token else None
    if known is None:
        raise Failure("unauthenticated", "This is not a valid agent token; make one with `bai token create --agent NAME`.")
    if known.caller is not None:
        raise Failure("forbidden", "An agent needs a token of its own; make one with `bai token create --agent NAME`.")
    return known.token


def bearer(request: web.Request) -> str | None:
    """Return the bearer token of *request*, None when there is none; raise when there is something else."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
        raise Failure("unauthenticated", "Send your token as `Authorization: Bearer TOKEN`.")
    return token.strip()


async def _look_up(context: Context, token: str) -> _Known | None:
    hashed, now = hash_token(token), context.clock()
    if (known := context.tokens.get(hashed, now)) is not None:
        return known
    generation = context.tokens.generation
    query = (select(tokens.c.id.label("token_id"), tokens.c.user_id, tokens.c.expires_at, tokens.c.scopes, users)
             .select_from(tokens.outerjoin(users, tokens.c.user_id == users.c.id)).where(tokens.c.hash == hashed))

    async def job(connection: AsyncConnection) -> tuple[Row[Any], Caller | None] | None:
        row = (await connection.execute(query)).first()
        if row is None or row.user_id is None:
            return None if row is None else (row, None)
        scopes = msgspec.json.decode(row.scopes, type=tuple[str, ...])
        return row, await read_caller(connection, row, row.token_id, scopes, row.expires_at) if row.active else None

    found = await context.store.read(job)
    if found is None:
        return None
    row, caller = found
    if token.startswith(AGENT_PREFIX) is not (row.user_id is None) or (caller is None and row.user_id is not None):
        return None
    known = _Known(caller, row.token_id, row.expires_at)
    if _expired(known, now):
        return None
    context.tokens.put(hashed, known, generation)
    return known


async def _vouched(context: Context, request: web.Request) -> Caller:
    """Ask the plugins whether they know who sent a request without a token."""
    asked = Request(request.method, request.path, {k.lower(): v for k, v in request.headers.items()}, request.remote or "")
    try:
        name = await context.host.all(HOOK).pre_auth(asked)
    except Reject as veto:
        raise Failure("unauthenticated", veto.reason) from veto
    if name is None:
        raise Failure("unauthenticated", "Send your token as `Authorization: Bearer TOKEN`, or sign in with `bai login`.")

    async def job(connection: AsyncConnection) -> Caller | None:
        row = (await connection.execute(select(users).where(users.c.name == name, users.c.active))).first()
        return None if row is None else await read_caller(connection, row)

    caller = await context.store.read(job)
    if caller is None:
        raise Failure("unauthenticated", f"There is no active user {name}; ask your administrator.")
    return caller
