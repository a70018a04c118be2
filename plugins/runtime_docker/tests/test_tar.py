"""Tar streams with a new owner."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator

import pytest
from backendai.model.errors import Failure
from backendai_runtime_docker.tar import owned_by

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def pack(format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(mode="w", fileobj=buffer, format=format) as archive:
        for name, data in (("a", b""), ("b" * 90, b"x" * 512), ("d/" + "c" * 90, b"y" * 5000)):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.uname, info.gname, info.mode = len(data), 7, 8, "root", "wheel", 0o640
            if format == tarfile.PAX_FORMAT:
                info.uid, info.uname, info.mtime = 70_000_000, "ü" * 50, 1.5
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "a"
        archive.addfile(link)
    return buffer.getvalue()


async def changed(data: bytes, step: int) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    return b"".join([piece async for piece in owned_by(pieces(), 1234, 4321)])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("step", [1, 511, 513, 100_000])
async def test_everything_gets_the_owner_and_nothing_else_changes(format: str, step: int) -> None:
    packed = pack(FORMATS[format])
    with (tarfile.open(fileobj=io.BytesIO(packed)) as before,
          tarfile.open(fileobj=io.BytesIO(await changed(packed, step))) as after):
        was, now = before.getmembers(), after.getmembers()
        assert [m.name for m in now] == [m.name for m in was]
        assert {(m.uid, m.gid, m.uname, m.gname) for m in now} == {(1234, 4321, "", "")}
        for old, new in zip(was, now, strict=True):
            assert (new.mode, new.size, new.mtime, new.linkname, new.type) == (old.mode, old.size, old.mtime, old.linkname, old.type)
            if old.isreg():
                one, other = before.extractfile(old), after.extractfile(new)
                assert one is not None
                assert other is not None
                assert one.read() == other.read()


async def test_an_empty_stream_is_an_empty_archive() -> None:
    with tarfile.open(fileobj=io.BytesIO(await changed(b"", 1))) as archive:
        assert archive.getnames() == []


@pytest.mark.parametrize("data", [b"x" * 100, b"no tar archive " * 100, pack(tarfile.GNU_FORMAT)[:700], pack(tarfile.PAX_FORMAT)[:2700]])
async def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(Failure) as caught:
        await changed(data, 100)
    assert caught.value.code == "invalid-request"
