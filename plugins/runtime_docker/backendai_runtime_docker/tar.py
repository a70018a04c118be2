"""A tar stream on its way: everything in it gets a new owner."""

from __future__ import annotations

from collections.abc import AsyncIterator

from backendai.model.errors import Failure

BLOCK = 512
LARGEST_EXTENSION = 1024 * 1024
OWNERS = (b"uid", b"gid", b"uname", b"gname")


async def owned_by(data: AsyncIterator[bytes], uid: int, gid: int) -> AsyncIterator[bytes]:
    """Yield *data*, a tar stream, with *uid* and *gid* in every header; raise ``Failure('invalid-request')`` when it is none."""
    source = _Source(data)
    while (header := await source.exactly(BLOCK)) and header.strip(b"\0"):
        size = _number(header[124:136])
        padded = -(-size // BLOCK) * BLOCK
        if header[156:157] in (b"x", b"g"):
            if size > LARGEST_EXTENSION:
                raise Failure("invalid-request", "The archive has a header that is too large.")
            records = _without_owners((await source.exactly(padded))[:size])
            yield _header(header, uid, gid, len(records)) + records + bytes(-len(records) % BLOCK)
            continue
        yield _header(header, uid, gid, None)
        while padded:
            piece = await source.some(padded)
            padded -= len(piece)
            yield piece
    yield bytes(2 * BLOCK)
    await source.drain()


class _Source:
    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self._rest = b""

    async def some(self, limit: int) -> bytes:
        """Return at least one and at most *limit* bytes."""
        while not self._rest:
            piece = await anext(self._data, None)
            if piece is None:
                raise Failure("invalid-request", "The archive breaks off in the middle.")
            self._rest = piece
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        return taken

    async def exactly(self, count: int) -> bytes:
        """Return *count* bytes, or none at all at the end."""
        while len(self._rest) < count:
            piece = await anext(self._data, None)
            if piece is None:
                if self._rest:
                    raise Failure("invalid-request", "The archive breaks off in the middle.")
                return b""
            self._rest += piece
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    async def drain(self) -> None:
        async for _ in self._data:
            pass  # padding after the end


def _header(header: bytes, uid: int, gid: int, size: int | None) -> bytes:
    """Return *header* with another owner, and another size if given."""
    fresh = bytearray(header)
    fresh[108:116], fresh[116:124] = b"%07o\0" % uid, b"%07o\0" % gid
    if size is not None:
        fresh[124:136] = b"%011o\0" % size
    if header[257:262] == b"ustar":
        fresh[265:329] = bytes(64)  # names win over numbers
    fresh[148:156] = b" " * 8
    fresh[148:156] = b"%06o\0 " % sum(fresh)
    return bytes(fresh)


def _number(field: bytes) -> int:
    """Read a number field: octal, or binary when its first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise Failure("invalid-request", "This is not a tar archive.") from None


def _without_owners(records: bytes) -> bytes:
    """Drop the owners from extended headers, which are lines of ``LENGTH KEY=VALUE``."""
    kept, at = [], 0
    while at < len(records):
        length, _, rest = records[at : at + 32].partition(b" ")
        if not length.isdigit() or not int(length):
            raise Failure("invalid-request", "This is not a tar archive.")
        if rest.partition(b"=")[0] not in OWNERS:
            kept.append(records[at : at + int(length)])
        at += int(length)
    return b"".join(kept)
