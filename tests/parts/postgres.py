"""A PostgreSQL server of our own, reached over a socket in its own folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.absent import Absent
from tests.parts.processes import make_folder


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of the server that BACKENDAI_TEST_PG names, else of one of our own; raise ``Absent`` where none can be."""
    if url := os.environ.get("BACKENDAI_TEST_PG"):
        yield url
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        raise Absent("PostgreSQL's server is not installed (apt-get install postgresql)")
    folder = make_folder("pg")
    try:
        with _started(Path(initdb).parent, folder):
            yield f"postgresql://bai@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(programs: Path, folder: Path) -> Iterator[None]:
    account = None
    if os.geteuid() == 0:  # the server refuses to run as root
        account = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
        shutil.chown(folder, account)
    data = str(folder / "data")

    def run(program: str, *argv: str) -> None:
        try:
            subprocess.run([str(programs / program), "-D", data, *argv], check=True, user=account, cwd=folder, timeout=60,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except subprocess.CalledProcessError as error:
            raise Absent(f"PostgreSQL's {program} does not work here: {error.stderr.strip()[-200:]}") from None

    run("initdb", "-U", "bai", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=100"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield
    finally:
        run("pg_ctl", "-m", "immediate", "-w", "stop")


def databases(server: str, *statements: str) -> None:
    """Run statements that make or drop databases."""
    import asyncio

    import asyncpg

    async def execute() -> None:
        connection = await asyncpg.connect(server)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())
