"""The store: groups, failures, locks, migrations and crashes, on both databases."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from backendai.manager.access import Caller, Rank, Verb, may
from backendai.manager.bus import BACKLOG, Bus, Event
from backendai.manager.store import migrate
from backendai.manager.store.connect import Address, open_engine
from backendai.manager.store.engine import Store, Tx, open_store
from backendai.manager.store.owners import Places, find_place, read_caller, visible
from backendai.manager.store.schema import PROJECT, events, metadata, tokens, users
from backendai.manager.store.sessions import SESSIONS
from backendai.model.errors import Failure
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection


def user(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "role": "user", "active": True, "uid": 1, "gid": 1, "created_at": 0.0}


async def names(store: Store) -> list[str]:
    async def job(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(select(users.c.name).order_by(users.c.name))).scalars())

    return await store.read(job)


async def test_jobs_that_wait_share_a_commit_and_a_failing_one_harms_nobody(db_url: str) -> None:
    heard: list[Event] = []
    store = await open_store(db_url, heard.extend)
    runs = 0

    async def job(tx: Tx, name: str) -> str:
        nonlocal runs
        runs += 1
        if name == "c":
            raise Failure("conflict", "not this one")
        tx.later(users, user(name))
        tx.event("user.created", name, None, {"n": name})
        return name

    try:
        answers = await asyncio.gather(*(store.write(lambda tx, n=n: job(tx, n)) for n in "abcda"), return_exceptions=True)  # type: ignore[misc]  # n is bound at once
        assert answers[:2] == ["a", "b"] and answers[3] == "d"
        assert isinstance(answers[2], Failure) and isinstance(answers[4], IntegrityError)
        assert await names(store) == ["a", "b", "d"]
        assert [event.data["n"] for event in heard] == ["a", "b", "d"] and [event.id for event in heard] == [1, 2, 3]
        runs = 0
        await asyncio.gather(*(store.write(lambda tx, n=n: job(tx, n)) for n in "efghij"))  # type: ignore[misc]  # n is bound at once
        assert runs == 6, "a group that goes well runs each job once"
    finally:
        await store.close()


async def test_what_runs_after_the_commit_runs_only_then(db_url: str) -> None:
    store, rung = await open_store(db_url, lambda _: None), []

    async def fails(tx: Tx) -> None:
        tx.after(lambda: rung.append("failed"))
        raise RuntimeError

    async def works(tx: Tx) -> None:
        tx.after(lambda: rung.append("worked"))

    try:
        await asyncio.gather(store.write(fails), store.write(works), return_exceptions=True)
        assert rung == ["worked"]
    finally:
        await store.close()


async def test_a_caller_that_goes_away_harms_nobody(db_url: str) -> None:
    store = await open_store(db_url, lambda _: None)

    async def add(tx: Tx, name: str) -> None:
        await asyncio.sleep(0)
        await tx.connection.execute(insert(users), [user(name)])

    try:
        gone = asyncio.create_task(store.write(lambda tx: add(tx, "gone")))
        stays = asyncio.create_task(store.write(lambda tx: add(tx, "stays")))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        assert "stays" in await names(store)
    finally:
        await store.close()
    with pytest.raises(Failure, match="stopping"):
        await store.write(lambda tx: add(tx, "late"))


async def test_one_database_has_one_manager(db_url: str) -> None:
    store = await open_store(db_url, lambda _: None)
    try:
        with pytest.raises(Failure, match="Another manager serves this database"):
            await open_store(db_url, lambda _: None)
    finally:
        await store.close()
    await (await open_store(db_url, lambda _: None)).close()


async def test_event_numbers_never_come_again(db_url: str) -> None:
    now = 1000.0
    store = await open_store(db_url, lambda _: None, lambda: now)

    async def note(tx: Tx) -> None:
        tx.event("x", "s", None, {})

    for _ in range(5):
        await store.write(note)
    await store.prune(events_kept=3, events_kept_s=100.0)
    assert await _ids(store) == [3, 4, 5]
    now = 5000.0
    await store.prune(events_kept=3, events_kept_s=100.0)
    assert await _ids(store) == [5]
    await store.close()
    store = await open_store(db_url, lambda _: None, lambda: now)
    await store.write(note)
    assert await _ids(store) == [5, 6]
    await store.close()


async def _ids(store: Store) -> list[int]:
    async def job(connection: AsyncConnection) -> list[int]:
        return list((await connection.execute(select(events.c.id).order_by(events.c.id))).scalars())

    return await store.read(job)


async def test_the_migrations_make_exactly_the_tables(db_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    address = Address.parse(db_url)
    assert await migrate.upgrade(address) and not await migrate.upgrade(address)
    made = await _schema(address)
    engine = open_engine(address, writing=True, exclusive=False)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.execute(text("DROP TABLE alembic_version"))
        await connection.run_sync(migrate.run_scripts)
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata))
    await engine.dispose()
    assert difference == []
    assert await _schema(address) == made
    assert ScriptDirectory.from_config(migrate.alembic_config()).get_current_head() == migrate.HEAD


async def _schema(address: Address) -> list[str]:
    """Return the tables and indexes as the database itself describes them, and the revision."""
    queries = {
        True: "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL",
        False: "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
               "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid != 0 "
               "UNION ALL SELECT concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default) "
               "FROM information_schema.columns WHERE table_schema = 'public'"}
    engine = open_engine(address, writing=False)
    async with engine.connect() as connection:
        found = (await connection.execute(text(queries[address.is_sqlite]))).scalars()
        lines = sorted(_in_order(re.sub(r"\s|\"", "", str(line))) for line in found)
        lines += (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars()
    await engine.dispose()
    return lines


def _in_order(line: str) -> str:
    """Sort the parts of a table: a column that was added later stands behind the constraints."""
    head, bracket, parts = line.partition("(")
    return head + bracket + ",".join(sorted(re.split(r",(?![^()]*\))", parts[:-1]))) if head.startswith("CREATETABLE") else line


async def test_a_database_of_the_first_schema_is_brought_up_to_date(db_url: str) -> None:
    from alembic import command

    engine = open_engine(Address.parse(db_url), writing=True, exclusive=False)
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.upgrade(migrate.alembic_config(sync), "0001"))
        await connection.execute(text("INSERT INTO tokens (id, name, hash, created_at) VALUES ('t', 'box', 'h', 0)"))
    await engine.dispose()
    store = await open_store(db_url, lambda _: None)

    async def row(connection: AsyncConnection) -> Any:
        return (await connection.execute(select(tokens))).one()

    found = await store.read(row)
    assert (found.name, found.agent_id) == ("box", None)
    await store.close()


async def test_who_was_there_before_domains_is_in_the_first_project(db_url: str) -> None:
    """Their account, their sessions and their token go on as if nothing had happened."""
    from alembic import command

    engine = open_engine(Address.parse(db_url), writing=True, exclusive=False)
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.upgrade(migrate.alembic_config(sync), "0002"))
        await connection.execute(text("INSERT INTO users (id, name, role, active, uid, gid, created_at) "
                                      "VALUES ('u', 'ada', 'user', true, 1000, 1000, 0)"))
        await connection.execute(text("INSERT INTO sessions (id, owner_id, name, type, spec, priority, state, state_since, stop, reason, "
                                      "hold, created_at) VALUES ('s', 'u', 'old', 'batch', '{}', 10, 'TERMINATED', 0, false, '', '', 0)"))
    await engine.dispose()
    store = await open_store(db_url, lambda _: None)

    async def caller(connection: AsyncConnection) -> Caller:
        return await read_caller(connection, (await connection.execute(select(users))).one())

    ada = await store.read(caller)
    assert (ada.user.domain, ada.user.projects, ada.project_id, ada.projects) == ("default", ("default",), PROJECT, {PROJECT: Rank.MEMBER})
    place = await find_place(Places(), store, ada, None)
    assert place.title == "default/default" and may(ada, Verb.CREATE, place.thing("session"))

    async def mine(connection: AsyncConnection) -> Any:
        return (await connection.execute(SESSIONS.where(visible(ada)))).one()

    old = await store.read(mine)
    assert (old.name, old.project, old.domain) == ("old", "default", "default")
    await store.close()


async def test_a_newer_schema_is_refused_with_what_to_do(db_url: str) -> None:
    await (await open_store(db_url, lambda _: None)).close()
    engine = open_engine(Address.parse(db_url), writing=True, exclusive=False)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(Failure, match="upgrade backendai"):
        await open_store(db_url, lambda _: None)


async def test_a_database_that_does_not_answer_is_said_so() -> None:
    with pytest.raises(Failure) as caught:
        await open_store("postgresql://nobody@127.0.0.1:1/none", lambda _: None)
    assert caught.value.code == "unavailable" and "--db" in caught.value.message


@pytest.mark.parametrize("given", ["mysql://x/y", "sqlite://", "://"])
def test_other_databases_are_refused(given: str) -> None:
    with pytest.raises(Failure):
        Address.parse(given)


def test_addresses_are_read_as_people_write_them(tmp_path: Path) -> None:
    assert Address.parse(str(tmp_path / "x.db")).path == tmp_path / "x.db"
    assert Address.parse(f"sqlite:///{tmp_path}/x.db").path == tmp_path / "x.db"
    for text_ in ("postgres://u@h/d", "postgresql://u@h/d"):
        assert Address.parse(text_).url.drivername == "postgresql+asyncpg"


_WRITER = """
import asyncio, sys
from sqlalchemy import insert
from backendai.manager.store.engine import open_store
from backendai.manager.store.schema import users
async def main():
    store = await open_store(sys.argv[1], lambda _: None)
    async def add(name):
        async def job(tx):
            tx.later(users, dict(id=name, name=name, role="user", active=True, uid=1, gid=1, created_at=0.0))
        await store.write(job)
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()
    for n in range(10**6):
        await asyncio.gather(*(add(f"{n}.{i}") for i in range(10)))
