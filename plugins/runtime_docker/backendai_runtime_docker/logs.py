"""A container's output, byte for byte, from any place."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator

import aiohttp
from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import LogChunk

from backendai_runtime_docker.engine import HINT, Engine, refused

OPEN_S = 20.0
QUIET_S = 40.0  # between two pieces of what is already written
HEADER = struct.Struct(">BxxxL")
STAMP = 31  # a timestamp of nine decimals and a space
PIECE = 16384  # a line longer than that is logged in pieces of that size


async def read_logs(engine: Engine, id: str, offset: int, follow: bool, mend: bool) -> AsyncIterator[LogChunk]:
    """Yield the output from *offset*, which counts bytes of output. mend: the engine's driver forgets line ends (see ``Mender``)."""
    params = {"stdout": True, "stderr": True, "follow": follow, "timestamps": mend}
    decoder, position = Decoder(mend), 0
    try:
        async with engine.open("GET", f"containers/{id}/logs", params=params, within_s=OPEN_S) as response:
            async for data in _pieces(response, None if follow else QUIET_S):
                for stream, payload in decoder.feed(data):
                    before, position = position, position + len(payload)
                    if position > offset:
                        yield LogChunk(stream, payload[max(0, offset - before) :], position)
    except DockerError as error:
        if error.status == 404:
            raise Failure("not-found", "The container is not there any more.", detail=str(error)) from error
        raise refused(error, "read the container's output") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Failure("unavailable", f"The container's output broke off; {HINT}.", detail=repr(error)) from error
    if decoder.torn:
        raise Failure("unavailable", f"The container's output broke off; {HINT}.", detail="within a frame")


async def _pieces(response: aiohttp.ClientResponse, quiet_s: float | None) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(quiet_s):
            data = await response.content.readany()
        if not data:
            return
        yield data


class Decoder:
    """Takes the engine's multiplexed frames apart, and puts neighbours of one stream together."""

    def __init__(self, mend: bool) -> None:
        self._rest = b""
        self._mender = Mender() if mend else None

    @property
    def torn(self) -> bool:
        """Whether the last frame is incomplete."""
        return bool(self._rest)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (stream, payload) for every whole frame in *data* and what was left over before."""
        buffer, at = self._rest + data, 0
        run: list[bytes] = []
        of = 0
        while len(buffer) - at >= HEADER.size:
            stream, length = HEADER.unpack_from(buffer, at)
            end = at + HEADER.size + length
            if end > len(buffer):
                break
            payload = buffer[at + HEADER.size : end]
            at = end
            if self._mender is not None:
                payload = self._mender.mend(stream, payload[STAMP:])
            if stream != of and run:
                yield of, b"".join(run)
                run = []
            of = stream
            if payload:
                run.append(payload)
        if run:
            yield of, b"".join(run)
        self._rest = buffer[at:]


class Mender:
    """Gives back the line ends that Docker's ``local`` log driver forgets.

    The driver writes a long line in pieces and returns the last of them without its line end (seen in 20.10 to 28). Every piece but
    the last has exactly ``PIECE`` bytes; an empty last piece is told by its timestamp alone.
    """

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}  # by stream: the line goes on
        self._owed: dict[int, bool] = {}  # by stream: the piece before ended a line without saying so

    def mend(self, stream: int, payload: bytes) -> bytes:
        """Return *payload* with what was owed before it, or after it."""
        before = b"\n" if self._owed.pop(stream, False) else b""
        if payload.endswith(b"\n"):
            self._open[stream] = False
        elif not payload:
            self._open[stream] = False
            return before + b"\n"
        elif len(payload) == PIECE:
            self._open[stream] = True
        else:
            self._open[stream] = False
            self._owed[stream] = True
        return before + payload
