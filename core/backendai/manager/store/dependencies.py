"""Who waits for whose end: told at once, in the transaction that ends a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager import life
from backendai.manager.held import Held
from backendai.manager.store.engine import Tx
from backendai.manager.store.held import BY_SESSION, MOST, Change, find, write
from backendai.manager.store.schema import dependencies
from backendai.model.session import After, Result

_IDS: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
_ON = select(dependencies.c.session_id, dependencies.c.on_id, dependencies.c.kind).where(
    dependencies.c.on_id.in_(_IDS), dependencies.c.met.is_(False))
_UNMET = (select(dependencies.c.session_id, func.count()).where(dependencies.c.session_id.in_(_IDS), dependencies.c.met.is_(False))
          .group_by(dependencies.c.session_id))
_MET = update(dependencies).where(dependencies.c.session_id == bindparam("of"), dependencies.c.on_id == bindparam("on")).values(met=True)
NEVER = {After.OK: "A session that it was to follow only after a success has ended without one.",
         After.NOT_OK: "A session that it was to follow only after a failure has ended without one."}


@dataclass(frozen=True, slots=True)
class Followed:
    """What the end of sessions meant for others. changes: those that were cancelled. released: ids, once for each dependency met."""

    changes: tuple[Change, ...] = ()
    released: tuple[str, ...] = ()


def is_met(kind: str, result: str | None) -> bool:
    """Tell whether a dependency on a session that has ended with *result* lets go."""
    return kind == After.ANY or (result == Result.SUCCESS) is (kind == After.OK)


async def count_unmet(connection: AsyncConnection, ids: Sequence[str]) -> Mapping[str, int]:
    """Return how many dependencies are not met yet, by session."""
    return {row[0]: row[1] for at in range(0, len(ids), MOST) for row in await connection.execute(_UNMET, {"ids": ids[at:at + MOST]})}


async def follow(tx: Tx, changes: Sequence[Change], now: float) -> Followed:
    """Let go who waited for sessions that have ended, and cancel who waited for another end; and so on with those that waited for them."""
    cancelled: list[Change] = []
    released: list[str] = []
    ended = {after.id: after for before, after in changes if life.ended(after) and not life.ended(before)}
    while ended:
        ids, met, broken = sorted(ended), [], dict[str, str]()
        for at in range(0, len(ids), MOST):
            for session, on, kind in (await tx.connection.execute(_ON, {"ids": ids[at:at + MOST]})).all():
                if is_met(kind, ended[on].result):
                    met.append({"of": session, "on": on})
                else:
                    broken[session] = NEVER[After(kind)]
        if met:
            await tx.connection.execute(_MET, met)
        released += [row["of"] for row in met]
        ended = {}
        if broken:
            some = await _cancel(tx, broken, now)
            cancelled += some
            ended = {after.id: after for _, after in some}
    return Followed(tuple(cancelled), tuple(released))


async def _cancel(tx: Tx, broken: Mapping[str, str], now: float) -> Sequence[Change]:
    found: Sequence[Held] = await find(tx.connection, BY_SESSION, sorted(broken))
    changes = [(held, after) for held in found if (after := life.cancel(held, broken[held.id], now)) is not None]
    await write(tx, changes, now)
    return changes
