"""Streams that last longer than what their reader may do: they end, and say why."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from backendai.wire.frames import control, pack, read_control

DEADLINE_S = 10.0
WAYS = {
    "taken out of the project": ("DELETE", "/v1/projects/lab/members/ada", None),
    "made a viewer": ("PUT", "/v1/projects/lab/members/ada", {"role": "viewer"}),
    "deactivated": ("DELETE", "/v1/users/ada", None),
    "token revoked": ("DELETE", "/v1/tokens/{token}", None),
}


async def setting(managed: Any) -> tuple[str, str, Any, Any]:
    """Return ada's token and its id, and a session of hers in the project lab that runs, with its agent."""
    await managed.call("POST", "/v1/projects", {"name": "lab"}, status=201)
    await managed.call("POST", "/v1/users", {"name": "ada", "project": "lab"}, status=201)
    made = await managed.call("POST", "/v1/tokens", {"name": "t", "user": "ada"}, status=201)
    agent = managed.player("box")
    await agent.connect()
    session = await managed.session(token=made["token"], name="mine")
    await agent.runs(await agent.order("mine"))
    await managed.until(session, "running")
    return made["token"], made["id"], session, agent


async def terminal(managed: Any, token: str, session: Any) -> Any:
    socket = await managed.http.ws_connect(f"{managed.url}/v1/sessions/{session['id']}/exec", headers={"Authorization": f"Bearer {token}"})
    await socket.send_str(control(start={"argv": ["sh"]}))
    return socket


@pytest.mark.parametrize("way", WAYS)
async def test_a_terminal_ends_when_its_user_may_not_be_there_any_more(managed: Any, way: str) -> None:
    token, id, session, agent = await setting(managed)
    client = await terminal(managed, token, session)
    _, process = await agent.dial()
    await process.send_bytes(pack(1, b"$ "))
    assert await client.receive_bytes() == pack(1, b"$ ")
    method, path, body = WAYS[way]
    await managed.call(method, path.format(token=id), body)
    async with asyncio.timeout(DEADLINE_S):
        said = read_control(await client.receive_str())["error"]
        assert said["code"] in ("forbidden", "unauthenticated"), said
        assert (await client.receive()).type is aiohttp.WSMsgType.CLOSE
        while (await process.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            pass  # the agent's side ends, too, and with it the command


async def test_what_does_not_concern_a_terminal_leaves_it_alone(managed: Any) -> None:
    token, _, session, agent = await setting(managed)
    client = await terminal(managed, token, session)
    _, process = await agent.dial()
    await process.send_bytes(pack(1, b"1"))
    assert await client.receive_bytes() == pack(1, b"1")
    await managed.user("eve")
    await managed.call("PUT", "/v1/projects/lab/members/eve", {}, status=200)
    await managed.call("DELETE", "/v1/projects/lab/members/eve", status=204)
    await process.send_bytes(pack(1, b"2"))
    async with asyncio.timeout(DEADLINE_S):
        assert await client.receive_bytes() == pack(1, b"2")
    await process.send_str(control(exit=0))
    assert read_control(await client.receive_str()) == {"exit": 0}


async def test_logs_end_with_the_token_s_time(managed: Any) -> None:
    _, _, session, agent = await setting(managed)
    short = await managed.call("POST", "/v1/tokens", {"name": "s", "user": "ada", "expires_in_s": 0.6}, status=201)
    head = {"Authorization": f"Bearer {short['token']}"}
    async with managed.http.get(f"{managed.url}/v1/sessions/{session['id']}/logs?follow=true&format=text", headers=head) as response:
        _, process = await agent.dial()
        await process.send_bytes(pack(1, b"line"))
        got = b""
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(aiohttp.ClientPayloadError):
                async for piece in response.content.iter_any():
                    got += piece
    assert got.startswith(b"line") and b"expired" in got


async def test_events_end_for_who_may_not_hear_them(managed: Any) -> None:
    await managed.user("ada")
    second = await managed.user("second", "superadmin")
    head = {"Authorization": f"Bearer {second}"}
    async with managed.http.get(f"{managed.url}/v1/events", headers=head) as response:
        await response.content.readline()
        await managed.call("PATCH", "/v1/users/second", {"role": "user"}, status=200)
        await managed.user("hidden")
        await managed.call("PATCH", "/v1/users/second", {"email": "a@b.c"}, status=200)
        text = b""
        async with asyncio.timeout(DEADLINE_S):
            while b"email" not in text:
                text += await response.content.readany()
        assert b"hidden" not in text
        await managed.call("DELETE", "/v1/users/second", status=204)
        await managed.user("after")
        async with asyncio.timeout(DEADLINE_S):
            assert b"after" not in await response.content.read(), "it has ended"
