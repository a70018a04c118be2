"""What lies ahead of each resource group: the order of its queue, and when everybody starts.

It is worked out in a thread beside the loop, and good for a moment.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.sights import Sight
from backendai.manager.store.schema import sessions
from backendai.manager.worker import Worker
from backendai.model.errors import Failure
from backendai.sokovan.forecast import Forecast, Habits, forecast, ranks

if TYPE_CHECKING:
    from backendai.manager.context import Context

T = TypeVar("T")
FRESH_S = 2.0  # how old an answer may be
REST = 10.0  # or so many times as old as it took to work out, so that whoever watches costs a tenth of a core at most
SHARE = 4.0  # for whoever is not in it: so many times as old as it took to work out
HABITS_S = 60.0  # how old what is known of habits may be
WORK_S = 2.0  # that one question may take
MOST = 16  # questions at once
LOOKED_AT, FEWEST = 2000, 8  # sessions of late, and how many of them must have ended in this group to speak of habits


class _Asked(msgspec.Struct, frozen=True):
    time_limit_s: float | None = None


_asked_decoder = msgspec.json.Decoder(_Asked)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What lies ahead of a group. positions: by session, from 1. forecasts: by session. cut: there was no time for all.

    began, done: monotonic.
    """

    sight: Sight
    positions: Mapping[str, int]
    forecasts: Mapping[str, Forecast]
    habits: Habits
    cut: bool
    began: float
    done: float

    def is_fresh(self, now: float, ids: Collection[str]) -> bool:
        """Tell whether it is still good *now* for a question about *ids*."""
        cost = self.done - self.began
        if not 0 <= now - self.sight.snapshot.view.now < max(FRESH_S, REST * cost):
            return False
        there = all(id in self.sight.snapshot.requests for id in ids)
        return there or time.monotonic() - self.done < SHARE * cost


class Prospects:
    """Answers from one thread, which shares the interpreter with the loop and never keeps it waiting for the end of a question."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._asking = 0
        self._known: dict[str, Prospect] = {}
        self._under_way: dict[str, asyncio.Task[Prospect]] = {}
        self._habits: dict[str, tuple[float, Habits]] = {}

    async def of(self, context: Context, group: str, ids: Collection[str] = ()) -> Prospect:
        """Return what lies ahead of a group; those of *ids* that came a moment ago are in it, where they wait for room."""
        known = self._known.get(group)
        if known is not None and known.is_fresh(context.clock(), ids):
            return known
        task = self._under_way.get(group)
        if task is None:
            task = self._under_way[group] = asyncio.create_task(self._look(context, group), name="prospects")
            task.add_done_callback(lambda done: self._done(group, done))
        return await asyncio.shield(task)

    async def work(self, job: Callable[[Callable[[], bool]], T]) -> T:
        """Run *job* in the thread and return its answer. It is given a function that tells when its time is up.

        Raise ``Failure('too-many')`` when too many ask, ``Failure('deadline')`` when a plugin does not come back.
        """
        if self._asking >= MOST:
            raise Failure("too-many", "Many ask for explanations right now; ask again in a moment.")
        if self._worker is None:
            self._worker = Worker("explain")
        self._asking += 1
        try:
            async with asyncio.timeout((self._asking + 1) * WORK_S + 1.0):
                return await self._worker.run(lambda: job(until(time.monotonic() + WORK_S)))
        except TimeoutError as error:
            self.close()  # it may hang for ever; others get a new one
            raise Failure("deadline", "A plugin does not come to an end; ask your administrator to look at the manager's log.") from error
        finally:
            self._asking -= 1

    async def habits(self, context: Context, group: str) -> Habits:
        """Return how long sessions of a group have run of late."""
        at, known = self._habits.get(group, (float("-inf"), Habits()))
        if not 0 <= context.clock() - at < HABITS_S:
            known = await context.store.read(lambda connection: read_habits(connection, group))
            self._habits[group] = context.clock(), known
        return known

    def close(self) -> None:
        """Let go of the thread."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    async def _look(self, context: Context, group: str) -> Prospect:
        habits = await self.habits(context, group)
        sight = context.sights.of(group)
        prospect = self._known[group] = await self.work(lambda late: _work_out(sight, habits, late))
        return prospect

    def _done(self, group: str, task: asyncio.Task[Prospect]) -> None:
        del self._under_way[group]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone


def until(end: float) -> Callable[[], bool]:
    """Return what tells whether it is *end* (monotonic) already."""
    return lambda: time.monotonic() > end


def _work_out(sight: Sight, habits: Habits, late: Callable[[], bool]) -> Prospect:
    began = time.monotonic()
    order = ranks(sight.snapshot, sight.scheduler, late)
    found = forecast(sight.snapshot, sight.scheduler, sight.selector, habits, late, until(began + WORK_S / 2))
    return Prospect(sight, {id: number for number, id in enumerate(order, 1)}, found, habits, late(), began, time.monotonic())


async def read_habits(connection: AsyncConnection, group: str) -> Habits:
    """Return how soon the quicker quarter of the sessions ended that ran in *group* of late; nothing for certain where too few did."""
    newest = select(sessions.c.id).order_by(sessions.c.id.desc()).limit(LOOKED_AT)
    query = select(sessions.c.started_at, sessions.c.ended_at, sessions.c.spec).where(
        sessions.c.id.in_(newest), sessions.c.group_id == group, sessions.c.started_at.is_not(None), sessions.c.ended_at.is_not(None))
    shares, lengths = [], []
    for row in await connection.execute(query):
        limit, ran = _asked_decoder.decode(row.spec).time_limit_s, max(0.0, row.ended_at - row.started_at)
        lengths.append(ran)
        if limit:
            shares.append(min(1.0, ran / limit))
    if len(lengths) < FEWEST:
        return Habits()
    share = statistics.quantiles(shares, n=4)[0] if len(shares) >= FEWEST else 1.0
    return Habits(max(0.0, share), statistics.quantiles(lengths, n=4)[0], len(lengths))
