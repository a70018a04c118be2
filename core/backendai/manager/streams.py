"""What a user streams from a session: terminals, commands, output and files. The agent dials back, and this end splices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
from aiohttp import WSMsgType, web
from sqlalchemy import Row, select

from backendai.manager import image_streams
from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.answering import CLOSE_S, Handler, begin, body, break_off, counted_handler, keep_alive, while_feeding
from backendai.manager.context import Context
from backendai.manager.guard import guarded
from backendai.manager.held import MAIN
from backendai.manager.live import Conversation
from backendai.manager.operations.asking import check_env
from backendai.manager.operations.registry import Input, invalid
from backendai.manager.operations.streams import STREAMS, TAR, ArchiveQuery, Exec, LogsQuery
from backendai.manager.rest import read_json, read_query
from backendai.manager.store.schema import kernels
from backendai.manager.store.sessions import find_session
from backendai.model.errors import Failure
from backendai.model.session import FINAL, SessionState
from backendai.model.views import Ran
from backendai.wire import frames
from backendai.wire.frames import FRAMES_TYPE, MAX_DATA, STDERR, STDOUT, control, frame, read_control, unpack

PATIENCE_S = 30.0  # for a slow reader to read what is left, and to answer the close
START_S = 30.0  # from a terminal's connection to its start message
MOST_RUN_S = 3600.0
MOST_OUTPUT = 8 * 1024 * 1024  # bytes that a plain request may get back from a command
BEGUN = frozenset({SessionState.RUNNING, SessionState.TERMINATING, *FINAL})


class Start(Input, frozen=True):
    """How a command starts on a WebSocket. user: UID or UID:GID, for administrators. rows, columns: of its terminal."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    user: str | None = None
    workdir: str | None = None
    tty: bool = False
    rows: int = 0
    columns: int = 0


class Target(NamedTuple):
    """A container of a session. agent: where it is, None while it was not placed."""

    session: Row[Any]
    kernel: str
    agent: str | None


def routes(context: Context) -> list[web.RouteDef]:
    """Return the routes that stream, as they are declared."""
    handlers: Mapping[str, Handler] = {
        "sessions.logs": guarded(Verb.READ, logs), "sessions.exec": guarded(Verb.EXEC, exec_), "sessions.run": guarded(Verb.EXEC, run),
        "sessions.download": guarded(Verb.EXEC, download), "sessions.upload": guarded(Verb.EXEC, upload),
        "images.pull": image_streams.pull, "images.build": image_streams.build}
    return [web.route(s.http.method, s.http.path, counted_handler(context, s, handlers[s.name])) for s in STREAMS if s.name in handlers]


