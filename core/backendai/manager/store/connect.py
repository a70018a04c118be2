"""Where the database is, how a connection to it is set up, and that only one manager serves it."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from backendai.manager.store.driver import Driver
from backendai.model.errors import Failure

_LOCK = 0x6261636B656E64  # "backend": the advisory lock's number within its database
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000")
COMMAND_S = 30.0  # how long one statement may take on PostgreSQL


@dataclass(slots=True)
class Address:
    """A database. path: its file, None on a server. lock: the descriptor that holds it while this process serves it."""

    url: URL
    path: Path | None
    lock: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``postgresql://``, ``postgres://``, ``sqlite:///PATH`` or a bare path."""
        if "://" not in text:
            text = f"sqlite:///{text}"
        try:
            url = make_url(text)
        except ArgumentError:
            said = "The database address is not a URL; write postgresql://USER@HOST/NAME or a path."
            raise Failure("invalid-request", said) from None
        kind = url.drivername.partition("+")[0]
        if kind in ("postgresql", "postgres"):
            return cls(url.set(drivername="postgresql+asyncpg"), None)
        if kind == "sqlite" and url.database and url.database != ":memory:":
            path = Path(url.database).absolute()
            return cls(URL.create("sqlite+aiosqlite", database=str(path)), path)
        raise Failure("invalid-request", f"{kind} is not a database that is served; use postgresql:// or sqlite:///PATH.")

    @property
    def is_sqlite(self) -> bool:
        return self.path is not None

    def release(self) -> None:
        """Let another process have the database."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def taken() -> Failure:
    """Return the error for a database that another manager serves."""
    return Failure("conflict", "Another manager serves this database; stop it first, or choose another one with --db or --data.")


def claim(address: Address) -> None:
    """Lock an embedded database for this process; a server's is locked by its writer's connection."""
    if address.path is None:
        return
    address.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(f"{address.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise taken() from None
    address.lock = lock
    os.close(os.open(address.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # nobody else may read it


def open_engine(address: Address, *, writing: bool, exclusive: bool = True) -> AsyncEngine:
    """Return an engine that connects when first used. writing: one connection, which on a server holds the lock."""
    if address.is_sqlite:
        engine = create_async_engine(address.url, pool_size=1 if writing else 2, max_overflow=0, module=Driver())
        _begin_ourselves(engine, "BEGIN IMMEDIATE" if writing else "BEGIN")
        return engine
    engine = create_async_engine(
        address.url, pool_size=1 if writing else 4, max_overflow=0, pool_pre_ping=True, pool_timeout=COMMAND_S,
        isolation_level="READ COMMITTED" if writing else "REPEATABLE READ",
        connect_args={"timeout": 10.0, "command_timeout": COMMAND_S,
                      "server_settings": {"jit": "off", "application_name": "backendai-manager"}})
    if writing and exclusive:
        _lock_server(engine)
    return engine


def _begin_ourselves(engine: AsyncEngine, begin: str) -> None:
    """Begin transactions by our own statement: the driver's own way begins at the first write only, and without the lock."""

    @event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def _lock_server(engine: AsyncEngine) -> None:
    """Tie the lock to the writer's connection: who cannot write any more does not hold it either."""

    @event.listens_for(engine.sync_engine, "connect")
    def _lock(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SELECT pg_try_advisory_lock({_LOCK})")
        held = cursor.fetchone()[0]
        cursor.close()
        connection.commit()
        if not held:
            raise taken()
