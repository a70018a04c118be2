"""What travels on a stream: the same between client and manager as between manager and agent, so the manager only splices.

On a WebSocket a binary message is one channel byte and data; a text message is a JSON object, a control. In a plain HTTP body (logs)
the same frames follow each other, each behind a header of 8 bytes: channel, three zeros, length as a big-endian 32-bit number.

    control, to the process     {"start": {...}}  {"resize": [rows, columns]}  {"signal": "SIGINT"}  {"eof": true}
    control, from the process   {"exit": 0}  {"done": true}  {"error": {"code": ..., "message": ...}}  {"progress": {...}}

A stream ends with exactly one of exit, done or error, and then a close.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2
MAX_DATA = 256 * 1024  # bytes of data in one frame
_HEADER = struct.Struct(">B3xI")
HEADER_SIZE = _HEADER.size
FRAMES_TYPE = "application/vnd.backendai.frames"


class Verb(StrEnum):
    """What an agent can be asked to stream, with the arguments of ``wire.link.Open``."""

    EXEC = "exec"  # kernel, argv, env, user, workdir, tty, rows, columns
    LOGS = "logs"  # kernel, follow, tail (lines or null); frames on 1 and 2, then done
    GET = "get"  # kernel, path; a tar on channel 1, then done
    PUT = "put"  # kernel, path; a tar on channel 0 until eof, then done
    DIAL = "dial"  # kernel, port; bytes on 0 and 1, eof ends a direction, then done
    IMAGES = "images"  # one text message {"images": [...]}, then done
    PULL = "pull"  # image; progress, then done
    REMOVE_IMAGE = "remove-image"  # image
    BUILD = "build"  # name; a tar on channel 0 until eof; progress, then done
    STATE = "state"  # one text message {"kernels": [...], "containers": [...]}, see ``agent.streams``, then done


def pack(channel: int, data: bytes) -> bytes:
    """Return a WebSocket binary message's payload."""
    return bytes((channel,)) + data


def unpack(message: bytes) -> tuple[int, bytes]:
    """Split a WebSocket binary message's payload into channel and data."""
    if not message:
        raise ValueError("an empty frame has no channel")
    return message[0], message[1:]


def frame(channel: int, data: bytes) -> bytes:
    """Return a frame for a plain HTTP body."""
    return _HEADER.pack(channel, len(data)) + data


def control(**fields: Any) -> str:
    """Return a control message's text."""
    return json.dumps(fields, separators=(",", ":"))


def read_control(text: str) -> dict[str, Any]:
    """Read a control message; raise ValueError when it is not an object."""
    try:
        fields = json.loads(text)
    except RecursionError:
        raise ValueError("a control is not nested so deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("a control is a JSON object")
    return fields


class Deframer:
    """Cut a plain HTTP body back into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take the next piece of the body and yield the frames that it completes."""
        self._buffer += data
        while len(self._buffer) >= HEADER_SIZE:
            channel, length = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < HEADER_SIZE + length:
                return
            payload = bytes(self._buffer[HEADER_SIZE : HEADER_SIZE + length])
            del self._buffer[: HEADER_SIZE + length]
            yield channel, payload
