"""Streams through a listening manager, with a played agent at their other end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from typing import Any

import aiohttp
import pytest
from backendai.manager import live, streams
from backendai.wire.frames import MAX_DATA, STDERR, STDOUT, Deframer, control, pack
from backendai.wire.link import KernelState, Observed, Report

MIB = 1024 * 1024
DATA = bytes(range(256)) * 4096 * 10  # 10 MiB
DEADLINE_S = 20.0


async def terminal(managed: Any, session: dict[str, Any], **start: Any) -> aiohttp.ClientWebSocketResponse:
    """Open a terminal as a client does."""
    head = {"Authorization": f"Bearer {managed.token}"}
    socket = await managed.http.ws_connect(f"{managed.url}/v1/sessions/{session['id']}/exec", headers=head, max_msg_size=0)
    await socket.send_str(control(start={"argv": ["cat"], **start}))
    return socket  # type: ignore[no-any-return]  # as aiohttp says


async def ask(managed: Any, method: str, path: str, **more: Any) -> tuple[int, bytes]:
    """Send a request and read its whole answer."""
    async with managed.http.request(method, managed.url + path, headers={"Authorization": f"Bearer {managed.token}"}, **more) as response:
        return response.status, await response.read()


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMsgType:
    """Wait until the other side has closed, whatever it says before."""
    async with asyncio.timeout(DEADLINE_S):
        while (message := await socket.receive()).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            pass
    return message.type


async def told(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """Return the next control that comes."""
    async with asyncio.timeout(DEADLINE_S):
        return json.loads(await socket.receive_str())  # type: ignore[no-any-return]  # a JSON object


async def test_a_terminal_passes_everything_both_ways(managed: Any) -> None:
    agent, session, order = await managed.running()
    client = await terminal(managed, session, argv=["bash", "-l"], env={"A": "b"}, tty=True, rows=24, columns=80, user="0:5")
    wanted, process = await agent.dial()
    assert wanted.verb == "exec" and wanted.arguments == {
        "kernel": order.kernel, "argv": ["bash", "-l"], "env": {"A": "b"}, "user": [0, 5], "workdir": None, "tty": True, "rows": 24,
        "columns": 80}
    await client.send_bytes(pack(0, b"ls\n"))
    await client.send_str(control(resize=[50, 100]))
    assert await process.receive_bytes() == pack(0, b"ls\n")
    assert await told(process) == {"resize": [50, 100]}
    await process.send_bytes(pack(1, b"a b\n"))
    await process.send_str(control(exit=7))
    assert await client.receive_bytes() == pack(1, b"a b\n")
    assert await told(client) == {"exit": 7}
    assert await close_of(client) is aiohttp.WSMsgType.CLOSE
    assert await close_of(process) is aiohttp.WSMsgType.CLOSE


async def test_ten_megabytes_pass_byte_for_byte_both_ways(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()

    async def echo() -> None:
        async for message in process:
            if message.type is aiohttp.WSMsgType.BINARY:
                await process.send_bytes(pack(1, message.data[1:]))
            elif "eof" in message.data:
                await process.send_str(control(exit=0))

    async def give() -> None:
        for i in range(0, len(DATA), 100_000):
            await client.send_bytes(pack(0, DATA[i : i + 100_000]))
        await client.send_str(control(eof=True))

    tasks = asyncio.create_task(echo()), asyncio.create_task(give())
    got = bytearray()
    async with asyncio.timeout(DEADLINE_S):
        async for message in client:
            if message.type is aiohttp.WSMsgType.BINARY:
                got += message.data[1:]
        await asyncio.gather(*tasks)
    assert hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()


async def test_the_end_of_input_leaves_the_output_open(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    await client.send_str(control(eof=True))
    assert await told(process) == {"eof": True}
    for i in range(3):
        await process.send_bytes(pack(STDERR, b"%d" % i))
        assert await client.receive_bytes() == pack(STDERR, b"%d" % i)
    await process.send_str(control(exit=0))
    assert await told(client) == {"exit": 0}


async def test_a_slow_reader_holds_the_writer_back(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    sent = 0

    async def write() -> None:
        nonlocal sent
        while sent < 400:
            await process.send_bytes(pack(1, bytes(MAX_DATA)))
            sent += 1
        await process.send_str(control(exit=0))

    writer = asyncio.create_task(write())
    at = -1
    while at != sent:  # until nothing moves for a while
        at = sent
        await asyncio.sleep(0.3)
    assert sent < 200, "100 MB were taken in with nobody reading"
    count = 0
    async with asyncio.timeout(DEADLINE_S):
        async for message in client:
            count += message.type is aiohttp.WSMsgType.BINARY
        await writer
    assert count == 400


async def test_what_a_slow_reader_has_not_read_yet_still_arrives(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 0.2)
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    pieces = 0

    async def write() -> None:
        nonlocal pieces
        while True:
            await process.send_bytes(pack(1, bytes(MAX_DATA)))
            pieces += 1

    writer = asyncio.create_task(write())
    await asyncio.wait([writer], timeout=1.0)  # by then every buffer on the way is full
    writer.cancel()
    last = asyncio.create_task(process.send_str(control(exit=0)))
    got = 0
    async with asyncio.timeout(DEADLINE_S):
        while (message := await client.receive()).type is aiohttp.WSMsgType.BINARY:
            got += 1
            if got == pieces - 2:
                await last
                await asyncio.wait([asyncio.create_task(close_of(process))])  # the manager has given its patience up
    assert json.loads(message.data) == {"exit": 0} and got in (pieces, pieces + 1)


async def test_an_agent_that_dies_in_the_middle_is_an_error(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    await process.send_bytes(pack(1, b"half"))
    assert await client.receive_bytes() == pack(1, b"half")
    process._response.connection.transport.abort()
    error = (await told(client))["error"]
    assert error["code"] == "unavailable" and "box" in error["message"]
    assert await close_of(client) is aiohttp.WSMsgType.CLOSE


async def test_a_slow_reader_learns_that_its_agent_has_died(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()

    async def write() -> None:
        while True:
            await process.send_bytes(pack(1, bytes(MAX_DATA)))

    writer = asyncio.create_task(write())
    await asyncio.wait([writer], timeout=1.0)  # by then every buffer on the way is full
    writer.cancel()
    process._response.connection.transport.abort()
    async with asyncio.timeout(DEADLINE_S):
        while (message := await client.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    assert json.loads(message.data)["error"]["code"] == "unavailable"


async def test_a_client_that_goes_away_ends_the_agents_side(managed: Any) -> None:
    agent, session, _ = await managed.running()
    for rude in (False, True):
        client = await terminal(managed, session)
        _, process = await agent.dial()
        if rude:
            client._response.connection.transport.abort()
        else:
            await client.close()
        assert await close_of(process) in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_the_agents_errors_reach_the_client(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    await process.send_str(control(error={"code": "runtime-fault", "message": "There is no bash."}))
    assert (await told(client))["error"] == {"code": "runtime-fault", "message": "There is no bash."}


@pytest.mark.parametrize(("first", "says"), [
    ("hello", "start"), ('{"stop": {}}', "start"), (control(start={"argv": []}), "argv"), (control(start={"argv": ["a\0"]}), "zero byte"),
    (control(start={"argv": ["a"], "user": "me"}), "UID"), (control(start={"argv": ["a"], "env": {"1": ""}}), "env")])
async def test_a_bad_start_is_explained(managed: Any, first: str, says: str) -> None:
    _, session, _ = await managed.running()
    head = {"Authorization": f"Bearer {managed.token}"}
    socket = await managed.http.ws_connect(f"{managed.url}/v1/sessions/{session['id']}/exec", headers=head)
    await socket.send_str(first)
    error = (await told(socket))["error"]
    assert error["code"] == "invalid-request" and says in error["message"]


async def test_only_the_owner_gets_in(managed: Any) -> None:
    agent, session, _ = await managed.running()
    other, outsider = await managed.user("eve"), await managed.outsider("mallory")
    for method, what in (("GET", "exec"), ("POST", "exec"), ("GET", "logs"), ("GET", "archive?path=/"), ("PUT", "archive?path=/")):
        body = {"argv": ["id"]} if method == "POST" else None
        await managed.call(method, f"/v1/sessions/{session['id']}/{what}", body, token=outsider, status=404)
        if what != "logs":  # which members of the project may read
            await managed.call(method, f"/v1/sessions/{session['id']}/{what}", body, token=other, status=403)
    mine = await managed.session(token=other, name="mine")
    await agent.runs(await agent.order("mine"))
    await managed.until(mine, "running")
    refused = await managed.call("POST", "/v1/sessions/mine/exec", {"argv": ["id"], "user": "0"}, token=other, status=403)
    assert "administrator" in refused["detail"]


async def test_a_session_that_does_not_run_says_so(managed: Any) -> None:
    session = await managed.session(name="early")
    for method, what in (("GET", "exec"), ("POST", "exec"), ("GET", "archive?path=/"), ("PUT", "archive?path=/")):
        body = {"argv": ["id"]} if method == "POST" else None
        refused = await managed.call(method, f"/v1/sessions/{session['id']}/{what}", body, status=409)
        assert "early is PENDING" in refused["detail"]


async def test_an_agent_that_is_away_is_said_to_be(managed: Any) -> None:
    agent, session, _ = await managed.running()
    await agent.socket.close()
    await managed.poll_agent("box", lambda shown: not shown["connected"])
    refused = await managed.call("POST", f"/v1/sessions/{session['id']}/exec", {"argv": ["id"]}, status=503)
    assert "not connected" in refused["detail"]


async def test_an_agent_that_does_not_dial_back_is_said_to(managed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DIAL_S", 0.1)
    agent, session, _ = await managed.running()
    refused = await managed.call("POST", f"/v1/sessions/{session['id']}/exec", {"argv": ["id"]}, status=503)
    assert "did not dial back" in refused["detail"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as late:
        await agent.dial()
    assert late.value.status == 404, "nobody waits any more"


async def test_only_an_agent_may_dial_back(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    wanted = await agent.opened.get()
    for head in ({}, {"Authorization": f"Bearer {managed.token}"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await managed.http.ws_connect(f"{managed.url}/v1/link/streams/{wanted.stream}", headers=head)
        assert refused.value.status in (401, 403)
    process = await agent.dial_in(f"/v1/link/streams/{wanted.stream}")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await agent.dial_in(f"/v1/link/streams/{wanted.stream}")
    await process.send_str(control(exit=0))
    assert await told(client) == {"exit": 0}


async def test_a_plain_command_answers_with_what_it_wrote(managed: Any) -> None:
    agent, session, _ = await managed.running()
    asked = asyncio.create_task(managed.call("POST", f"/v1/sessions/{session['id']}/exec", {"argv": ["cat"], "stdin": "in"}, status=200))
    wanted, process = await agent.dial()
    assert wanted.arguments["argv"] == ["cat"] and not wanted.arguments["tty"]
    assert await process.receive_bytes() == pack(0, b"in")
    assert await told(process) == {"eof": True}
    for piece in (pack(1, b"out\xff"), pack(2, b"err"), pack(1, b"!")):
        await process.send_bytes(piece)
    await process.send_str(control(exit=3))
    assert await asked == {"exit_code": 3, "stdout": "out\ufffd!", "stderr": "err"}


async def test_a_plain_command_has_a_deadline_and_a_limit(managed: Any) -> None:
    agent, session, _ = await managed.running()
    path = f"/v1/sessions/{session['id']}/exec"
    late = asyncio.create_task(managed.call("POST", path, {"argv": ["sleep"], "timeout_s": 0.3}, status=504))
    _, process = await agent.dial()
    assert await told(process) == {"eof": True} and await told(process) == {"signal": "SIGKILL"}
    assert "was killed" in (await late)["detail"]
    much = asyncio.create_task(managed.call("POST", path, {"argv": ["yes"]}, status=413))
    _, process = await agent.dial()
    for _ in range(9):
        for _ in range(MIB // MAX_DATA):
            await process.send_bytes(pack(1, bytes(MAX_DATA)))
    assert "WebSocket" in (await much)["detail"]
    await managed.call("POST", path, {"argv": ["yes"], "timeout_s": 1e9}, status=400)


async def test_logs_come_as_frames_and_as_text(managed: Any) -> None:
    agent, session, order = await managed.running()
    for kind in ("frames", "text"):
        asked = asyncio.create_task(ask(managed, "GET", f"/v1/sessions/{session['id']}/logs?tail=5&format={kind}"))
        wanted, source = await agent.dial()
        assert wanted.verb == "logs" and wanted.arguments == {"kernel": order.kernel, "follow": False, "tail": 5}
        for piece in ((STDOUT, b"a\n"), (STDERR, b"b\n"), (STDOUT, b"c\n")):
            await source.send_bytes(pack(*piece))
        await source.send_str(control(done=True))
        status, body = await asked
        assert status == 200
        if kind == "text":
            assert body == b"a\nb\nc\n"
        else:
            assert list(Deframer().feed(body)) == [(STDOUT, b"a\n"), (STDERR, b"b\n"), (STDOUT, b"c\n")]


async def test_following_waits_for_a_session_that_has_not_started(managed: Any) -> None:
    session = await managed.session(name="later")
    asked = asyncio.create_task(ask(managed, "GET", "/v1/sessions/later/logs?follow=true&format=text"))
    agent = managed.player("box")
    await agent.connect()
    await agent.runs(await agent.order("later"))
    wanted, source = await agent.dial()
    assert wanted.arguments["follow"] is True
    await source.send_bytes(pack(STDOUT, b"x" * MIB))
    await source.send_str(control(done=True))
    assert await asked == (200, b"x" * MIB)
    assert (await managed.until(session, "running"))["state"] == "RUNNING"


async def test_the_logs_of_what_never_ran_are_empty(managed: Any) -> None:
    session = await managed.session(name="never")
    assert await ask(managed, "GET", "/v1/sessions/never/logs") == (200, b"")
    follower = asyncio.create_task(ask(managed, "GET", "/v1/sessions/never/logs?follow"))
    await managed.call("POST", "/v1/sessions/never/stop", status=200)
    assert (await managed.until(session, "final"))["state"] == "CANCELLED"
    assert await follower == (200, b"")


async def test_logs_of_an_ended_session_come_from_its_agent(managed: Any) -> None:
    agent, session, order = await managed.running()
    await agent.ends(order)
    await managed.until(session, "final")
    asked = asyncio.create_task(ask(managed, "GET", f"/v1/sessions/{session['id']}/logs?follow=true&format=text"))
    _, source = await agent.dial()
    await source.send_bytes(pack(STDOUT, b"all\n"))
    await source.send_str(control(done=True))
    assert await asked == (200, b"all\n")


async def test_logs_that_break_off_are_no_end(managed: Any) -> None:
    agent, session, _ = await managed.running()
    got = bytearray()

    async def read() -> None:
        head = {"Authorization": f"Bearer {managed.token}"}
        async with managed.http.get(f"{managed.url}/v1/sessions/{session['id']}/logs?follow=true", headers=head) as response:
            async for data in response.content.iter_any():
                got.extend(data)

    reader = asyncio.create_task(read())
    _, source = await agent.dial()
    await source.send_bytes(pack(STDOUT, b"so far"))
    await source.close()
    with pytest.raises(aiohttp.ClientPayloadError):
        await reader
    frames = list(Deframer().feed(bytes(got)))
    assert frames[0] == (STDOUT, b"so far")
    assert frames[1][0] == STDERR and b"went away" in frames[1][1]


async def test_a_log_reader_that_goes_away_ends_the_agents_side(managed: Any) -> None:
    agent, session, _ = await managed.running()
    asked = asyncio.create_task(ask(managed, "GET", f"/v1/sessions/{session['id']}/logs?follow=true"))
    _, source = await agent.dial()
    asked.cancel()
    assert await close_of(source) is aiohttp.WSMsgType.CLOSE


async def test_an_archive_is_read_and_written(managed: Any) -> None:
    agent, session, order = await managed.running()
    path = f"/v1/sessions/{session['id']}/archive?path=/home/work"
    asked = asyncio.create_task(ask(managed, "GET", path))
    wanted, source = await agent.dial()
    assert wanted.verb == "get" and wanted.arguments == {"kernel": order.kernel, "path": "/home/work"}
    for i in range(0, len(DATA), MAX_DATA):
        await source.send_bytes(pack(1, DATA[i : i + MAX_DATA]))
    await source.send_str(control(done=True))
    assert await asked == (200, DATA)

    asked = asyncio.create_task(ask(managed, "PUT", path, data=io.BytesIO(DATA)))
    wanted, sink = await agent.dial()
    assert wanted.verb == "put"
    got = bytearray()
    async for message in sink:
        if message.type is aiohttp.WSMsgType.BINARY:
            got += message.data[1:]
        else:
            assert message.data == control(eof=True)
            await sink.send_str(control(done=True))
    assert got == DATA
    assert await asked == (204, b"")


async def test_what_an_agent_cannot_read_or_write_is_an_error(managed: Any) -> None:
    agent, session, _ = await managed.running()
    path = f"/v1/sessions/{session['id']}/archive?path=/none"
    for method, body in (("GET", None), ("PUT", io.BytesIO(DATA))):
        asked = asyncio.create_task(ask(managed, method, path, data=body))
        _, other = await agent.dial()
        await other.send_str(control(error={"code": "not-found", "message": "There is no /none."}))
        await other.close()
        status, said = await asked
        assert status == 404 and b"There is no /none." in said
    await managed.call("GET", f"/v1/sessions/{session['id']}/archive", status=400)


async def test_an_archive_that_breaks_off_is_no_end(managed: Any) -> None:
    agent, session, _ = await managed.running()
    asked = asyncio.create_task(ask(managed, "GET", f"/v1/sessions/{session['id']}/archive?path=/"))
    _, source = await agent.dial()
    await source.send_bytes(pack(1, b"half"))
    await source.close()
    with pytest.raises(aiohttp.ClientPayloadError):
        await asked


async def test_an_upload_that_breaks_off_has_no_end_for_the_agent(managed: Any) -> None:
    agent, session, _ = await managed.running()
    never = asyncio.Event()

    async def half() -> Any:
        yield b"half"
        await never.wait()

    asked = asyncio.create_task(ask(managed, "PUT", f"/v1/sessions/{session['id']}/archive?path=/", data=half()))
    _, sink = await agent.dial()
    assert await sink.receive_bytes() == pack(0, b"half")
    asked.cancel()
    async with asyncio.timeout(DEADLINE_S):
        assert (await sink.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_stopping_the_manager_ends_streams_and_waits(managed: Any) -> None:
    agent, session, _ = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    await managed.session(name="waits", slots={"cpu": 64})
    follower = asyncio.create_task(ask(managed, "GET", "/v1/sessions/waits/logs?follow=true&format=text"))
    reader = asyncio.create_task(ask(managed, "GET", f"/v1/sessions/{session['id']}/logs?follow=true"))
    _, source = await agent.dial()
    await source.send_bytes(pack(1, b"so far"))
    await managed.poll(lambda: managed.context.bus._waiting)
    async with asyncio.timeout(DEADLINE_S):
        await managed.stop()
    assert await close_of(client) and await close_of(process)
    for ended in (follower, reader):
        with pytest.raises(aiohttp.ClientPayloadError):
            await ended
    await managed.poll(lambda: all(end.done() for end in managed.ends.values()))


async def test_a_late_reporter_cannot_disturb_a_stream(managed: Any) -> None:
    agent, session, order = await managed.running()
    client = await terminal(managed, session)
    _, process = await agent.dial()
    await agent.connect(kernels=(Observed(order.kernel, KernelState.RUNNING, started_at=1.0),))
    await agent.say(Report(1, ()))
    await process.send_bytes(pack(1, b"still here"))
    assert await client.receive_bytes() == pack(1, b"still here"), "streams outlive the link that asked for them"
