"""Output: complete, in order, byte for byte, from any place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Mount
from backendai_runtime_docker.logs import HEADER, PIECE, Decoder

CASES = {
    "nothing": b"",
    "one line": b"hello\n",
    "no line end": b"hello",
    "empty lines": b"\n\n\r\n\0\n\n",
    "binary": os.urandom(3_000_000),
    "ten megabytes": b"".join(b"line %099d\n" % number for number in range(100_000))[:10_000_000],
    "one endless line": b"z" * 10_000_000,
    "a long line": b"a\n" + b"x" * 20_000 + b"\n",
    "a long line without end": b"a\n" + b"x" * 20_000,
    "a piece": b"q" * PIECE,
    "a piece and an end": b"q" * PIECE + b"\n",
    "two pieces and two ends": b"q" * 2 * PIECE + b"\n\n",
    "long lines in a row": b"".join(b"%d" % (number % 10) * (number * 3000) + b"\n" for number in range(20)),
}


@pytest.mark.docker
@pytest.mark.parametrize("name", CASES)
async def test_output_is_complete_byte_for_byte(bench: Any, tmp_path: Path, name: str) -> None:
    data = CASES[name]
    (tmp_path / "data").write_bytes(data)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    id = await bench.run("cat", "/data", mounts=(Mount(str(tmp_path / "data"), "/data"),))
    assert (await bench.output(id))[1] == data, "followed"
    await bench.ended(id)
    for offset in (0, len(data) // 3, max(0, len(data) - 1), len(data)):
        assert (await bench.output(id, offset, follow=False))[1] == data[offset:], f"from {offset}"


@pytest.mark.docker
async def test_each_chunk_tells_where_the_next_begins(bench: Any) -> None:
    id = await bench.run("sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done")
    await bench.ended(id)
    chunks = [chunk async for chunk in bench.runtime.logs(id, 0, False)]
    assert {stream: b"".join(chunk.data for chunk in chunks if chunk.stream == stream) for stream in (1, 2)} == {
        1: b"out 1\nout 2\nout 3\n", 2: b"err 1\nerr 2\nerr 3\n"}
    for index, chunk in enumerate(chunks):
        rest = [later async for later in bench.runtime.logs(id, chunk.next, False)]
        assert b"".join(one.data for one in rest) == b"".join(one.data for one in chunks[index + 1 :])


@pytest.mark.docker
async def test_there_is_no_output_of_what_is_not_there(bench: Any) -> None:
    with pytest.raises(Failure) as caught:
        await bench.output("0" * 64)
    assert caught.value.code == "not-found"


def frame(stream: int, data: bytes) -> bytes:
    return HEADER.pack(stream, len(data)) + data


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_frames_are_taken_apart_however_they_arrive(step: int) -> None:
    sent = frame(1, b"abc") + frame(1, b"") + frame(2, b"x" * 50) + frame(1, b"d")
    decoder = Decoder(mend=False)
    found = [piece for at in range(0, len(sent), step) for piece in decoder.feed(sent[at : at + step])]
    assert b"".join(data for stream, data in found if stream == 1) == b"abcd"
    assert b"".join(data for stream, data in found if stream == 2) == b"x" * 50
    assert not decoder.torn


def test_a_torn_frame_is_noticed() -> None:
    decoder = Decoder(mend=False)
    assert list(decoder.feed(frame(1, b"abc")[:-1])) == []
    assert decoder.torn
