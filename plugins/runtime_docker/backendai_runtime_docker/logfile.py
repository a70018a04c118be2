"""How the output ends in the file of Docker's ``local`` log driver, which knows more than the engine tells."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

LENGTH = struct.Struct(">I")
SOURCES = {b"stdout": 1, b"stderr": 2}
SOURCE, METADATA, LAST = 1, 5, 1  # fields of its records, which are protocol buffers: the stream; of a piece, whether it ends a line
LONGEST_WALK = 10_000  # records


def ends_line(root: str, id: str, stream: int) -> bool:
    """Tell whether the last piece of *stream*, a part of a long line, ended that line; assume so when the file cannot be read."""
    try:
        with (Path(root) / "containers" / id / "local-logs" / "container.log").open("rb") as file:
            end = file.seek(0, 2)
            for _ in range(LONGEST_WALK):
                if end < 2 * LENGTH.size:
                    break
                file.seek(end - LENGTH.size)
                (length,) = LENGTH.unpack(file.read(LENGTH.size))
                file.seek(end - LENGTH.size - length)
                record = dict(_fields(file.read(length)))
                end -= length + 2 * LENGTH.size
                if SOURCES.get(_bytes(record.get(SOURCE))) == stream:
                    return bool(dict(_fields(_bytes(record.get(METADATA)))).get(LAST))
    except (OSError, ValueError, IndexError, struct.error):
        pass  # not ours to read, or of another make
    return True


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field: numbers and strings, which is all that these records have."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 0:
            yield key >> 3, value
        elif key & 7 == 2:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError("an unknown kind of field")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
