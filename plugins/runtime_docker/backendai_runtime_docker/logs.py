"""A container's output, byte for byte, from any place."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp
from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import LogChunk

from backendai_runtime_docker.engine import HINT, Engine, refused
from backendai_runtime_docker.logfile import ends_line

OPEN_S = 20.0
QUIET_S = 40.0  # between two pieces of what is already written
SIGN_OF_LIFE_S = 5.0  # while what is dropped is read
HEADER = struct.Struct(">BxxxL")
POLL_S, POLL_SHARE = 0.3, 10.0  # seconds; of the time that a look takes, so that looking takes a tenth of it
LIVELY = ("created", "configured", "initialized", "running", "paused", "restarting", "stopping")
STAMP = 31  # a timestamp of nine decimals and a space
PIECE = 16384  # a line longer than that is logged in pieces of that size


@dataclass(frozen=True, slots=True)
class Source:
    """Where a container's output is. podman: how the engine logs. root: where it keeps its files."""

    engine: Engine
    id: str
    podman: bool
    root: str


async def read_logs(source: Source, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
    """Yield the output from *offset*, which counts bytes of output.

    The engine knows no such place, so what comes before it is read again and dropped. Docker may end a followed log before its last
    piece, so the rest is asked for once more. Podman may lose lines of a followed log, so that it is asked again and again.
    """
    began: float | None = None
    while True:
        running = follow and await _runs(source)
        if running and began is not None:
            await asyncio.sleep(max(POLL_S, POLL_SHARE * (time.monotonic() - began) if source.podman else 0))
        began = time.monotonic()
        async with aclosing(_read(source, offset, running and not source.podman)) as chunks:
            async for chunk in chunks:
                offset = chunk.next
                yield chunk
        if not running:
            return


async def _runs(source: Source) -> bool:
    try:
        details = await source.engine.get(f"containers/{source.id}/json", within_s=OPEN_S)
    except DockerError as error:
        raise _unreadable(error) from error
    return str(details["State"]["Status"]).lower() in LIVELY


async def _read(source: Source, offset: int, follow: bool) -> AsyncGenerator[LogChunk, None]:
    params = {"stdout": True, "stderr": True, "follow": follow, "timestamps": not source.podman}
    decoder, position, spoke = Decoder(not source.podman), 0, time.monotonic()
    try:
        async with source.engine.open("GET", f"containers/{source.id}/logs", params=params, within_s=OPEN_S) as response:
            async for data in _pieces(response, None if follow else QUIET_S):
                for stream, payload in decoder.feed(data):
                    before, position = position, position + len(payload)
                    if position > offset:
                        yield LogChunk(stream, payload[max(0, offset - before) :], position)
                if position < offset and time.monotonic() - spoke > SIGN_OF_LIFE_S:
                    spoke = time.monotonic()
                    yield LogChunk(1, b"", offset)
    except DockerError as error:
        raise _unreadable(error) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Failure("unavailable", f"The container's output broke off; {HINT}.", detail=repr(error)) from error
    if decoder.torn:
        raise Failure("unavailable", f"The container's output broke off; {HINT}.", detail="within a frame")
    for stream in () if follow else decoder.owed():
        if await asyncio.to_thread(ends_line, source.root, source.id, stream):
            position += 1
            if position > offset:
                yield LogChunk(stream, b"\n", position)


def _unreadable(error: DockerError) -> Failure:
    if error.status == 404:
        return Failure("not-found", "The container is not there any more.", detail=str(error))
    return refused(error, "read the container's output")


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

    def owed(self) -> Sequence[int]:
        """Return the streams that may have ended with a line end that was forgotten."""
        return () if self._mender is None else self._mender.owed()

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

    The driver writes a long line in pieces and returns the last of them without its line end (seen in 20.10, and the newer ones read
    the same). Every piece but the last has exactly ``PIECE`` bytes; an empty last piece is told by its timestamp alone.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()  # streams whose line goes on
        self._owed: set[int] = set()  # streams whose last piece ended a line without saying so, or ended the stream

    def owed(self) -> Sequence[int]:
        """Return the streams of which nobody can tell here whether their last line was ended."""
        return sorted(self._owed)

    def mend(self, stream: int, payload: bytes) -> bytes:
        """Return *payload* with what was owed before it, or after it."""
        before = b"\n" if stream in self._owed else b""
        self._owed.discard(stream)
        was_open = stream in self._open
        if len(payload) == PIECE and not payload.endswith(b"\n"):
            self._open.add(stream)
            return before + payload
        self._open.discard(stream)
        if not payload:
            return before + b"\n"
        if was_open and not payload.endswith(b"\n"):
            self._owed.add(stream)
        return before + payload
