"""An engine that stands still, dies and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, cast

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Capabilities, ContainerState, Event, Runtime
from backendai_runtime_docker import containers

from tests.parts import docker, image, processes
from tests.parts.absent import Absent, give_up

TRIES = 20
Again = Callable[..., Awaitable[Runtime]]
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def docker_engine(docker_engine: docker.Engine) -> Iterator[docker.Engine]:
    """An engine that is ours to kill, whatever BACKENDAI_TEST_DOCKER names."""
    if docker_engine.folder is not None:
        yield docker_engine
        return
    try:
        with docker.own_engine() as engine:
            yield engine
    except Absent as why:
        give_up(why)


@pytest.fixture(scope="module")
def base_image(docker_engine: docker.Engine) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BACKENDAI_TEST_IMAGE", raising=False)
        yield image.base_image(docker_engine)


@pytest.fixture
def containerd(docker_engine: docker.Engine) -> Iterator[int]:
    """The process without which the engine answers and starts nothing; it goes on after the test."""
    assert docker_engine.containerd is not None
    pid = docker_engine.containerd.pid
    yield pid
    os.kill(pid, signal.SIGCONT)


async def healthy(runtime: Runtime) -> Capabilities | None:
    try:
        return await runtime.probe()
    except Failure as failure:
        assert failure.code == "unavailable"
        return None


async def test_an_engine_that_answers_and_starts_nothing_is_found_out(bench: Any, containerd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "START_S", 1.0)
    running = await bench.run()
    waiting = await bench.runtime.create(bench.spec())
    os.kill(containerd, signal.SIGSTOP)
    with pytest.raises(Failure) as caught:
        await bench.runtime.start(waiting)
    assert caught.value.code == "unavailable"
    assert (await bench.see(running)).state is ContainerState.RUNNING, "nothing is declared dead"
    with pytest.raises(Failure) as caught:
        await bench.runtime.probe()
    assert caught.value.code == "unavailable"
    os.kill(containerd, signal.SIGCONT)
    await bench.until(lambda: healthy(bench.runtime))
    monkeypatch.undo()
    await bench.runtime.start(waiting)
    await bench.run("true")


async def test_a_command_runs_once_when_its_start_had_no_answer(bench: Any, containerd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await bench.runtime.create(bench.spec("sh", "-c", "echo once"))
    monkeypatch.setattr(containers, "START_S", 0.5)
    os.kill(containerd, signal.SIGSTOP)
    with pytest.raises(Failure):
        await bench.runtime.start(id)
    os.kill(containerd, signal.SIGCONT)
    monkeypatch.undo()
    await bench.ended(id)
    await bench.runtime.start(id)
    assert (await bench.output(id))[1] == b"once\n"


async def killed_in_a_start(bench: Any, engine: docker.Engine, again: Again) -> tuple[Runtime, str, Callable[[], int]]:
    """Kill the engine just after a command began; return the runtime on the revived one, a container that it takes for merely created
    although its command has begun, and what counts that command's processes."""
    for number in range(TRIES):
        mark = f"forgotten-{os.getpid()}-{number}-"
        id = await bench.runtime.create(bench.spec("sh", "-c", f": {mark}; echo once; sleep 1000"))
        start = asyncio.ensure_future(bench.runtime.start(id))
        while not start.done() and not inside(mark):  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0)
        await asyncio.to_thread(engine.kill)
        with suppress(Failure):
            await start
        await asyncio.to_thread(engine.start)
        runtime = await again()
        await runtime.probe()
        seen = next(one for one in await runtime.list(bench.labels) if one.id == id)
        if seen.state is ContainerState.CREATED and inside(mark):
            return runtime, id, lambda mark=mark: inside(mark)
        await runtime.remove(id)
    pytest.skip("the engine has always noted the start before it died")


def inside(mark: str) -> int:
    """Count the processes in containers whose command has *mark*."""
    return sum(mark in processes.read(pid, "cmdline") and processes.read(pid, "comm").strip() == "sh" for pid in processes.processes())


async def test_a_start_that_a_killed_engine_forgot_is_not_repeated_and_leaves_nothing(
        bench: Any, docker_engine: docker.Engine, with_runtime: Again) -> None:
    runtime, id, running = await killed_in_a_start(bench, docker_engine, with_runtime)
    with pytest.raises(Failure, match="nobody knows whether the command has run"):
        await runtime.start(id)
    assert running() == 1
    await runtime.remove(id)
    assert running() == 0
    await bench.until(lambda: no_shim_of(id))


async def no_shim_of(id: str) -> bool | None:
    return None if any(id in processes.read(pid, "cmdline") for pid in processes.processes()) else True


async def test_an_engine_that_was_killed_comes_back(bench: Any, docker_engine: docker.Engine, with_runtime: Again) -> None:
    done = await bench.run("sh", "-c", "echo out; exit 5")
    await bench.ended(done)
    running = await bench.run("sh", "-c", "echo up; exec sleep 1000")
    async with aclosing(cast(Any, bench.runtime.events(bench.labels))) as events:
        first = asyncio.ensure_future(anext(events))
        while not first.done():  # until the engine listens
            await bench.ended(await bench.run("true"))
        await asyncio.to_thread(docker_engine.kill)
        for call in (bench.runtime.probe(), bench.runtime.list(bench.labels), bench.output(done, follow=False), bench.run()):
            with pytest.raises(Failure) as caught:
                await call
            assert caught.value.code == "unavailable"
        await asyncio.to_thread(docker_engine.start)
        assert await bench.until(lambda: healthy(bench.runtime))
        again = await bench.run("true")
        async with asyncio.timeout(30):
            while await anext(events) != Event(again, ContainerState.EXITED):
                pass  # older news first
    assert (await bench.see(done)).exit_code == 5
    assert (await bench.output(done))[1] == b"out\n"
    assert (await bench.output(running, follow=False))[1] == b"up\n"
    assert (await bench.see(running)).state is ContainerState.RUNNING, "the engine restores live containers"
    await bench.runtime.stop(running, "SIGTERM", 0)
    assert (await bench.see(running)).exit_code == 137
