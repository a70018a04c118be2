"""Images on played agents."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from backendai.wire.frames import control, pack


async def lines(managed: Any, path: str, **more: Any) -> list[dict[str, Any]]:
    """Send a request and return its answer's lines."""
    async with managed.http.post(managed.url + path, headers={"Authorization": f"Bearer {managed.token}"}, **more) as response:
        text = await response.text()
        assert response.content_type == "application/x-ndjson", text
    return [json.loads(line) for line in text.splitlines()]


async def two(managed: Any, **hello: Any) -> list[Any]:
    agents = [managed.player("one"), managed.player("two")]
    for agent in agents:
        await agent.connect(**hello)
    return agents


async def test_images_are_listed_agent_by_agent(managed: Any) -> None:
    agents = await two(managed)
    asked = asyncio.create_task(managed.call("GET", "/v1/images", status=200))
    for agent in agents:
        wanted, socket = await agent.dial()
        assert wanted.verb == "images"
        if agent.name == "one":
            await socket.send_str(control(images=[{"name": "a:1", "id": "x", "size": 5, "created_at": None, "command": [], "labels": {}}]))
            await socket.send_str(control(done=True))
        else:
            await socket.send_str(control(error={"code": "unsupported", "message": "It cannot."}))
    listed = await asked
    assert [(row["name"], row["agent"]) for row in listed["items"]] == [("a:1", "one")] and listed["silent"] == {"two": "It cannot."}


async def test_a_pull_tells_its_progress_and_its_end(managed: Any) -> None:
    agents = await two(managed)
    asked = asyncio.create_task(lines(managed, "/v1/images/pull", json={"image": "python:3.12"}))
    for agent in agents:
        wanted, socket = await agent.dial()
        assert wanted.verb == "pull" and wanted.arguments == {"image": "python:3.12"}
        await socket.send_str(control(progress={"text": "half", "done": 1, "total": 2}))
        await socket.send_str(control(done=True))
    told = await asked
    assert {line["agent"] for line in told[:-1]} == {"one", "two"} and told[0]["progress"]["text"] == "half"
    assert told[-1] == {"done": True, "agents": ["one", "two"]}


async def test_a_pull_that_fails_somewhere_ends_with_an_error(managed: Any) -> None:
    agents = await two(managed)
    asked = asyncio.create_task(lines(managed, "/v1/images/pull", json={"image": "python:3.12"}))
    _, socket = await agents[0].dial()
    await socket.send_str(control(done=True))
    _, socket = await agents[1].dial()
    await socket.send_str(control(error={"code": "bad-image", "message": "There is no such image."}))
    assert (await asked)[-1] == {"error": {"code": "bad-image", "message": "two: There is no such image."}}


async def test_only_agents_that_can_are_asked(managed: Any) -> None:
    one, two_ = managed.player("one"), managed.player("two")
    await one.connect(features=())
    refused = await managed.call("POST", "/v1/images/pull", {"image": "a"}, status=501)
    assert "can pull" in refused["detail"]
    await two_.connect()
    asked = asyncio.create_task(lines(managed, "/v1/images/pull", json={"image": "a"}))
    _, socket = await two_.dial()
    await socket.send_str(control(done=True))
    assert (await asked)[-1]["agents"] == ["two"] and one.opened.empty()


async def test_a_build_gives_every_agent_the_same_bytes(managed: Any) -> None:
    agents = await two(managed)
    data = bytes(range(256)) * 4096
    asked = asyncio.create_task(lines(managed, "/v1/images/build?name=mine:1", data=data))
    sockets = [(await agent.dial())[1] for agent in agents]

    async def read(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        got = bytearray()
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                assert message.data[:1] == b"\0"
                got += message.data[1:]
            else:
                await socket.send_str(control(progress={"text": "step 1", "done": None, "total": None}))
                await socket.send_str(control(done=True))
        return bytes(got)

    assert await asyncio.gather(*map(read, sockets)) == [data, data]
    told = await asked
    assert told[-1]["done"] and {"agent": "one", "progress": {"text": "step 1", "done": None, "total": None}} in told


async def test_a_build_that_fails_on_one_agent_goes_on_on_the_other(managed: Any) -> None:
    agents = await two(managed)
    asked = asyncio.create_task(lines(managed, "/v1/images/build?name=mine:1", data=bytes(1 << 20)))
    sockets = [(await agent.dial())[1] for agent in agents]
    await sockets[0].send_str(control(error={"code": "bad-image", "message": "Line 3."}))
    await sockets[0].close()
    while (message := await sockets[1].receive()).type is aiohttp.WSMsgType.BINARY:
        assert message.data[:1] == pack(0, b"")
    await sockets[1].send_str(control(done=True))
    assert (await asked)[-1] == {"error": {"code": "bad-image", "message": "one: Line 3."}}


async def test_images_are_changed_by_administrators_only(managed: Any) -> None:
    token = await managed.user("eve")
    await managed.call("POST", "/v1/images/pull", {"image": "a"}, token=token, status=403)
    await managed.call("POST", "/v1/images/build?name=a", token=token, status=403)
    await managed.call("POST", "/v1/images/pull", {"image": "a"}, status=503)
    await managed.call("POST", "/v1/images/pull", {"image": "A B"}, status=422)
