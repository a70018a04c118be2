"""The life of a container, from creation to removal."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import ContainerState, DeviceNode, Edits, Event, Mount
from backendai_runtime_sandbox.box import LOST, Box
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
from sandbox_inside import PATIENCE_S, eventually, get, idle, output, run, spec, until, vanished

pytestmark = pytest.mark.system


async def test_output_and_exit_code_arrive(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "echo out; echo err >&2; exit 7")
    assert (outcome.out, outcome.err, outcome.code) == ("out\n", "err\n", 7)
    assert outcome.container.started_at and outcome.container.ended_at
    assert not outcome.container.out_of_memory


async def test_ten_megabytes_arrive_byte_for_byte(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("head -c 10000000 /dev/zero | tr '\\0' x; head -c 1000 /dev/zero | tr '\\0' y"))
    await sandbox.start(id)
    out, _ = await output(sandbox, id)
    assert hashlib.sha256(out).digest() == hashlib.sha256(b"x" * 10_000_000 + b"y" * 1000).digest()


async def test_logs_go_on_from_any_piece(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.01; done"))
    await sandbox.start(id)
    await until(sandbox, id, ContainerState.EXITED)
    every = [chunk async for chunk in sandbox.logs(id, 0, False)]
    assert len(every) > 2
    for index, chunk in enumerate(every):
        rest = [later async for later in sandbox.logs(id, chunk.next, False)]
        assert b"".join(c.data for c in rest) == b"".join(c.data for c in every[index + 1:])


@pytest.mark.parametrize(("script", "code"), [("kill -9 $$; sleep 9", 137), ("sh -c 'kill -TERM $$'; exit $?", 143)])
async def test_death_by_a_signal_is_told(sandbox: Sandbox, script: str, code: int) -> None:
    if script.startswith("kill"):  # the first process is shielded from its own signals, so it is killed from outside
        id = await idle(sandbox)
        os.kill((await get(sandbox, id)).pid or 0, signal.SIGKILL)
        assert (await until(sandbox, id, ContainerState.EXITED)).exit_code == code
    else:
        assert (await run(sandbox, script)).code == code


async def test_a_command_that_is_not_there_fails_at_start(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("", argv=("nonesuch",)))
    with pytest.raises(Failure, match="nonesuch cannot be run: No such file") as caught:
        await sandbox.start(id)
    assert caught.value.code == "runtime-fault"
    container = await get(sandbox, id)
    assert container.state is ContainerState.CREATED
    assert "nonesuch" in container.error


async def test_every_step_may_be_repeated(sandbox: Sandbox) -> None:
    asked = spec("echo once")
    id = await sandbox.create(asked)
    assert await sandbox.create(asked) == id
    await asyncio.gather(*(sandbox.start(id) for _ in range(4)))
    await until(sandbox, id, ContainerState.EXITED)
    await sandbox.start(id)
    assert (await output(sandbox, id))[0] == b"once\n"
    await sandbox.stop(id, "SIGTERM", 1)
    await sandbox.remove(id)
    await sandbox.remove(id)
    await sandbox.stop(id, "SIGTERM", 1)


async def test_stop_lets_it_end_by_itself(sandbox: Sandbox) -> None:
    id = await idle(sandbox)
    await sandbox.stop(id, "SIGTERM", PATIENCE_S)
    assert (await get(sandbox, id)).exit_code == 9


async def test_stop_kills_what_does_not_listen(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("trap '' TERM; echo ready; while :; do sleep 1; done"))
    await sandbox.start(id)
    await sandbox.stop(id, "SIGTERM", 0.2)
    assert (await get(sandbox, id)).exit_code == 137


async def test_remove_kills_what_runs(sandbox: Sandbox) -> None:
    id = await idle(sandbox)
    pid = (await get(sandbox, id)).pid or 0
    await sandbox.remove(id)
    assert await vanished(pid)
    assert not await sandbox.list({})


async def test_list_goes_by_labels(sandbox: Sandbox) -> None:
    one = await sandbox.create(spec("true", labels={"a": "1", "b": "1"}))
    two = await sandbox.create(spec("true", labels={"a": "1", "b": "2"}))
    assert {c.id for c in await sandbox.list({"a": "1"})} == {one, two}
    assert {c.id for c in await sandbox.list({"a": "1", "b": "2"})} == {two}
    assert {c.id for c in await sandbox.list({"a": "2"})} == set()


async def test_events_tell_of_starts_and_ends(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("read line < /home/work/go", labels={"mine": "1"}))
    seen = []
    async with asyncio.timeout(PATIENCE_S), aclosing(cast(AsyncGenerator[Event, None], sandbox.events({"mine": "1"}))) as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        other = await sandbox.create(spec("true"))
        for one in (other, id):
            await sandbox.start(one)
        seen.append(await waiting)
        seen.append(await anext(events)) if seen[-1].state is ContainerState.RUNNING else None
    assert {event.container for event in seen} == {id}
    assert seen[-1].state is ContainerState.EXITED


async def test_a_container_outlives_its_sandbox(sandbox: Sandbox, root: Path) -> None:
    id = await sandbox.create(spec("echo before; read x < pipe; echo after; exit 5", mounts=(_work(root),)))
    os.mkfifo(root / "work" / "pipe")
    (root / "work" / "pipe").chmod(0o666)
    await sandbox.start(id)
    await sandbox.teardown()
    again = Sandbox(Config(state_dir=str(root)))
    assert (await get(again, id)).state is ContainerState.RUNNING
    await asyncio.to_thread((root / "work" / "pipe").write_text, "go\n")
    assert (await output(again, id))[0] == b"before\nafter\n"
    assert (await get(again, id)).exit_code == 5
    await again.teardown()


def _work(root: Path) -> Mount:
    (root / "work").mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(root / "work", 1000, 1000)
    return Mount(str(root / "work"), "/home/work", readonly=False)


async def test_a_killed_shim_takes_its_container_along(sandbox: Sandbox, root: Path) -> None:
    id = await idle(sandbox)
    pid = (await get(sandbox, id)).pid or 0
    shim = Box(root / "containers" / id).shim()
    assert shim
    os.kill(shim, signal.SIGKILL)
    container = await until(sandbox, id, ContainerState.EXITED)
    assert (container.exit_code, container.error) == (None, LOST)
    await eventually(lambda: vanished(pid))


async def test_mounts_and_environment(sandbox: Sandbox, root: Path) -> None:
    work = _work(root)
    (root / "file").write_text("content\n")
    outcome = await run(
        sandbox, "cat /data/a/file; echo $A $B; pwd; hostname; touch mine; touch /data/a/file || exit 3", env={"A": "1"}, hostname="sub2",
        edits=Edits(env={"B": "ü"}), mounts=(work, Mount(str(root / "file"), "/data/a/file")))
    assert outcome.out == "content\n1 ü\n/home/work\nsub2\n"
    assert (root / "work" / "mine").exists()
    assert outcome.code == 3


async def test_devices(sandbox: Sandbox) -> None:
    devices = (DeviceNode("/dev/zero", "/dev/mine"), DeviceNode("/dev/full", "/dev/theirs", "r"))
    script = "head -c 3 /dev/mine | wc -c; echo > /dev/mine || exit 2; ls -d /sys/class; touch /sys/class/x 2>&1; exit 0"
    outcome = await run(sandbox, script, edits=Edits(devices=devices))
    assert outcome.out.splitlines()[:2] == ["3", "/sys/class"], outcome
    assert "Read-only" in outcome.out


async def test_read_only_root(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "touch /tmp/a && touch a && ! touch /new && ! touch /srv/new", read_only_root=True)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("fields", [
    {"mounts": (Mount("/nonesuch", "/data"),)}, {"mounts": (Mount("/usr", "relative"),)}, {"network": "host"}, {"argv": ()},
    {"edits": Edits(caps=("CAP_SYS_ADMIN",))}, {"name": "../up"}, {"name": ""}, {"workdir": "relative"}, {"argv": ("a\ud800",)},
    {"edits": Edits(devices=(DeviceNode("/dev/null", "null"),))}, {"image": "nonesuch"}, {"workdir": "/proc/1/fd/nonesuch"},
])
async def test_what_cannot_be_is_refused_with_a_sentence(sandbox: Sandbox, fields: dict[str, object]) -> None:
    with pytest.raises(Failure) as caught:
        await sandbox.start(await sandbox.create(spec("true", **fields)))
    assert caught.value.message.endswith((".", ")"))


async def test_output_is_kept_up_to_a_limit(root: Path) -> None:
    sandbox = Sandbox(Config(state_dir=str(root), log_limit=100_000))
    outcome = await run(sandbox, "head -c 5000000 /dev/zero | tr '\\0' x; exit 4")
    assert outcome.code == 4
    assert 100_000 <= len(outcome.out) < 300_000
    await sandbox.teardown()


async def test_a_removed_container_ends_its_followers(sandbox: Sandbox) -> None:
    id = await idle(sandbox)

    async def follow() -> None:
        async for _ in sandbox.logs(id, 0, True):
            pass

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await asyncio.sleep(0)
        await sandbox.remove(id)


async def test_what_was_left_half_made_is_cleared_away(sandbox: Sandbox, root: Path) -> None:
    id = await sandbox.create(spec("true"))
    await sandbox.teardown()
    (root / "containers" / id).rename(root / "containers" / f".gone-{id}")
    (root / "containers" / ".new-other" / "layer").mkdir(parents=True)
    again = Sandbox(Config(state_dir=str(root)))
    assert not await again.list({})
    assert not await asyncio.to_thread(lambda: list((root / "containers").iterdir()))
    await again.teardown()


async def test_a_hundred_at_once(sandbox: Sandbox) -> None:
    async def one(number: int) -> tuple[str, int | None]:
        outcome = await run(sandbox, f"echo {number}; exit {number}")
        return outcome.out, outcome.code

    assert await asyncio.gather(*map(one, range(100))) == [(f"{number}\n", number) for number in range(100)]
