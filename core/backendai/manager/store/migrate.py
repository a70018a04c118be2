"""Bring a database's schema up to date.

A new database gets the tables as they are now; Alembic brings an older one there. It is imported only then: it takes 9 MiB and half
a second, and a test holds both ways to the same result.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from backendai.manager.store.connect import Address, open_engine
from backendai.manager.store.schema import DEFAULT, PROJECT, domains, group_access, groups, metadata, projects
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)
HEAD = "0003"  # the newest file in versions/; a test holds it to that
_SCRIPTS = Path(__file__).parent / "migrations"
DEADLINE_S = 600.0


async def check(address: Address) -> str:
    """Return the schema's revision, empty for a new database; raise ``Failure`` when it is newer than this program."""
    engine = open_engine(address, writing=False)
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(_revision)
    except (OSError, DBAPIError, TimeoutError) as error:
        raise Failure("unavailable", f"The database does not answer: {_cause(error)}. Check --db and that it runs.",
                      detail=repr(error)) from error
    finally:
        await engine.dispose()
    if revision and revision > HEAD:
        raise Failure("conflict", f"The database has schema {revision}, newer than this program's {HEAD}; upgrade backendai.")
    return revision


async def upgrade(address: Address) -> bool:
    """Migrate to the newest schema if it is behind; tell whether there was anything to do."""
    revision = await check(address)
    if revision == HEAD:
        return False
    log.info("migrating the database from=%s to=%s", revision or "nothing", HEAD)
    async with asyncio.timeout(DEADLINE_S):
        engine = open_engine(address, writing=True, exclusive=False)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(run_scripts if revision else create)
        finally:
            await engine.dispose()
    return True


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for our scripts."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


def create(connection: Connection) -> None:
    """Make every table in an empty database and what is there from the beginning, and note the revision as Alembic does."""
    metadata.create_all(connection)
    now = time.time()
    connection.execute(insert(domains), [{"id": DEFAULT, "name": DEFAULT, "active": True, "created_at": now}])
    connection.execute(insert(projects), [{"id": PROJECT, "domain_id": DEFAULT, "name": DEFAULT, "active": True, "created_at": now}])
    connection.execute(insert(groups), [{"id": DEFAULT, "name": DEFAULT, "created_at": now}])
    connection.execute(insert(group_access), [{"group_id": DEFAULT, "scope_id": "*"}])
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
                            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def run_scripts(connection: Connection) -> None:
    """Run every script that this database has not seen."""
    from alembic import command

    command.upgrade(alembic_config(connection), HEAD)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    found: Any = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(found or "")


def _cause(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:200] or type(error).__name__
