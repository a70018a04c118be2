"""The connection to an engine that is late, gone or odd: a server on a unix socket that plays it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai_runtime_docker.engine import Engine, find_socket, sentence, unreachable
from backendai_runtime_docker.images import find_image
from backendai_runtime_docker.network import Networks
from backendai_runtime_docker.probe import capabilities

Answer = Callable[[str], bytes | None]
VERSION = b'{"Version": "20.10.24", "ApiVersion": "1.41"}'


def reply(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def playing(folder: Path, answer: Answer) -> AsyncIterator[Engine]:
    """Serve *answer* (by path; None: never) to an engine's client."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.decode().split()[1]
                said = reply(VERSION) if path == "/version" else answer(path)
                if said is None:
                    await reader.read()
                    break
                writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, folder / "s")
    engine = Engine(f"unix://{folder}/s")
    try:
        yield engine
    finally:
        await engine.close()
        server.close()
        await server.wait_closed()


async def refused(call: Awaitable[object]) -> Failure:
    with pytest.raises(Failure) as caught:
        await call
    return caught.value


async def test_an_answer_in_time_leaves_no_doubt(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(path.encode().join([b'"', b'"']))) as engine:
        assert await engine.get("x", within_s=5) == "/v1.41/x"
        assert not engine.doubted


async def test_no_answer_in_time_is_unavailable_and_remembered(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: None) as engine:
        failure = await refused(engine.get("x", within_s=0.2))
        assert failure.code == "unavailable"
        assert engine.doubted


async def test_half_an_answer_is_unavailable(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b"[1, 2]")[:-3]) as engine:
        assert (await refused(engine.get("x", within_s=0.2))).code == "unavailable"


async def test_a_refusal_is_the_engine_s_own(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b'{"message": "no"}', "409 Conflict")) as engine:
        with pytest.raises(DockerError, match="no"):
            await engine.get("x", within_s=5)


async def test_a_refusal_without_a_word_is_still_a_refusal(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b"", "404 Not Found")) as engine:
        with pytest.raises(DockerError):
            await engine.get("x", within_s=5)


async def test_a_refused_stream_is_a_refusal(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b'{"message": "gone"}', "404 Not Found")) as engine:
        with pytest.raises(DockerError, match="gone"):
            await engine.hijack("exec/1/start", {}, within_s=5)


async def test_a_bad_reference_is_a_bad_image(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b'{"message": "invalid reference format"}', "400 Bad Request")) as engine:
        assert (await refused(find_image(engine, "A"))).code == "bad-image"


async def test_a_network_of_someone_else_is_not_used(tmp_path: Path) -> None:
    async with playing(tmp_path, lambda path: reply(b'{"Options": {}, "Labels": {}}')) as engine:
        assert (await refused(Networks(engine, "theirs").mode("outward"))).code == "conflict"
        assert await Networks(engine, "theirs").mode("private") == "none"
        assert (await refused(Networks(engine, "theirs").mode("host"))).code == "unsupported"


def test_an_old_engine_is_refused() -> None:
    with pytest.raises(Failure, match="too old") as caught:
        capabilities({"Version": "19.03", "ApiVersion": "1.40"}, {}, "image", 20)
    assert caught.value.code == "unavailable"


def test_what_the_kernel_lacks_is_said_with_its_mend() -> None:
    found = capabilities({"Version": "20.10", "ApiVersion": "1.41"}, {"CPUCfsQuota": True, "PidsLimit": True, "CgroupVersion": "2"}, "i", 5)
    assert found.features.isdisjoint(found.missing)
    assert "memory" in found.missing
    assert found.limits == {"cpu": "cgroup v2", "pids": "cgroup v2"}


def test_the_socket_is_the_configured_one_before_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///b")
    assert (find_socket("unix:///a"), find_socket("")) == ("/a", "/b")
    with pytest.raises(Failure, match="on this machine"):
        find_socket("ssh://host")


def test_a_socket_that_is_not_ours_is_told_apart_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be reached" in unreachable(str(tmp_path / "s"))
    (tmp_path / "s").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "group" in unreachable(str(tmp_path / "s"))


def test_messages_become_sentences() -> None:
    assert [sentence(text) for text in ("a\n b", "Done!")] == ["a b.", "Done!"]
