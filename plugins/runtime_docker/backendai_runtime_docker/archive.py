"""Files into and out of a container, as tar streams."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import aiohttp
from aiodocker import DockerError
from backendai.model.errors import Failure

from backendai_runtime_docker.engine import HINT, NO_WORD, Engine, refused
from backendai_runtime_docker.tar import owned_by

OPEN_S = 30.0
QUIET_S = 60.0
UNPACK_S = 3600.0
IS_FOLDER = 1 << 31  # in the modes of Go's os package, which the engine speaks of


async def get_archive(engine: Engine, id: str, path: str) -> AsyncIterator[bytes]:
    """Yield *path* as a tar stream whose root is its last part."""
    try:
        async with engine.open("GET", f"containers/{id}/archive", params={"path": path}, within_s=OPEN_S) as response:
            while True:
                async with asyncio.timeout(QUIET_S):
                    data = await response.content.readany()
                if not data:
                    return
                yield data
    except DockerError as error:
        raise _not_there(error, path) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Failure("unavailable", f"The archive of {path} broke off; {HINT}.", detail=repr(error)) from error


async def put_archive(engine: Engine, id: str, path: str, data: AsyncIterator[bytes], user: tuple[int, int]) -> None:
    """Unpack a tar stream into the folder *path*; everything in it belongs to *user*."""
    await _check_folder(engine, id, path)
    problems: list[Exception] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            async for piece in owned_by(data, *user):
                yield piece
        except Exception as error:  # ours or the sender's; the engine's complaint that it got too little would hide it
            problems.append(error)
            raise

    try:
        async with engine.open("PUT", f"containers/{id}/archive", params={"path": path}, data=body(),
                               headers={"Content-Type": "application/x-tar"}, within_s=UNPACK_S) as response:
            await response.read()
    except DockerError as error:
        raise _not_there(error, path) from error
    except Failure:
        if problems:
            raise problems[0] from None
        raise


async def _check_folder(engine: Engine, id: str, path: str) -> None:
    """Raise ``Failure('not-found')`` unless *path* is a folder, or a link to who knows what."""
    try:
        async with engine.open("HEAD", f"containers/{id}/archive", params={"path": path}, within_s=OPEN_S) as response:
            about = json.loads(base64.b64decode(response.headers.get("X-Docker-Container-Path-Stat", "e30=")))
    except DockerError as error:
        if error.status in (404, NO_WORD):
            raise Failure("not-found", f"There is no {path} in the container.", detail=str(error)) from error
        raise refused(error, f"look at {path}") from error
    if about and not about.get("linkTarget") and not about.get("mode", 0) & IS_FOLDER:
        raise Failure("not-found", f"{path} in the container is not a folder.")


def _not_there(error: DockerError, path: str) -> Failure:
    if error.status == 404:
        return Failure("not-found", f"There is no {path} in the container.", detail=str(error))
    if "not a directory" in error.message:
        return Failure("not-found", f"{path} in the container is not a folder.", detail=str(error))
    return refused(error, f"copy to or from {path}")
