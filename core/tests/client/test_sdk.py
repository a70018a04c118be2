"""The SDK, synchronous and asynchronous, against a real manager with an agent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from backendai.client import AsyncClient, Client, Failure, NewSession, calls
from backendai.client.call import Call
from backendai.client.tar import pack, unpack
from backendai.model.session import SessionType

if TYPE_CHECKING:
    from tests.parts.inside import Inside

LAB = SessionType.INTERACTIVE
WORDS = "one\n!two\nthree\n"
SMALL = {"cpu": 0.01, "mem": "1m"}


@pytest.fixture
def client(inside: Inside) -> Iterator[Client]:
    with Client(inside.url, inside.token) as client:
        yield client


@pytest.fixture
async def aio(inside: Inside) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(inside.url, inside.token) as client:
        yield client


@pytest.fixture
def lab(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an interactive session that runs."""
    made = client.create(NewSession(LAB, name=f"lab-{abs(hash(request.node.nodeid))}", slots=SMALL, grace_s=1))
    assert client.wait(made.id, "running", 20).state == "RUNNING"
    yield made.name
    client.remove(made.id, force=True)


def test_a_batch_session_from_its_beginning_to_its_end(client: Client) -> None:
    made = client.create(NewSession(command=["exit", "3"], env={"SAY": WORDS}, slots=SMALL, tags=["t"]))
    assert (made.type, made.state, made.command, made.tags) == (SessionType.BATCH, "PENDING", ("exit", "3"), ("t",))
    assert list(client.logs(made.id, follow=True)) == [(1, b"one\n"), (2, b"!two\n"), (1, b"three\n")]
    ended = client.wait(made.name, timeout_s=20)
    assert (ended.id, ended.state, ended.result, ended.exit_code) == (made.id, "TERMINATED", "failure", 3)
    assert list(client.logs(made.id, tail=1)) == [(1, b"three\n")]
    client.remove(made.id)
    with pytest.raises(Failure) as refused:
        client.session(made.id)
    assert refused.value.code == "not-found"


def test_all_pages_are_walked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.list_sessions, "__defaults__", (False, None, None, 2, None, None, False))
    made = [client.create(NewSession(command=["true"], slots=SMALL)).id for _ in range(5)]
    for id in made:
        client.wait(id)
    found = [session.id for session in client.sessions(all=True)]
    assert found[:5] == made[::-1] and len(found) == len(set(found))
    assert set(made).isdisjoint(session.id for session in client.sessions())


def test_waiting_has_an_end(client: Client, lab: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Failure) as refused:
        client.wait(lab, timeout_s=0.3)
    assert refused.value.code == "deadline"
    assert f"{lab} is RUNNING after 0.3 s." in refused.value.message
    assert time.monotonic() - begun >= 0.3
    assert client.wait(lab, "running", timeout_s=0).name == lab


def test_the_same_key_makes_one_session(client: Client) -> None:
    new = NewSession(command=["true"], slots=SMALL)
    assert client.create(new, "key").id == client.create(new, "key").id
    assert client.create(new).id != client.create(new).id


def test_commands_run_to_their_end(client: Client, lab: str) -> None:
    ran = client.exec(lab, ["sh", "-c", "cat; echo $X >&2; pwd; exit 4"], "in", {"X": "err"}, "/home")
    assert (ran.exit_code, ran.stdout.startswith("in/"), ran.stdout.endswith("/home\n"), ran.stderr) == (4, True, True, "err\n")
    with pytest.raises(Failure) as refused:
        client.exec(lab, ["sleep", "60"], timeout_s=0.2)
    assert refused.value.code == "deadline"


def test_files_go_in_and_out(client: Client, lab: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "ü").write_bytes(data := os.urandom(100_000))
    client.upload(tmp_path / "tree", lab, "sub")
    client.download(lab, "sub", tmp_path / "back")
    assert (tmp_path / "back" / "ü").read_bytes() == data
    client.put_archive(lab, "/home/work", pack(tmp_path / "tree", "raw"))
    unpack(client.get_archive(lab, "/home/work/raw"), tmp_path / "raw")
    assert (tmp_path / "raw" / "ü").read_bytes() == data


def test_stopping_and_removing(client: Client) -> None:
    made = client.create(NewSession(LAB, slots=SMALL))
    client.wait(made.id, "running")
    with pytest.raises(Failure) as refused:
        client.remove(made.id)
    assert refused.value.code == "conflict"
    client.stop(made.id, grace_s=0.5)
    assert client.wait(made.id, timeout_s=20).result == "success"
    client.remove(made.id)


