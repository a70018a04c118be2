"""The database: one writer that commits in groups, and a small pool of readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backendai.manager.bus import Event
from backendai.manager.store.connect import Address, claim, open_engine
from backendai.manager.store.migrate import upgrade
from backendai.manager.store.schema import events, idempotency
from backendai.model.errors import Failure

log = logging.getLogger(__name__)
T = TypeVar("T")
GROUP = 256  # jobs in one transaction at most, so that no caller waits long for its neighbours
_OURS = (IntegrityError, ProgrammingError, DataError)
_event_insert = insert(events)


class Tx:
    """One job's view of a transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.events: list[tuple[str, str, str | None, Mapping[str, Any]]] = []
        self.callbacks: list[Callable[[], None]] = []
        self.rows: list[tuple[Table, Mapping[str, Any]]] = []

    def later(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert *row* at the end of the group, together with its neighbours' rows; no job of the group sees it."""
        self.rows.append((table, row))

    def event(self, type: str, subject: str, owner_id: str | None, data: Mapping[str, Any]) -> None:
        """Append to the event log; subscribers hear it after the commit."""
        self.events.append((type, subject, owner_id, data))

    def after(self, callback: Callable[[], None]) -> None:
        """Run *callback* once the transaction is committed."""
        self.callbacks.append(callback)


Job = Callable[[Tx], Awaitable[Any]]


@dataclass(slots=True)
class _Waiting:
    job: Job
    answer: asyncio.Future[Any]


class Store:
    """The platform's memory. Make it with ``open_store``."""

    def __init__(self, address: Address, publish: Callable[[Sequence[Event]], None], clock: Callable[[], float]) -> None:
        self.address = address
        self._publish = publish
        self._clock = clock
        self._writer: AsyncEngine = open_engine(address, writing=True)
        self._readers: AsyncEngine = open_engine(address, writing=False)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self.last_event = 0
        self._task: asyncio.Task[None] | None = None

    async def hold(self) -> None:
        """Take the database for this process; on a server the writer's connection holds the lock."""
        try:
            async with asyncio.timeout(15.0), self._writer.connect():
                pass
        except (OSError, DBAPIError, TimeoutError) as error:
            said = "The database does not answer; check --db and that it runs."
            raise Failure("unavailable", said, detail=repr(error)) from error

    async def start(self) -> None:
        """Begin to take jobs; the schema is up to date and this process is the only one here."""
        async with self._readers.connect() as connection:
            self.last_event = (await connection.execute(select(func.max(events.c.id)))).scalar() or 0
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def write(self, job: Callable[[Tx], Awaitable[T]]) -> T:
        """Run *job* in a transaction, together with others that wait, and return its answer once that is committed.

        When one of a group raises, all are rolled back and each is run again alone: a job must be repeatable, and must touch
        nothing but the database and what it returns.
        """
        if self._task is None:
            raise Failure("unavailable", "The manager is stopping; try again in a moment.")
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        with _answering():
            answer: T = await waiting.answer
        return answer

    async def read(self, job: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run *job* on one consistent snapshot of the database; raise ``Failure('unavailable')`` when that does not answer."""
        with _answering():
            async with self._readers.connect() as connection:
                return await job(connection)

    async def ready(self) -> None:
        """Raise when the database does not answer."""
        async with asyncio.timeout(5.0):
            await self.read(lambda connection: connection.execute(select(1)))

    async def prune(self, events_kept: int, events_kept_s: float) -> None:
        """Forget old events and the idempotency keys of yesterday. The newest event stays, so that numbers never come again."""
        now = self._clock()

        async def job(tx: Tx) -> None:
            last = self.last_event
            too_old = (events.c.at < now - events_kept_s) | (events.c.id <= last - events_kept)
            await tx.connection.execute(delete(events).where(too_old, events.c.id < last))
            await tx.connection.execute(delete(idempotency).where(idempotency.c.at < now - 86400.0))

        await self.write(job)

    async def close(self) -> None:
        """Finish the jobs that wait, then let go of the database."""
        if self._task is not None:
            task, self._task = self._task, None
            await self._queue.join()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._readers.dispose()
        await self._writer.dispose()
        self.address.release()

    async def _run(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._commit([w for w in group if not w.answer.done()])
            finally:
                for waiting in group:
                    if not waiting.answer.done():  # only when this task is being cancelled
                        waiting.answer.cancel()
                    self._queue.task_done()

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        """Commit *group* as one; when that fails and there are several, each alone."""
        started = time.monotonic()
        try:
            answers = await self._transact([w.job for w in group])
        except Exception as error:
            if len(group) == 1 or _absent(error):  # without a database each would wait in vain
                for waiting in group:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                return
            for waiting in group:
                await self._commit([waiting])
            return
        for waiting, answer in zip(group, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
        if (took := time.monotonic() - started) > 1.0:
            log.warning("a commit of %d jobs took %.1f s", len(group), took)

    async def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        answers, transactions = [], []
        async with self._writer.begin() as connection:
            for job in jobs:
                tx = Tx(connection)
                answers.append(await job(tx))
                transactions.append(tx)
            for table, rows in _by_table(transactions).items():
                await connection.execute(insert(table), rows)
            published = self._number([line for tx in transactions for line in tx.events])
            if published:
                await connection.execute(_event_insert, [
                    {"id": e.id, "at": e.at, "type": e.type, "owner_id": e.owner_id, "subject": e.subject,
                     "data": msgspec.json.encode(e.data).decode()} for e in published])
        if published:
            self.last_event = published[-1].id
            self._publish(published)
        for tx in transactions:
            for callback in tx.callbacks:
                try:
                    callback()
                except Exception:
                    log.exception("something failed after its transaction was committed")
        return answers

    def _number(self, lines: Sequence[tuple[str, str, str | None, Mapping[str, Any]]]) -> list[Event]:
        now = self._clock()
        return [Event(n, now, kind, subject, owner_id, data)
                for n, (kind, subject, owner_id, data) in enumerate(lines, self.last_event + 1)]


def _absent(error: BaseException) -> bool:
    """Tell whether *error* says that there is no database, rather than what is wrong with a statement."""
    return isinstance(error, DBAPIError | PoolTimeout | OSError | TimeoutError) and not isinstance(error, _OURS)


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what drivers raise when there is no database into ``Failure('unavailable')``."""
    try:
        yield
    except Exception as error:
        if not _absent(error):
            raise
        raise Failure("unavailable", "The database does not answer; try again in a moment.", detail=repr(error)) from error


def _by_table(transactions: Sequence[Tx]) -> dict[Table, list[Mapping[str, Any]]]:
    tables: dict[Table, list[Mapping[str, Any]]] = {}
    for tx in transactions:
        for table, row in tx.rows:
            tables.setdefault(table, []).append(row)
    return tables


async def open_store(url: str, publish: Callable[[Sequence[Event]], None], clock: Callable[[], float] = time.time) -> Store:
    """Claim the database for this process, bring its schema up to date, and open it.

    Raise ``Failure('conflict')`` when another manager serves it, ``Failure('unavailable')`` when it does not answer.
    """
    address = Address.parse(url)
    claim(address)
    store = Store(address, publish, clock)
    try:
        await store.hold()
        await upgrade(address)
        await store.start()
    except BaseException:
        await store.close()
        raise
    return store
