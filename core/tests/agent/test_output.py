"""The log file: what was said comes back, whatever was cut off, from any line on."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backendai.agent import output as module
from backendai.agent.output import Output
from hypothesis import given, settings
from hypothesis import strategies as st

pieces = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40) | st.sampled_from([b"line\n", b"\n", b"no end"])), max_size=12)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())
    yield made
    shutil.rmtree(made)


def write(path: Path, given: list[tuple[int, bytes]], limit: int = 1 << 30) -> Output:
    path.unlink(missing_ok=True)
    output = Output(path, limit)
    output.open()
    for next, (stream, data) in enumerate(given, 1):
        output.write(stream, data, next)
    return output


def read(output: Output, tail: int | None = None) -> list[tuple[int, bytes]]:
    async def gather() -> list[tuple[int, bytes]]:
        return [piece async for piece in output.read(False, tail)]

    return asyncio.run(gather())


def by_stream(said: list[tuple[int, bytes]]) -> dict[int, bytes]:
    return {stream: b"".join(data for s, data in said if s == stream) for stream in (1, 2)}


def merged(said: list[tuple[int, bytes]]) -> bytes:
    return b"".join(data for _, data in said)


@given(pieces)
def test_what_is_written_is_read(folder: Path, said: list[tuple[int, bytes]]) -> None:
    output = write(folder / "a", said)
    assert merged(read(output)) == merged(said) and by_stream(read(output)) == by_stream(said)
    output.finish()
    assert merged(read(output)) == merged(said)


@given(pieces, st.integers(0, 5))
def test_a_tail_is_the_last_lines(folder: Path, said: list[tuple[int, bytes]], lines: int) -> None:
    output = write(folder / "b", said)
    text = merged(said)
    expected = b"".join(text.splitlines(keepends=True)[-lines:]) if lines else b""
    if b"\r" not in text:
        assert merged(read(output, lines)) == expected


@given(pieces, st.data())
@settings(max_examples=60)
def test_a_torn_file_is_mended_and_goes_on_where_it_says(folder: Path, said: list[tuple[int, bytes]], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_FRAME", 16)
        write(folder / "c", said).close()
        content = (folder / "c").read_bytes()
        (folder / "c").write_bytes(content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=20)))
        mended = Output(folder / "c", 1 << 30)
        mended.open()
        kept = merged(read(mended))
        assert kept == merged(said[: mended.next])
        for next, (stream, piece) in enumerate(said[mended.next:], mended.next + 1):
            mended.write(stream, piece, next)
        assert merged(read(mended)) == merged(said)


def test_a_large_piece_takes_several_frames(folder: Path) -> None:
    data = bytes(range(256)) * 2000
    output = write(folder / "d", [(1, data)])
    assert merged(read(output)) == data
    output.close()
    again = Output(folder / "d", 1 << 30)
    again.open()
    assert again.next == 1


def test_beyond_the_limit_a_line_says_so_once(folder: Path) -> None:
    output = write(folder / "e", [(1, b"x" * 60), (1, b"y" * 60), (2, b"z" * 60)], limit=100)
    text = merged(read(output))
    assert text.startswith(b"x" * 60) and text.count(b"The limit of 100 bytes of output was reached") == 1
    assert b"z" not in text.replace(b"size", b"") and output.next == 3
    output.close()
    again = Output(folder / "e", 100)
    again.open()
    again.write(1, b"more", 4)
    assert merged(read(again)) == text and len(text) < 250


async def test_a_follower_gets_what_comes_until_the_end(tmp_path: Path) -> None:
    output = Output(tmp_path / "f", 1 << 20)
    heard: list[tuple[int, bytes]] = []

    async def follow() -> None:
        heard.extend([piece async for piece in output.read(True, None)])

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await asyncio.sleep(0)
        output.open()  # only now does the file exist
        for number in range(5):
            output.write(1, b"%d" % number, number + 1)
            await asyncio.sleep(0)
        output.finish()
    assert merged(heard) == b"01234"


def test_writing_to_what_is_not_open_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not open"):
        Output(tmp_path / "g", 10).write(1, b"x", 1)
