"""The life of a container, from creation to removal."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import FEATURES, ContainerState, Event, Limits, Mount, Progress, Runtime

pytestmark = pytest.mark.docker
EMPTY, BUILT = f"bai-test-empty:{os.getpid()}", f"bai-test-built:{os.getpid()}"  # others may test on the same engine


async def test_probe_tells_the_engine_and_what_it_can_do(bench: Any) -> None:
    found = await bench.runtime.probe()
    assert found.engine.split()[0] in ("docker", "podman")
    assert found.features | found.missing.keys() == FEATURES
    assert found.parallel_starts == 20


async def test_an_engine_that_is_not_there_is_unavailable(with_runtime: Callable[..., Awaitable[Runtime]], tmp_path: Path) -> None:
    runtime = await with_runtime(url=f"unix://{tmp_path}/none")
    with pytest.raises(Failure, match="cannot be reached") as caught:
        await runtime.probe()
    assert caught.value.code == "unavailable"


async def test_a_remote_engine_is_refused(with_runtime: Callable[..., Awaitable[Runtime]]) -> None:
    with pytest.raises(Failure, match="on this machine"):
        await (await with_runtime(url="tcp://127.0.0.1:2375")).probe()


async def test_a_container_lives_and_its_labels_come_back(bench: Any) -> None:
    spec = bench.spec("sh", "-c", "exit 7")
    id = await bench.runtime.create(spec)
    assert (await bench.see(id)).state is ContainerState.CREATED
    await bench.runtime.start(id)
    seen = await bench.ended(id)
    assert (seen.name, seen.labels, seen.exit_code, seen.out_of_memory) == (spec.name, bench.labels, 7, False)
    assert seen.started_at <= seen.ended_at
    await bench.runtime.remove(id)
    assert await bench.see(id) is None


async def test_every_call_may_be_repeated(bench: Any) -> None:
    spec = bench.spec()
    id = await bench.runtime.create(spec)
    assert await bench.runtime.create(spec) == id
    await bench.runtime.start(id)
    pid = (await bench.see(id)).pid
    assert pid
    await bench.runtime.start(id)
    assert (await bench.see(id)).pid == pid
    for _ in range(2):
        await bench.runtime.stop(id, "SIGTERM", 0)
    for _ in range(2):
        await bench.runtime.remove(id)
    await bench.runtime.stop(id, "SIGTERM", 1)


async def test_stop_asks_first_and_kills_after_the_grace(bench: Any) -> None:
    polite = await bench.run("sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; sleep 1000 & wait")
    stubborn = await bench.run("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
    for id in (polite, stubborn):
        async with aclosing(bench.runtime.logs(id, 0, True)) as chunks:
            assert (await anext(chunks)).data == b"up\n"
    await bench.runtime.stop(polite, "SIGTERM", 20)
    await bench.runtime.stop(stubborn, "SIGTERM", 0.3)
    assert (await bench.see(polite)).exit_code == 3
    assert (await bench.see(stubborn)).exit_code == 137
    assert (await bench.output(polite))[1] == b"up\nbye\n"


async def test_a_command_that_is_not_there_is_named(bench: Any) -> None:
    id = await bench.runtime.create(bench.spec("no-such-program"))
    with pytest.raises(Failure, match="no-such-program cannot be run") as caught:
        await bench.runtime.start(id)
    assert caught.value.code == "runtime-fault"


async def test_a_mount_that_is_not_there_is_named(bench: Any, tmp_path: Path) -> None:
    if bench.podman:
        pytest.skip("Podman makes the missing folder")
    with pytest.raises(Failure) as caught:
        await bench.runtime.create(bench.spec(mounts=(Mount(str(tmp_path / "nothing"), "/data"),)))
    assert caught.value.code == "bad-mount"


async def test_an_image_that_nobody_has_is_a_bad_image(bench: Any) -> None:
    said: list[Progress] = []
    with pytest.raises(Failure, match="bai image build") as caught:
        await bench.runtime.ensure_image("127.0.0.1:1/no/such:image", said.append)
    assert caught.value.code == "bad-image"
    assert said


async def test_an_image_that_is_here_needs_no_registry(bench: Any) -> None:
    image = await bench.runtime.ensure_image(bench.image, lambda _: pytest.fail("nothing is fetched"))
    assert image.name == bench.image
    assert image.id.startswith("sha256:")
    assert image.size > 0
    assert bench.image in [one.name for one in await bench.runtime.images()]


async def test_events_tell_of_starts_and_ends(bench: Any) -> None:
    async with aclosing(cast(Any, bench.runtime.events(bench.labels))) as events:
        first = asyncio.ensure_future(anext(events))
        while not first.done():  # until the engine listens
            await bench.ended(await bench.run("true"))
        id = await bench.run("true")
        seen: list[Event] = []
        async with asyncio.timeout(20):
            while Event(id, ContainerState.EXITED) not in seen:
                seen.append(await anext(events))
    assert Event(id, ContainerState.RUNNING) in seen


async def test_running_out_of_memory_is_seen(bench: Any) -> None:
    id = await bench.run("sh", "-c", "head -c 300m /dev/zero | tail -c 200m | wc -c", limits=Limits(memory=32 << 20))
    loud = await bench.run("tail", "/dev/zero", limits=Limits(memory=32 << 20))
    seen = await bench.ended(loud)
    assert seen.exit_code == 137
    assert seen.out_of_memory or bench.podman, "Podman 4 does not see it under cgroup v1"
    await bench.ended(id)


async def test_an_image_from_scratch_idles_on_the_static_init(bench: Any, static_program: Path, docker_engine: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    docker_engine.run("import", str(empty), EMPTY)
    try:
        id = await bench.run("/.bai/init", image=EMPTY, mounts=(Mount(str(static_program), "/.bai/init"),))
        assert (await bench.see(id)).state is ContainerState.RUNNING
        await bench.runtime.stop(id, "SIGTERM", 20)
        assert (await bench.see(id)).exit_code == 0
        await bench.runtime.remove(id)
    finally:
        await bench.runtime.remove_image(EMPTY)
    with pytest.raises(Failure):
        await bench.runtime.remove_image(EMPTY)


async def test_an_image_in_use_stays(bench: Any) -> None:
    await bench.run()
    with pytest.raises(Failure) as caught:
        await bench.runtime.remove_image(bench.image)
    assert caught.value.code == "conflict"


async def test_a_recipe_is_built(bench: Any) -> None:
    said: list[Progress] = []

    async def context(dockerfile: str) -> AsyncIterator[bytes]:
        buffer = io.BytesIO()
        with tarfile.open(mode="w", fileobj=buffer) as archive:
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(dockerfile)
            archive.addfile(info, io.BytesIO(dockerfile.encode()))
        yield buffer.getvalue()

    made = await bench.runtime.build_image(
        BUILT, context(f'FROM {bench.image}\nLABEL a=b\nWORKDIR /srv\nCMD ["echo", "built"]\n'), said.append)
    try:
        assert (made.command, made.labels["a"]) == (("echo", "built"), "b")
        assert any("STEP 1/4" in progress.text.upper() for progress in said)
        spec = bench.spec(image=made.name)
        id = await bench.run(image=made.name, name=spec.name, argv=())
        assert (await bench.output(id))[1] == b"built\n"
        with pytest.raises(Failure, match="could not be built") as caught:
            await bench.runtime.build_image(f"{BUILT}-broken", context(f"FROM {bench.image}\nRUN echo why; exit 3\n"), said.append)
        assert caught.value.code == "bad-image"
        assert "why" in caught.value.message
        await bench.runtime.remove(id)
    finally:
        await bench.runtime.remove_image(BUILT)


async def test_many_start_at_once(bench: Any) -> None:
    ids = await asyncio.gather(*(bench.run("true") for _ in range(30)))
    for id in ids:
        assert (await bench.ended(id)).exit_code == 0
    await asyncio.gather(*map(bench.runtime.remove, ids))


@pytest.fixture(scope="session")
def static_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static init, built as the agent builds it."""
    from backendai.agent.init import FLAGS, source

    program = tmp_path_factory.mktemp("init") / "init"
    program.parent.chmod(0o755)
    subprocess.run(["cc", *FLAGS, "-o", str(program), str(source())], check=True)
    return program
