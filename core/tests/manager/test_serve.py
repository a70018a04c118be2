"""A whole manager: started, stopped, started again."""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import replace
from typing import Any

import pytest
from backendai.manager.config import ManagerConfig
from backendai.manager.serve import serve_manager
from backendai.model.errors import Failure

IDLE = """
import asyncio, sys
from pathlib import Path
from backendai.manager.config import ManagerConfig
from backendai.manager.serve import serve_manager

async def main():
    async with serve_manager(ManagerConfig(data=Path(sys.argv[1]))):
        print(*(name for name in ("alembic", "mako", "asyncpg", "aiodocker") if name in sys.modules))

asyncio.run(main())
"""


async def test_the_first_token_is_shown_once_and_the_rest_survives(config: ManagerConfig, managed: Any) -> None:
    session = await managed.session(name="kept")
    first, cluster = managed.token, managed.handle.cluster
    await managed.stop()
    async with serve_manager(config) as again:
        assert again.first_admin_token is None and again.cluster == cluster
        async with managed.http.get(f"{again.url}/v1/sessions/kept", headers={"Authorization": f"Bearer {first}"}) as response:
            assert (await response.json())["id"] == session["id"]


async def test_an_address_in_use_is_said_so(config: ManagerConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Failure, match="choose another --listen"):
        async with serve_manager(replace(config, port=taken.getsockname()[1])):
            pass
    async with serve_manager(config):  # the one that failed has let go of the database
        pass


async def test_a_database_in_use_is_said_so(config: ManagerConfig) -> None:
    async with serve_manager(config):
        with pytest.raises(Failure, match="Another manager serves this database"):
            async with serve_manager(config):
                pass


async def test_a_stop_answers_those_who_wait(managed: Any) -> None:
    session = await managed.session()
    path = f"/v1/sessions/{session['id']}?wait=final&timeout_s=60"
    waiting = asyncio.create_task(managed.call("GET", path, status=503))
    await managed.poll(lambda: managed.context.bus._waiting)
    await managed.stop()
    assert (await waiting)["code"] == "unavailable"


async def test_a_wait_ends_with_its_client(managed: Any) -> None:
    session = await managed.session()
    waiting = asyncio.create_task(managed.call("GET", f"/v1/sessions/{session['id']}?wait=final&timeout_s=60"))
    await managed.poll(lambda: managed.context.bus._waiting)
    waiting.cancel()
    await managed.poll(lambda: not managed.context.bus._waiting)
    assert 'outcome="cancelled"' in await managed.call("GET", "/metrics")


async def test_an_idle_manager_has_imported_nothing_that_it_does_not_need(config: ManagerConfig) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IDLE, str(config.data), stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60.0):
        said, _ = await process.communicate()
    assert process.returncode == 0 and said.decode().split() == []
