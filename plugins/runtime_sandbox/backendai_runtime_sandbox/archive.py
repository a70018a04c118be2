"""Files into and out of a running container, as tar streams: a helper joins it as its user, so no link can lead out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from backendai.model.errors import Failure

from backendai_runtime_sandbox.engine import Engine
from backendai_runtime_sandbox.pipes import Sink, Source
from backendai_runtime_sandbox.process import Child, spawn
from backendai_runtime_sandbox.streams import running

_SELF = "/proc/self/exe"  # this interpreter, also where its path is closed to us
HELPER = Path(__file__).with_name("archiver.py")
_NOT_FOUND = 44


async def get_archive(engine: Engine, id: str, path: str) -> AsyncIterator[bytes]:
    """Give *path* as a tar stream whose root is its last part."""
    ours, theirs = os.pipe()
    source, said = Source({ours: 1}), os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        try:
            child = _help(engine, id, ["get", path], {1: theirs, 2: said})
        finally:
            os.close(theirs)
        while (piece := await source.read()) is not None:
            yield piece[1]
        await _judge(child, path, said)
    finally:
        source.close()
        os.close(said)


async def put_archive(engine: Engine, id: str, path: str, data: AsyncIterator[bytes]) -> None:
    """Unpack a tar stream into the folder *path*, as the container's user."""
    theirs, ours = os.pipe()
    sink, said = Sink(ours), os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        try:
            child = _help(engine, id, ["put", path], {0: theirs, 2: said})
        finally:
            os.close(theirs)
        try:
            async for piece in data:
                await sink.write(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the helper has given up, and its exit code says why
        except BaseException:
            child.send(9)  # half an archive is not to be taken for a whole one
            raise
        sink.close()
        await _judge(child, path, said)
    finally:
        sink.close()
        os.close(said)


def _help(engine: Engine, id: str, words: Sequence[str], places: dict[int, int]) -> Child:
    box = engine.box(id)
    pid, shim = running(box)
    user = ",".join(map(str, box.record.user)) if engine.node.privileged else ""
    return spawn([sys.executable, "-I", "-S", str(HELPER), str(pid), str(shim), user, *words], places, program=_SELF)


async def _judge(child: Child, path: str, said: int) -> None:
    code = await child.wait()
    text = os.pread(said, 4096, 0).decode(errors="replace").strip()
    if code == _NOT_FOUND:
        raise Failure("not-found", f"{path} is not there in the container.")
    if code:
        why = text.splitlines()[-1] if text else "the copy was interrupted"
        raise Failure("conflict", f"{path} could not be copied: {why}.", detail=text)
