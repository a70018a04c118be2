"""The null runtime: how long its containers run, and what they end with."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from backendai.agent import boot
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState, Mount
from backendai.testing.null_runtime import NullRuntime

INIT = Mount("/somewhere/init", "/.bai/init")
RUNNING, EXITED = ContainerState.RUNNING, ContainerState.EXITED


async def run(runtime: NullRuntime, *argv: str, env: dict[str, str] | None = None) -> Container:
    id = await runtime.create(ContainerSpec("one", "nothing", argv, env or {}, labels={"a": "1"}, mounts=(INIT,)))
    await runtime.start(id)
    return (await runtime.list({"a": "1"}))[0]


@pytest.mark.parametrize(("argv", "state", "code"), [
    ((), EXITED, 0),
    (("python3", "-c", "while True: pass"), EXITED, 0),
    (("/.bai/init", "--", "true"), EXITED, 0),
    (("/.bai/init", "--", "/bin/false"), EXITED, 1),
    (("exit", "7"), EXITED, 7),
    (("exit", "now"), EXITED, 0),
    (("/.bai/init",), RUNNING, None),
    (("sleep", "infinity"), RUNNING, None),
    (("/.bai/init", "--", "sleep", "1"), RUNNING, None),
])
async def test_the_command_decides_how_long_it_runs(argv: tuple[str, ...], state: ContainerState, code: int | None) -> None:
    container = await run(NullRuntime(), *argv)
    assert (container.state, container.exit_code) == (state, code)


async def test_a_bootstrap_script_succeeds_and_the_command_follows(tmp_path: Path) -> None:
    runtime, mounts = NullRuntime(), (INIT, Mount(str(tmp_path), boot.TARGET, readonly=False))
    for name, command, state in (("one", ("/.bai/init",), RUNNING), ("two", ("false",), EXITED)):
        id = await runtime.create(ContainerSpec(name, "nothing", ("/.bai/init", "--", *boot.wrap(command)), mounts=mounts))
        await runtime.start(id)
        assert [one.state for one in await runtime.list({}) if one.id == id] == [state]
    assert (tmp_path / "ended").read_text() == "0\n"


async def test_the_environment_overrules_the_command() -> None:
    assert (await run(NullRuntime(), "sleep", "1", env={"BACKENDAI_NULL_RUN_S": "0", "BACKENDAI_NULL_EXIT": "3"})).exit_code == 3
    assert (await run(NullRuntime(), "true", env={"BACKENDAI_NULL_RUN_S": "inf"})).state is RUNNING
    with pytest.raises(Failure, match="BACKENDAI_NULL_RUN_S a number of seconds or inf"):
        await run(NullRuntime(), "true", env={"BACKENDAI_NULL_RUN_S": "soon"})


async def test_it_ends_when_its_time_has_come_and_says_so() -> None:
    runtime = NullRuntime()
    async with asyncio.timeout(10), aclosing(cast(Any, runtime.events({"a": "1"}))) as events:
        heard = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        id = (await run(runtime, "true", env={"BACKENDAI_NULL_RUN_S": "0.01", "BACKENDAI_NULL_EXIT": "4"})).id
        assert (await heard).state is RUNNING
        assert [chunk async for chunk in runtime.logs(id, 0, True)] == []
        assert (await anext(events)).state is EXITED
    assert (await runtime.list({}))[0].exit_code == 4


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGKILL", 137), ("SIGINT", 130)])
async def test_stopped_it_tells_the_signal(signal: str, code: int) -> None:
    runtime = NullRuntime()
    container = await run(runtime, "sleep", "9")
    await runtime.stop(container.id, signal, 1.0)
    assert (await runtime.list({}))[0].exit_code == code
    with pytest.raises(Failure, match="is not the name of a signal"):
        await runtime.stop(container.id, "SIGNONSENSE", 1.0)


async def test_it_forgets_nothing_on_a_timer_when_it_is_taken_down() -> None:
    runtime = NullRuntime()
    await run(runtime, "true", env={"BACKENDAI_NULL_RUN_S": "0.01"})
    await runtime.teardown()
    await asyncio.sleep(0.03)
    assert (await runtime.list({}))[0].state is RUNNING


async def test_who_follows_a_removed_container_comes_to_an_end() -> None:
    runtime = NullRuntime()
    id = (await run(runtime, "sleep", "9")).id

    async def follow() -> None:
        assert [chunk async for chunk in runtime.logs(id, 0, True)] == []

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await asyncio.sleep(0)
        await runtime.remove(id)
    assert await runtime.list({}) == []
