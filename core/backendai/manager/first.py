"""The first start: the cluster gets its id, and its administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from backendai.manager.access import Role
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import cluster, tokens, users
from backendai.wire.tokens import AGENT_PREFIX, USER_PREFIX, hash_token, make_token

if TYPE_CHECKING:
    from backendai.manager.context import Context

ADMIN = "admin"


async def found_cluster(context: Context) -> tuple[str, str | None]:
    """Return the cluster's id and, only when it was made just now, its administrator's token."""
    now, secret = context.clock(), make_token(USER_PREFIX)
    ids = [context.new_id() for _ in range(3)]

    async def job(tx: Tx) -> tuple[str, str | None]:
        known: str | None = (await tx.connection.execute(select(cluster.c.id))).scalar()
        if known is not None:
            return known, None
        await tx.connection.execute(insert(cluster), [{"id": ids[0], "created_at": now}])
        await tx.connection.execute(insert(users), [{"id": ids[1], "name": ADMIN, "role": Role.SUPERADMIN.value, "active": True,
                                                     "uid": 1000, "gid": 1000, "created_at": now}])
        await tx.connection.execute(insert(tokens), [{"id": ids[2], "user_id": ids[1], "name": "first", "hash": hash_token(secret),
                                                      "created_at": now}])
        tx.event("user.created", ids[1], ids[1], {"by": "first start", "name": ADMIN, "role": Role.SUPERADMIN.value})
        return ids[0], secret

    return await context.store.write(job)


async def make_agent_token(context: Context, name: str) -> str:
    """Make a token for an agent beside this manager; store its hash and return the token."""
    token_id, secret, now = context.new_id(), make_token(AGENT_PREFIX), context.clock()

    async def job(tx: Tx) -> None:
        tx.later(tokens, {"id": token_id, "user_id": None, "name": name, "hash": hash_token(secret), "created_at": now,
                          "expires_at": None})
        tx.event("token.created", token_id, None, {"by": "manager", "name": name, "agent": True})

    await context.store.write(job)
    return secret