async def logs(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Stream a session's output; following one that has not started waits for it."""
    query = read_query(request, LogsQuery)
    if query.tail is not None and query.tail < 0:
        raise Failure("invalid-request", "tail: must not be less than 0.")
    text = query.format == "text"
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8" if text else FRAMES_TYPE})

    async def broken(failure: Failure) -> None:
        """Tell the reader, and break off, so that nobody takes this for the end."""
        said = f"\n[{failure.message}]\n".encode()
        await response.write(said if text else frame(STDERR, said))
        break_off(request)

    row, name = await _named(context, caller, request, Verb.READ)
    if query.follow:
        await begin(request, response, broken)
        row = await context.bus.until(row.id, lambda: _begun(context, caller, row.id))
    target = await _target(context, row, name, query.attempt)
    if target.agent is not None:
        arguments = {"kernel": target.kernel, "follow": query.follow, "tail": query.tail}
        try:
            async with context.live.open(target.agent, frames.Verb.LOGS, arguments) as conversation:
                async for message in conversation.listen():
                    if not response.prepared:
                        await begin(request, response, broken)
                    if isinstance(message, bytes):
                        channel, data = unpack(message)
                        await response.write(data if text else frame(channel, data))
        except Failure as failure:
            if failure.code != "not-found" or row.started_at is not None:
                raise  # what never ran has no output, and its agent may know nothing of it
    if not response.prepared:
        await begin(request, response, broken)
    await response.write_eof()
    return response


async def exec_(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Run a command with its input and output on a WebSocket; a terminal if it is asked for."""
    target = await _running(context, caller, request)
    client = web.WebSocketResponse(max_msg_size=2 * MAX_DATA, compress=False, timeout=PATIENCE_S)
    if not client.can_prepare(request).ok:
        raise Failure("invalid-request", "Open a WebSocket here, or POST a command that is to run to its end.")

    async def broken(failure: Failure) -> None:
        await client.send_str(control(error={"code": failure.code, "message": failure.message}))
        await client.close()

    await begin(request, client, broken)
    keep_alive(request)
    start = await _read_start(client)
    arguments = {**_command(caller, target, start), "tty": start.tty, "rows": start.rows, "columns": start.columns}
    async with _open(context, target, frames.Verb.EXEC, arguments) as conversation:
        await _splice(client, conversation)
    await client.close()
    return client


async def run(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Run a command to its end and answer with what it wrote."""
    wanted = await read_json(request, Exec)
    if not 0 < wanted.timeout_s <= MOST_RUN_S:
        raise Failure("invalid-request", f"timeout_s: must be more than 0 and at most {MOST_RUN_S:g}.")
    target = await _running(context, caller, request)
    arguments = {**_command(caller, target, wanted), "tty": False}
    async with _open(context, target, frames.Verb.EXEC, arguments) as conversation:
        try:
            async with asyncio.timeout(wanted.timeout_s):
                ran = await _collect(conversation, wanted.stdin.encode())
        except TimeoutError:
            await _kill(conversation)
            raise Failure("deadline", f"The command did not end within {wanted.timeout_s:g} s, and was killed.") from None
        except (Failure, asyncio.CancelledError):
            await _kill(conversation)
            raise
    return web.Response(body=msgspec.json.encode(ran), content_type="application/json", headers={"Cache-Control": "no-store"})


async def download(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Send a path of a session as a tar."""
    path = _path(request)
    target = await _running(context, caller, request)
    response = web.StreamResponse(headers={"Content-Type": TAR})

    async def broken(_: Failure) -> None:
        break_off(request)

    async with _open(context, target, frames.Verb.GET, {"kernel": target.kernel, "path": path}) as conversation:
        async for message in conversation.listen():
            if not response.prepared:
                await begin(request, response, broken)
            if isinstance(message, bytes):
                await response.write(memoryview(message)[1:])
    await response.write_eof()
    return response


async def upload(context: Context, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Unpack a tar at a path of a session."""
    path = _path(request)
    target = await _running(context, caller, request)

    async def feed(conversation: Conversation) -> None:
        async for data in body(request):
            await conversation.send(data)
        await conversation.say(eof=True)

    async with _open(context, target, frames.Verb.PUT, {"kernel": target.kernel, "path": path}) as conversation:
        await while_feeding(feed(conversation), _last_word(conversation))
    return web.Response(status=204)


async def _last_word(conversation: Conversation) -> None:
    async for _ in conversation.listen():
        pass


async def _splice(client: web.WebSocketResponse, conversation: Conversation) -> None:
    """Pass on messages both ways, each as fast as the other side takes them, until the last word or until the client has gone."""

    async def inward() -> None:
        async for message in client:
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                await conversation.forward(message.data)

    async def outward() -> None:
        async for message in conversation.listen():
            await (client.send_bytes(message) if isinstance(message, bytes) else client.send_str(control(**message)))

    giving, taking = asyncio.create_task(inward()), asyncio.create_task(outward())
    try:
        await asyncio.wait([giving, taking], return_when=asyncio.FIRST_COMPLETED)
        if not taking.done() and giving.exception() is not None:
            await taking  # says why the agent has gone
        if taking.done():
            taking.result()
    finally:
        for task in (giving, taking):
            task.cancel()
        await asyncio.gather(giving, taking, return_exceptions=True)


async def _collect(conversation: Conversation, stdin: bytes) -> Ran:
    written: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
    exit_code = 0

    async def feed() -> None:
        await conversation.send(stdin)
        await conversation.say(eof=True)

    async def answer() -> None:
        nonlocal exit_code
        async for message in conversation.listen():
            if isinstance(message, bytes):
                channel, data = unpack(message)
                written.get(channel, bytearray()).extend(data)
                if sum(map(len, written.values())) > MOST_OUTPUT:
                    said = f"The command wrote more than {MOST_OUTPUT} bytes, and was killed; read its output over a WebSocket."
                    raise Failure("too-large", said)
            else:
                exit_code = int(message.get("exit", exit_code))

    await while_feeding(feed(), answer())
    out, err = (bytes(written[channel]).decode(errors="replace") for channel in (STDOUT, STDERR))
    return Ran(exit_code, out, err)


async def _kill(conversation: Conversation) -> None:
    with suppress(Failure, TimeoutError):  # an agent that is gone can kill nothing
        async with asyncio.timeout(CLOSE_S):
            await conversation.say(signal="SIGKILL")


async def _read_start(client: web.WebSocketResponse) -> Start:
    try:
        async with asyncio.timeout(START_S):
            message = await client.receive()
    except TimeoutError:
        raise Failure("deadline", f"There was no start within {START_S:g} s.") from None
    try:
        fields = read_control(message.data) if message.type is WSMsgType.TEXT else {}
        if "start" not in fields:
            raise ValueError('it must be a text message, {"start": {"argv": [...]}}')
        return msgspec.convert(fields["start"], Start)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except ValueError as error:
        raise Failure("invalid-request", f"The first message is no start: {error}.") from error


def _command(caller: Caller, target: Target, wanted: Exec | Start) -> dict[str, Any]:
    """Return what the agent is asked to run, checked."""
    if not wanted.argv or not wanted.argv[0] or any("\0" in word for word in wanted.argv):
        raise Failure("invalid-request", "argv: a program and its arguments, none with a zero byte.")
    check_env(wanted.env)
    user = None
    if wanted.user is not None:
        uid, _, gid = ("0" if wanted.user == "root" else wanted.user).partition(":")
        if not uid.isdecimal() or not (gid or uid).isdecimal():
            raise Failure("invalid-request", f"user: {wanted.user!r} must be UID or UID:GID.")
        user = (int(uid), int(gid or uid))
        require(caller, Verb.EXEC, Thing("user inside a session"))
    return {"kernel": target.kernel, "argv": wanted.argv, "env": dict(wanted.env), "user": user, "workdir": wanted.workdir}


async def _begun(context: Context, caller: Caller, id: str) -> Row[Any] | None:
    row = await find_session(context, caller, id)
    return row if row.state in BEGUN else None


async def _running(context: Context, caller: Caller, request: web.Request) -> Target:
    """Return the session that the address names, if it runs and *caller* may touch it."""
    row, name = await _named(context, caller, request, Verb.EXEC)
    if row.state != SessionState.RUNNING:
        said = "has ended" if row.state in FINAL else f"is {row.state}"
        raise Failure("conflict", f"{row.name} {said}; this works only while a session is RUNNING.")
    return await _target(context, row, name)


async def _named(context: Context, caller: Caller, request: web.Request, verb: Verb) -> tuple[Row[Any], str]:
    """Return the session that the address names, and the name of the container behind a colon, ``main1`` where there is none."""
    session, _, name = request.match_info["id"].partition(":")
    return await find_session(context, caller, session, verb), name or MAIN


async def _target(context: Context, row: Row[Any], name: str, attempt: int | None = None) -> Target:
    """Return where a container of *row* is. attempt: an earlier one, None for the present one."""
    query = select(kernels.c.id, kernels.c.agent_id, kernels.c.role, kernels.c.idx).where(
        kernels.c.session_id == row.id, kernels.c.attempt == (row.attempt if attempt is None else attempt))
    rows = (await context.store.read(lambda connection: connection.execute(query))).all()
    found = next((one for one in rows if f"{one.role}{one.idx}" == name), None)
    if found is not None:
        return Target(row, found.id, found.agent_id)
    if not rows:
        raise Failure("not-found", f"{row.name} was removed." if attempt is None else f"{row.name} has had {row.attempt} attempts so far.")
    names = ", ".join(sorted(f"{one.role}{one.idx}" for one in rows)[:20])
    raise Failure("not-found", f"{row.name} has no container {name!r}; it has {names}.")


@asynccontextmanager
async def _open(context: Context, target: Target, verb: frames.Verb, arguments: Mapping[str, Any]) -> AsyncIterator[Conversation]:
    if target.agent is None:
        raise Failure("conflict", f"{target.session.name} is on no agent now; try again.")
    with context.activity.using(target.session.id, context.clock):
        async with context.live.open(target.agent, verb, arguments) as conversation:
            yield conversation


def _path(request: web.Request) -> str:
    path = read_query(request, ArchiveQuery).path
    if not path or "\0" in path:
        raise Failure("invalid-request", "path: must not be empty, nor hold a zero byte.")
    return path