def test_the_rest_of_what_there_is(client: Client, lab: str, inside: Inside) -> None:
    who = client.whoami()
    assert (who.name, who.role, who.cluster) == ("admin", "superadmin", inside.cluster)
    assert [agent.name for agent in client.do(calls.list_agents())] == ["box"]
    assert client.do(calls.get_agent("box")).runtime == "local"
    assert client.images().items[0].agent == "box"
    assert {plugin.where for plugin in client.do(calls.list_plugins())} == {"manager", "box"}
    assert client.stats(lab).kernels[0].agent == "box"
    client.do(calls.create_user("ada", email="a@example.org"))
    assert client.do(calls.change_user("ada", email="b@example.org")).email == "b@example.org"
    token = client.do(calls.create_token("t", "ada", expires_in_s=60.0))
    with Client(inside.url, token.token) as ada:
        assert (ada.whoami().name, list(ada.sessions())) == ("ada", [])
    client.do(calls.remove_token(token.id))
    client.do(calls.remove_user("ada"))
    assert {user.name: user.active for user in client.do(calls.list_users())}["ada"] is False


def test_what_an_agent_cannot_do_is_told_by_its_progress(client: Client, tmp_path: Path) -> None:
    with pytest.raises(Failure) as refused:
        list(client.pull("nothing.invalid/x:1"))
    assert refused.value.code in ("unsupported", "bad-image", "unavailable")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "recipe.toml").write_text('name = "mine:1"\n')
    with pytest.raises(Failure) as refused:
        list(client.build(tmp_path))
    assert refused.value.code in ("unsupported", "bad-image", "unavailable")


def test_events_are_typed_and_begin_where_one_says(client: Client) -> None:
    made = client.create(NewSession(command=["true"], slots=SMALL))
    client.wait(made.id)
    every = [event for event in client.events(follow=False, after=0) if event.subject == made.id]
    assert [event.type for event in every][:1] + [event.type for event in every][-1:] == ["session.created", "session.terminated"]
    rest = [event for event in client.events(follow=False, after=every[0].id) if event.subject == made.id]
    assert rest == every[1:]


def test_plain_answers_are_what_the_server_wrote(client: Client, lab: str) -> None:
    assert client.get(f"/v1/sessions/{lab}")["name"] == lab
    assert client.raw(calls.whoami())["name"] == "admin"
    token = client.raw(calls.create_token("x"))
    assert client.raw(calls.remove_token(token["id"])) is None


def test_a_wrong_token_is_told(inside: Inside) -> None:
    with Client(inside.url, "bai_wrong") as stranger, pytest.raises(Failure) as refused:
        stranger.whoami()
    assert refused.value.code == "unauthenticated"


# --- asyncio ---


async def test_the_same_for_asyncio(aio: AsyncClient) -> None:
    made = await aio.create(NewSession(command=["exit", "3"], env={"SAY": WORDS}, slots=SMALL), "aio")
    assert (await aio.create(NewSession(command=["exit", "3"], env={"SAY": WORDS}, slots=SMALL), "aio")).id == made.id
    assert [frame async for frame in aio.logs(made.id, follow=True)] == [(1, b"one\n"), (2, b"!two\n"), (1, b"three\n")]
    ended = await aio.wait(made.id)
    assert (ended.state, ended.exit_code) == ("TERMINATED", 3)
    assert made.id in [session.id async for session in aio.sessions(all=True)]
    events = [event.type async for event in aio.events(follow=False, after=0) if event.subject == made.id]
    assert (events[0], events[-1]) == ("session.created", "session.terminated")
    assert (await aio.whoami()).name == "admin"
    assert (await aio.images()).items[0].agent == "box"
    await aio.remove(made.id)
    with pytest.raises(Failure) as refused:
        await aio.session(made.id)
    assert refused.value.code == "not-found"


async def test_events_are_followed_as_they_happen(aio: AsyncClient) -> None:
    listening = aio.events(after=0)
    await anext(listening)
    made = await aio.create(NewSession(command=["true"], slots=SMALL))
    async with asyncio.timeout(20):
        async for event in listening:
            if (event.subject, event.type) == (made.id, "session.terminated"):
                break
    await listening.aclose()  # type: ignore[attr-defined]  # a generator


async def test_streams_of_a_command(aio: AsyncClient, lab: str) -> None:
    data = os.urandom(3_000_000)
    async with aio.open(lab, ["sh", "-c", "cat; echo err >&2; exit 5"]) as process:
        async def feed() -> None:
            await process.write(data)
            await process.end_input()

        feeding = asyncio.create_task(feed())
        received = {1: bytearray(), 2: bytearray()}
        async for channel, piece in process:
            received[channel] += piece
        await feeding
    assert (received[1] == data, received[2], process.exit_code) == (True, b"err\n", 5)


