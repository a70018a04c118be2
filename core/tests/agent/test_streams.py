"""Conversations that the agent dials back for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from backendai.wire.frames import control, pack, unpack
from backendai.wire.link import KernelState


@pytest.fixture
async def running(world: Any) -> AsyncIterator[Any]:
    """A world in which kernel 1 runs."""
    async with world.agent() as handle:
        await handle.joined()
        world.handle = handle
        await world.manager.put(world.order(1, "say", "a\nb\nc\n"))
        await world.manager.until_state(KernelState.RUNNING, world.order(1))
        world.kernel = world.order(1).kernel
        yield world


async def hear(socket: web.WebSocketResponse) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Return all of both outputs and every control, up to the end."""
    out: dict[int, bytes] = {1: b"", 2: b""}
    controls = []
    async with asyncio.timeout(20):
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                controls.append(json.loads(message.data))
            else:
                channel, data = unpack(message.data)
                out[channel] += data
    return out[1], out[2], controls


async def test_exec_carries_input_output_size_and_the_exit_code(running: Any) -> None:
    socket = await running.manager.open("exec", kernel=running.kernel, argv=["sh"], tty=True, rows=24, columns=80)
    await socket.send_bytes(pack(0, b"hello "))
    await socket.send_str(control(resize=[30, 100]))
    await socket.send_str(control(signal="SIGINT"))
    await socket.send_str(control(eof=True))
    assert await hear(socket) == (b"24x80HELLO 30x100", b"", [{"exit": 5}])
    assert running.runtime.execs[0].said == ["24x80", "30x100", "SIGINT", "closed"]


async def test_a_terminal_whose_client_went_is_hung_up(running: Any) -> None:
    socket = await running.manager.open("exec", kernel=running.kernel, argv=["sh"], tty=True)
    await socket.close()
    await running.poll(lambda: running.runtime.execs and running.runtime.execs[0].said == ["SIGHUP", "closed"])


async def test_exec_in_what_does_not_run_is_a_conflict(running: Any) -> None:
    socket = await running.manager.open("exec", kernel="nobody", argv=["sh"])
    assert (await hear(socket))[2][0]["error"]["code"] == "conflict"


async def test_logs_can_be_tailed_followed_and_read_afterwards(running: Any) -> None:
    await running.poll(lambda: running.handle.reconciler.kernels[running.kernel].output.next == 1)
    assert await hear(await running.manager.open("logs", kernel=running.kernel)) == (b"a\nb\nc\n", b"", [{"done": True}])
    assert (await hear(await running.manager.open("logs", kernel=running.kernel, tail=1)))[0] == b"c\n"
    following = await running.manager.open("logs", kernel=running.kernel, follow=True)
    box = running.engine.of(running.kernel)
    box.say(b"d", 2)
    running.engine.end(box, 0)
    assert await hear(following) == (b"a\nb\nc\n", b"d", [{"done": True}])
    await running.manager.until_state(KernelState.GONE, running.order(1))
    await running.manager.drop(running.kernel)
    await running.poll(lambda: not running.handle.reconciler.kernels)
    assert (await hear(await running.manager.open("logs", kernel=running.kernel, follow=True)))[0] == b"a\nb\nc\n"
    assert (await hear(await running.manager.open("logs", kernel="nobody")))[2][0]["error"]["code"] == "not-found"


async def test_a_follower_that_goes_is_noticed_while_nothing_is_said(running: Any) -> None:
    socket = await running.manager.open("logs", kernel=running.kernel, follow=True)
    await socket.close()
    await running.poll(lambda: not running.handle.streams.tasks)


async def test_an_archive_goes_in_and_comes_out(running: Any) -> None:
    data = bytes(range(256)) * 4096
    socket = await running.manager.open("put", kernel=running.kernel, path="/home/work/x")
    for i in range(0, len(data), 100_000):
        await socket.send_bytes(pack(0, data[i : i + 100_000]))
    await socket.send_str(control(eof=True))
    assert (await hear(socket))[2] == [{"done": True}]
    assert await hear(await running.manager.open("get", kernel=running.kernel, path="/home/work/x")) == (data, b"", [{"done": True}])
    missing = await hear(await running.manager.open("get", kernel=running.kernel, path="/nowhere"))
    assert missing[2] == [{"error": {"code": "not-found", "message": "There is no /nowhere in the container."}}]


async def test_an_archive_that_breaks_off_is_not_taken_for_whole(running: Any) -> None:
    socket = await running.manager.open("put", kernel=running.kernel, path="/home/work/x")
    await socket.send_bytes(pack(0, b"half"))
    await socket.close()
    await running.poll(lambda: not running.handle.streams.tasks)
    assert running.runtime.archives == {}


async def test_a_port_is_dialled_and_each_direction_ends_by_itself(running: Any) -> None:
    socket = await running.manager.open("dial", kernel=running.kernel, port=80)
    await socket.send_bytes(pack(0, b"ping"))
    await socket.send_str(control(eof=True))
    assert await hear(socket) == (b"ping", b"", [{"eof": True}, {"done": True}])


async def test_images_are_listed_pulled_and_what_the_runtime_cannot_do_is_said(running: Any) -> None:
    listed = (await hear(await running.manager.open("images")))[2]
    assert listed[0]["images"][0]["name"] == "toy:latest" and listed[1] == {"done": True}
    pulled = (await hear(await running.manager.open("pull", image="x")))[2]
    assert pulled == [{"progress": {"text": "Fetching, 1m of 4m", "done": 1 << 20, "total": 4 << 20}}, {"done": True}]
    assert (await hear(await running.manager.open("pull", image="missing")))[2][-1]["error"]["code"] == "bad-image"
    assert (await hear(await running.manager.open("remove-image", image="x")))[2][0]["error"]["code"] == "unsupported"
    assert (await hear(await running.manager.open("juggle")))[2][0]["error"]["code"] == "invalid-request"
