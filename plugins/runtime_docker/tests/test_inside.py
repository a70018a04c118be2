"""Processes, files, figures and ports of a running container."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Usage

pytestmark = pytest.mark.docker


async def test_a_process_has_its_streams_and_its_status(bench: Any) -> None:
    id = await bench.run()
    assert await bench.inside(id, "sh", "-c", "cat; echo bad >&2; exit 9", stdin=b"in\0\xff\n") == (9, b"in\0\xff\n", b"bad\n")
    code, out, err = await bench.inside(id, "no-such-program")
    assert code in (126, 127)
    assert (out, b"no-such-program" in err) == (b"", True)
    assert (await bench.inside(id, "sh", "-c", "kill -9 $$"))[0] == 137


async def test_much_goes_in_and_comes_out(bench: Any) -> None:
    id = await bench.run()
    data = os.urandom(5_000_000)
    process = await bench.runtime.exec(id, ("cat",), {}, None, None, False)

    async def feed() -> None:
        for at in range(0, len(data), 100_000):
            await process.write(data[at : at + 100_000])
        await process.end_input()

    task = asyncio.create_task(feed())
    got = b""
    async with asyncio.timeout(60):
        while (piece := await process.read()) is not None:
            got += piece[1]
        await task
        assert await process.exit_code() == 0
    await process.close()
    assert got == data


async def test_a_process_has_the_environment_user_and_folder_that_were_asked_for(bench: Any) -> None:
    id = await bench.run(env={"A": "1", "B": "2"})
    process = await bench.runtime.exec(id, ("sh", "-c", "echo $A $B $C; id -u; pwd"), {"B": "3", "C": "ü"}, (33, 33), "/tmp", False)
    piece = b""
    while (more := await process.read()) is not None:
        piece += more[1]
    await process.close()
    assert piece.decode() == "1 3 ü\n33\n/tmp\n"


async def test_a_terminal_has_a_size_that_changes(bench: Any) -> None:
    id = await bench.run()
    argv = ("bash", "-c", "trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done")
    process = await bench.runtime.exec(id, argv, {}, None, None, True)
    seen = b""
    async with asyncio.timeout(20):
        while b"up" not in seen:
            seen += (await process.read())[1]
        await process.resize(33, 99)
        while b"33 99" not in seen:
            seen += (await process.read())[1]
        await process.signal("SIGKILL")
        while await process.read() is not None:
            pass
        assert await process.exit_code() == 137
        await process.signal("SIGTERM")  # nobody is there any more
    await process.close()


async def test_a_signal_reaches_a_process_that_has_just_begun(bench: Any) -> None:
    id = await bench.run()
    process = await bench.runtime.exec(id, ("sleep", "1000"), {}, None, None, False)
    async with asyncio.timeout(20):
        await process.signal("SIGTERM")
        assert await process.exit_code() == 143
    await process.close()
    with pytest.raises(Failure, match="no signal"):
        await process.signal("SIGNOTHING")


async def test_nothing_runs_in_a_container_that_has_ended(bench: Any) -> None:
    id = await bench.run("true")
    await bench.ended(id)
    with pytest.raises(Failure) as caught:
        await bench.runtime.exec(id, ("true",), {}, None, None, False)
    assert caught.value.code == "conflict"
    with pytest.raises(Failure):
        await bench.runtime.dial(id, 80)


def tar(name: str, data: bytes, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=format) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.gid, info.uname = len(data), 70_000_000, 0, "root"
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("folder", ["/home/work", "/tmp"])
async def test_files_go_in_as_the_user_s_and_come_out(bench: Any, format: int, folder: str) -> None:
    id = await bench.run(user=(1234, 1234))
    name, data = "ü" * 40 + ".bin", os.urandom(200_000)
    packed = tar(name, data, format) if format != tarfile.USTAR_FORMAT else tar(name, data, tarfile.GNU_FORMAT)
    await bench.runtime.put_archive(id, folder, pieces(packed))
    assert (await bench.inside(id, "sh", "-c", f"stat -c '%u %g %s' {folder}/*.bin"))[1] == b"1234 1234 200000\n"
    back = b"".join([piece async for piece in bench.runtime.get_archive(id, f"{folder}/{name}")])
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        assert archive.getnames() == [name]
        found = archive.extractfile(name)
        assert found is not None
        assert found.read() == data


async def test_a_folder_comes_out_under_its_last_part(bench: Any) -> None:
    id = await bench.run()
    await bench.inside(id, "sh", "-c", "mkdir -p /tmp/a/b; echo 1 > /tmp/a/b/c")
    back = b"".join([piece async for piece in bench.runtime.get_archive(id, "/tmp/a")])
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        assert sorted(archive.getnames()) == ["a", "a/b", "a/b/c"]


async def test_what_is_not_there_cannot_be_copied(bench: Any) -> None:
    id = await bench.run()
    with pytest.raises(Failure) as caught:
        _ = [piece async for piece in bench.runtime.get_archive(id, "/nope")]
    assert caught.value.code == "not-found"
    for folder in ("/nope", "/etc/passwd"):
        with pytest.raises(Failure) as caught:
            await bench.runtime.put_archive(id, folder, pieces(tar("a", b"")))
        assert caught.value.code == "not-found"


@pytest.mark.parametrize("data", [b"no archive at all" * 100, tar("a", b"x" * 10_000)[:5000]])
async def test_a_broken_archive_is_refused(bench: Any, data: bytes) -> None:
    id = await bench.run()
    with pytest.raises(Failure) as caught:
        await bench.runtime.put_archive(id, "/tmp", pieces(data))
    assert caught.value.code == "invalid-request"


async def test_figures_are_of_what_runs(bench: Any) -> None:
    id = await bench.run("sh", "-c", "while :; do :; done")
    ended = await bench.run("true")
    await bench.ended(ended)
    first = (await bench.runtime.stats([id, ended, "0" * 64]))
    assert first.keys() == {id}

    async def more() -> Usage | None:
        now: Usage = (await bench.runtime.stats([id]))[id]
        return now if (now.cpu_s or 0) > first[id].cpu_s + 0.05 else None

    later = await bench.until(more)
    assert later.pids == 1
    assert 0 < later.memory < 1 << 30


async def test_a_port_is_reached_without_being_published(bench: Any) -> None:
    script = ("use IO::Socket::INET; $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 7777, Listen => 5) or die; $| = 1; "
              "print qq(up\\n); while ($c = $s->accept) { print $c scalar reverse <$c>; close $c }")
    id = await bench.run("perl", "-e", script)
    async with asyncio.timeout(20):
        chunks = bench.runtime.logs(id, 0, True)
        await anext(chunks)
        await chunks.aclose()
        stream = await bench.runtime.dial(id, 7777)
        await stream.write(b"abc")
        await stream.end_output()
        got = b""
        while data := await stream.read():
            got += data
        await stream.close()
    assert got == b"cba"
    with pytest.raises(Failure, match="Nothing listens") as caught:
        await bench.runtime.dial(id, 7778)
    assert caught.value.code == "conflict"