asyncio.run(main())
"""


async def test_what_was_answered_survives_a_kill(db_url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, db_url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    answered = [(await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    answered += (await process.stdout.read()).decode().split("\n")[:-1]
    await process.wait()
    store = await _reopen(db_url)
    async with asyncio.timeout(30):
        assert set(answered) <= set(await names(store))

    async def intact(connection: AsyncConnection) -> int:
        return (await connection.execute(select(func.count()).select_from(users))).scalar_one()

    assert await store.read(intact) >= 200
    await store.close()


async def _reopen(db_url: str) -> Store:
    """Open as soon as the server has noticed that the killed process is gone."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await open_store(db_url, lambda _: None)
            except Failure as failure:
                assert failure.code == "conflict"
                await asyncio.sleep(0.1)


async def test_a_slow_reader_of_events_is_cut_off() -> None:
    bus = Bus()
    with bus.subscribe() as slow:
        bus.publish([Event(n, 0.0, "x", "s", None, {}) for n in range(BACKLOG + 10)])
        for _ in range(BACKLOG):
            assert await slow.next() is not None
        assert await slow.next() is None and slow.cut


async def test_the_end_of_the_bus_ends_every_wait() -> None:
    bus = Bus()

    async def never() -> None:
        return None

    waiting = asyncio.create_task(bus.until("s", never))
    await asyncio.sleep(0)
    bus.end()
    with pytest.raises(Failure, match="stopping"):
        await waiting


@pytest.mark.parametrize("db_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_a_server_that_goes_and_comes_back_is_unavailable_meanwhile(db_url: str, postgres_server: str, served_both: Any) -> None:
    served = served_both
    made = await served.session(name="before")
    name = db_url.rpartition("/")[2] if "?" not in db_url else db_url.partition("?")[0].rpartition("/")[2]
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    admin = await asyncpg.connect(postgres_server)
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await admin.execute(end)
    for method, path in (("GET", f"/v1/sessions/{made['id']}"), ("GET", "/readyz"), ("POST", f"/v1/sessions/{made['id']}/stop")):
        refused = await served.call(method, path, status=503)
        assert refused["code"] == "unavailable" and "does not answer" in refused["detail"]
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert (await served.call("GET", "/v1/sessions/before", status=200))["id"] == made["id"]
    await served.call("POST", "/v1/sessions/before/stop", status=200)
    await admin.execute(end)  # connections that are dead at first use
    await served.call("POST", "/v1/sessions/before/stop", status=200)
    await served.call("GET", "/readyz", status=200)
    await admin.close()
