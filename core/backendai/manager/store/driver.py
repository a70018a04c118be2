"""SQLite by aiosqlite with one visit to its thread for each statement, where SQLAlchemy's own adapter makes four.

A visit costs 50 to 100 us, most statements of ours cost less. Opening a cursor, running, fetching and closing are done there at once.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)

_NOTHING: Any = ()


@dataclass(frozen=True, slots=True)
class _Done:
    """What a statement left. description: as DB-API has it, None where there are no rows."""

    description: Any = None
    rowcount: int = -1
    lastrowid: int | None = None
    rows: Sequence[Any] = ()


def _run(operation: str, parameters: Any, connection: sqlite3.Connection) -> _Done:
    cursor = connection.execute(operation, _NOTHING if parameters is None else parameters)
    return _done(cursor)


def _run_many(operation: str, parameters: Iterable[Any], connection: sqlite3.Connection) -> _Done:
    return _done(connection.executemany(operation, parameters))


def _done(cursor: sqlite3.Cursor) -> _Done:
    description = cursor.description
    rows = cursor.fetchall() if description else ()
    found = _Done(description, cursor.rowcount, cursor.lastrowid, rows)
    cursor.close()
    return found


class Cursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor that exists only while a statement runs."""

    __slots__ = ("_seen", "arraysize")
    _awaitable_cursor_close = False  # there is nothing to close

    def __init__(self, adapt_connection: Any) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._cursor = None  # type: ignore[assignment]  # the adapter asks whether there is one
        self._soft_closed_memoized = {}  # type: ignore[assignment]  # nothing is remembered beyond the close
        self._rows = deque()
        self._seen = _Done()
        self.arraysize = 1

    @property
    def description(self) -> Any:
        return self._seen.description

    @property
    def rowcount(self) -> int:
        return self._seen.rowcount

    @property
    def lastrowid(self) -> Any:
        return self._seen.lastrowid

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        return await self._visit(_run, operation, parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        return await self._visit(_run_many, operation, seq_of_parameters)

    async def _visit(self, run: Any, operation: Any, parameters: Any) -> None:
        connection: Any = self._connection
        async with self._adapt_connection._execute_mutex:
            self._seen = await connection._execute(run, operation, parameters, connection._conn)
        self._rows = deque(self._seen.rows)


class Connection(AsyncAdapt_aiosqlite_connection):
    """A connection with such cursors."""

    __slots__ = ()
    _cursor_cls = Cursor


class Driver(AsyncAdapt_aiosqlite_dbapi):
    """What SQLAlchemy takes for the driver's module."""

    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)

    def connect(self, *given: Any, **named: Any) -> Connection:
        """Connect as the adapter does."""
        return Connection(self, super().connect(*given, **named)._connection)
