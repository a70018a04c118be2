"""One thread for everything: the database's driver and the planners answer at once, so that a seed makes the same run each time.

``Fates`` decides what happens at each statement of the database: nothing, a disk that is full, or the end of the process.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest import mock

import aiosqlite
from backendai.manager import context, planning
from backendai.manager.store import connect
from backendai.plugin.host import PluginHost
from backendai.spec import scheduler_v10
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

WRITES = ("INSERT", "UPDATE", "DELETE")


@dataclass
class Fates:
    """What is to happen in the database and in the planners.

    die_in: statements, or commits, until the process dies, None for never. dead: set when it has; nothing is written after that.
    full: writes fail, as SQLite says it. hang: plans do not come back. raise_in: wishes until the scheduler raises, None for never.
    committed: called after each commit with the raw connection.
    """

    random: Random
    die_in: int | None = None
    at_commit: bool = False
    full: bool = False
    hang: bool = False
    raise_in: int | None = None
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    committed: Callable[[sqlite3.Connection], None] | None = None
    _open: list[sqlite3.Connection] = field(default_factory=list)

    def kill_at(self, statements: int, *, at_commit: bool = False) -> None:
        """Have the process die at a statement from now; or right after a commit, before anybody hears of it."""
        self.die_in, self.at_commit, self.dead = statements, at_commit, asyncio.Event()

    def spare(self) -> None:
        """Have it live."""
        self.die_in = None
        self.dead = asyncio.Event()

    def opened(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Remember a connection of this process."""
        self._open.append(connection)
        return connection

    def bury(self) -> None:
        """Let go of what a process that has died had open, as its system does."""
        for connection in self._open:
            with suppress(sqlite3.ProgrammingError):  # it was closed before
                connection.rollback()
            connection.close()
        self._open.clear()

    async def run(self, connection: aiosqlite.Connection, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        """Do what the driver was asked for, unless it is not to be."""
        if call in (connection._conn.rollback, connection._conn.close):
            connection._conn.rollback()
            return call(*given, **more)
        if self.dead.is_set():
            await _never()
        commit = call == connection._conn.commit and connection._conn.in_transaction
        await self._maybe_die(commit, before=True)
        if self.full and (commit or (given and isinstance(given[0], str) and given[0].lstrip().startswith(WRITES))):
            raise sqlite3.OperationalError("database or disk is full")
        answer = call(*given, **more)
        if commit and self.committed is not None:
            self.committed(connection._conn)
        await self._maybe_die(commit, before=False)
        return answer

    async def _maybe_die(self, commit: bool, *, before: bool) -> None:
        if self.die_in is None or (self.at_commit and (before or not commit)) or (not self.at_commit and not before):
            return
        self.die_in -= 1
        if self.die_in < 0:
            self.dead.set()
            await _never()

    def moody(self, attempts: Callable[[Any], Generator[Any, Any, None]]) -> Callable[[Any], Generator[Any, Any, None]]:
        """Return a scheduler's hook that raises where it is to."""
        def moody(view: Any) -> Generator[Any, Any, None]:
            if self.raise_in is None:
                yield from attempts(view)
                return
            talk, answer = attempts(view), None
            for _ in range(self.raise_in):
                try:
                    answer = yield talk.send(answer)
                except StopIteration:
                    return
            raise RuntimeError("a mood")

        return moody


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


class _Queue:
    """The jobs of a driver's thread, done at once. At its end a transaction ends, too, whoever still reads in it."""

    def __init__(self, owner: aiosqlite.Connection) -> None:
        self._owner = owner

    def put_nowait(self, job: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, call = job
        if getattr(call, "__name__", "") == "close_and_stop" and self._owner._connection is not None:
            self._owner._connection.rollback()
        try:
            result = call()
        except BaseException as error:
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class _NoThread:
    def start(self) -> None:
        """Do nothing."""

    def join(self) -> None:
        """Do nothing."""


class _Worker:
    """A planner's thread that is none. It is busy while plans hang."""

    fates: Fates

    def __init__(self, name: str) -> None:
        self._hung = False

    @property
    def busy(self) -> bool:
        """Tell whether a plan has not come back."""
        return self._hung and self.fates.hang

    async def run(self, work: Callable[[], Any]) -> Any:
        """Work, or be late."""
        self._hung = self.fates.hang
        if self._hung:
            raise TimeoutError
        return work()

    def close(self) -> None:
        """Do nothing."""


class _Chance:
    """Identifiers from a seed."""

    def __init__(self, random: Random) -> None:
        self.randbits = random.getrandbits


class Engines:
    """Engines that share what they have compiled, because a simulation makes thousands of them."""

    def __init__(self) -> None:
        self._first: AsyncEngine | None = None

    def make(self, *given: Any, **more: Any) -> AsyncEngine:
        """Return an engine as SQLAlchemy makes it."""
        engine = create_async_engine(*given, **more)
        if self._first is None:
            self._first = engine
        engine.sync_engine.dialect = self._first.sync_engine.dialect
        engine.sync_engine._compiled_cache = self._first.sync_engine._compiled_cache
        return engine


@contextmanager
def one_thread(fates: Fates, host: PluginHost, engines: Engines) -> Iterator[None]:
    """Have everything happen in this thread, as *fates* and their seed want it."""
    def make(self: aiosqlite.Connection, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int, loop: Any = None) -> None:
        self._running, self._connection, self._iter_chunk_size = True, None, iter_chunk_size
        self._connector = lambda: fates.opened(connector())
        self._tx, self._thread = _Queue(self), _NoThread()  # type: ignore[assignment]  # all that is asked of them

    async def execute(self: aiosqlite.Connection, call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        if not self._running or not self._connection:
            raise ValueError("Connection closed")
        return await fates.run(self, call, *given, **more)

    with ExitStack() as stack:
        for target, name, new in (
                (aiosqlite.Connection, "__init__", make), (aiosqlite.Connection, "_execute", execute),
                (planning, "Worker", type("_Worker", (_Worker,), {"fates": fates})), (context, "secrets", _Chance(fates.random)),
                (connect, "create_async_engine", engines.make), (planning, "PLAN_S", 600.0)):
            stack.enter_context(mock.patch.object(target, name, new))
        for driver in host.each(scheduler_v10.SPEC).values():
            stack.enter_context(mock.patch.object(driver, "attempts", fates.moody(driver.attempts)))
        yield