async def test_a_terminal_has_its_size_and_takes_a_new_one(aio: AsyncClient, lab: str) -> None:
    script = 'until [ "$(stty size)" = "33 44" ]; do sleep 0.02; done; stty size; read x; stty size'  # its size comes after its start
    async with asyncio.timeout(20), aio.open(lab, ["sh", "-c", script], tty=True, rows=33, columns=44) as process:
        seen = b""
        async for channel, data in process:
            assert channel == 1
            seen += data
            if b"33 44" in seen and process.exit_code is None and b"55 66" not in seen:
                await process.resize(55, 66)
                await process.write(b"\n")
    assert b"33 44" in seen and b"55 66" in seen and process.exit_code == 0


async def test_a_signal_is_passed_on(aio: AsyncClient, lab: str) -> None:
    async with asyncio.timeout(20), aio.open(lab, ["sh", "-c", "echo up; exec sleep 60"]) as process:
        async for _ in process:
            await process.signal("SIGTERM")
    assert process.exit_code == 143


async def test_the_rest_of_the_output_can_be_passed_over(aio: AsyncClient, lab: str) -> None:
    async with aio.open(lab, ["sh", "-c", "seq 10000; exit 6"]) as process:
        assert await process.wait() == 6


async def test_why_a_command_cannot_be_opened_is_told(aio: AsyncClient, lab: str, inside: Inside) -> None:
    with pytest.raises(Failure) as refused:
        async with aio.open("no-such-session", ["true"]) as process:
            await process.wait()
    assert (refused.value.code, "no-such-session" in refused.value.message) == ("not-found", True)
    async with AsyncClient(inside.url, "bai_wrong") as stranger:
        with pytest.raises(Failure) as refused:
            async with stranger.open(lab, ["true"]) as process:
                await process.wait()
    assert refused.value.code == "unauthenticated"


async def test_a_task_that_is_cancelled_ends_its_stream(aio: AsyncClient, lab: str) -> None:
    begun = asyncio.Event()

    async def run() -> None:
        async with aio.open(lab, ["sh", "-c", "echo $$ >pid; echo up; exec sleep 600"]) as process:
            async for _ in process:
                begun.set()

    task = asyncio.create_task(run())
    async with asyncio.timeout(20):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pid = (await aio.exec(lab, ["cat", "pid"])).stdout.strip()
        await aio.exec(lab, ["sh", "-c", "while grep -q sleep /proc/$1/cmdline; do sleep 0.05; done", "sh", pid])


async def test_one_client_serves_many_tasks(aio: AsyncClient, lab: str) -> None:
    async with asyncio.timeout(60):
        rans = await asyncio.gather(*(aio.exec(lab, ["echo", str(number)]) for number in range(20)))
    assert [ran.stdout for ran in rans] == [f"{number}\n" for number in range(20)]


async def test_nobody_listens_for_asyncio(lab: str) -> None:
    async with AsyncClient("http://127.0.0.1:1", "t") as nobody:
        for ask in (nobody.whoami, lambda: nobody.exec("s", ["true"])):
            with pytest.raises(Failure) as refused:
                await ask()
            assert (refused.value.code, "127.0.0.1:1" in refused.value.message) == ("unreachable", True)
        with pytest.raises(Failure) as refused:
            async with nobody.open("s", ["true"]) as process:
                await process.wait()
        assert refused.value.code == "unreachable"


async def test_a_client_that_is_not_open_says_how() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient("http://x", "t").whoami()


@pytest.mark.parametrize(("call", "asked"), [(calls.whoami(), 3), (calls.create_user("u"), 3), (calls.stop_session("s"), 2)],
                         ids=["GET", "POST with a key", "POST"])
async def test_a_connection_that_closes_under_a_request(call: Call[object], asked: int) -> None:
    """The first answer leaves the connection open, the second request is read and not answered."""
    heard = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                heard += 1
                if heard == 2:
                    return
                writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t") as client:
        with pytest.raises(Failure) as refused:
            await client.do(calls.whoami())
        assert refused.value.code == "not-found"
        with pytest.raises(Failure) as refused:
            await client.do(call)
        assert refused.value.code == ("not-found" if asked == 3 else "unreachable")
    assert heard == asked


def test_each_thread_has_a_client_of_its_own(inside: Inside) -> None:
    found: list[str] = []

    def ask() -> None:
        with Client(inside.url, inside.token) as client:
            found.extend(client.whoami().name for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == ["admin"] * 40


LOADED = """
import sys
before = set(sys.modules)
import backendai.client
backendai.client.Client, backendai.client.AsyncClient, backendai.client.NewSession
strange = sorted(name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names)
print("\\n".join(strange))
"""


def test_the_sdk_is_light_and_knows_nothing_of_the_server() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True)
    strange = done.stdout.split()
    assert 10 < len(strange) < 200
    ours = {".".join(name.split(".")[:2]) for name in strange if name.startswith("backendai.")}
    assert ours == {"backendai.client", "backendai.model", "backendai.wire"}


def test_plain_code_does_not_pay_for_asyncio() -> None:
    code = "import sys, backendai.client; backendai.client.Client; print('asyncio' in sys.modules, 'aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
