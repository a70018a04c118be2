"""Creates that happen once, however often they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Table, select
from sqlalchemy.exc import IntegrityError

from backendai.manager.access import Caller
from backendai.manager.context import Context
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import idempotency
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


async def made_before(context: Context, caller: Caller) -> str | None:
    """Return the id of what this very call made when it was sent before; raise when the key was used for another request."""
    once = caller.once
    if once is None:
        return None
    query = (select(idempotency.c.request, idempotency.c.subject)
             .where(idempotency.c.user_id == caller.id, idempotency.c.key == once.key))

    async def job(connection: AsyncConnection) -> tuple[str, str] | None:
        row = (await connection.execute(query)).first()
        return None if row is None else (row.request, row.subject)

    found = await context.store.read(job)
    if found is None:
        return None
    if found[0] != once.request:
        raise Failure("idempotency-mismatch", "This Idempotency-Key was used for another request; make a new key for each request.")
    return found[1]


def remember(tx: Tx, caller: Caller, subject: str, now: float) -> None:
    """Note in the same transaction what the call made."""
    if caller.once is not None:
        tx.later(idempotency, {"user_id": caller.id, "key": caller.once.key, "request": caller.once.request,
                               "subject": subject, "at": now})


async def create_once(context: Context, caller: Caller, make: Callable[[], Awaitable[T]],
                      again: Callable[[str], Awaitable[T]]) -> T:
    """Return what *make* makes, or for a call that was sent before what *again* answers for the id of what that made."""
    if (subject := await made_before(context, caller)) is not None:
        return await again(subject)
    try:
        return await make()
    except IntegrityError as error:  # the same call, sent twice at the same time
        if not violates(error, idempotency) or (subject := await made_before(context, caller)) is None:
            raise
        return await again(subject)


def violates(error: IntegrityError, table: Table) -> bool:
    """Tell whether *error* is about a constraint of *table*; their names hold the table's on both databases."""
    return table.name in str(error.orig)
