"""Images: the node itself, and folders and tarballs that were registered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Image, Progress, Report

from backendai_runtime_sandbox.config import Folders
from backendai_runtime_sandbox.engine import delete
from backendai_runtime_sandbox.pipes import Sink
from backendai_runtime_sandbox.process import spawn

HOST = "host"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*(:[A-Za-z0-9._-]+)?")
_PACKINGS = {b"\x1f\x8b": ("-z",), b"\xfd7zXZ": ("-J",), b"BZh": ("-j",), b"\x28\xb5\x2f\xfd": ("--zstd",)}  # by their first bytes
_LEFT_OUT = ("--exclude=dev/*", "--exclude=./dev/*")  # an ordinary user cannot make devices, and nobody here needs them
_STEP = 16 * 1024 * 1024  # bytes between two reports


class Images:
    """What can be run. given: by the operator, folders and tarballs by name."""

    def __init__(self, folders: Folders, given: Mapping[str, str]) -> None:
        self._folders = folders
        self._given = given

    async def ensure(self, image: str, report: Report) -> Image:
        """Return an image, unpacked if need be; raise ``Failure('bad-image')`` when there is none of that name."""
        if self.find(image) is None and (tarball := self._tarball(image)) is not None:
            await self._unpack(image, _file(tarball), report)
        found = self.find(image)
        if found is None:
            names = ", ".join(sorted(i.name for i in self.list()))
            raise Failure("bad-image", f"There is no image {image} on this agent, and the sandbox fetches none; it has: {names}. "
                                       "Register a root filesystem by `bai image build`, or use an agent with a container engine.")
        return found

    def rootfs(self, image: str) -> Path | None:
        """Return the image's folder, None for the node itself; raise ``Failure('bad-image')`` when there is none."""
        if image == HOST:
            return None
        if (found := self._folder(image)) is None:
            raise Failure("bad-image", f"There is no image {image} on this agent any more.")
        return found

    def find(self, image: str) -> Image | None:
        """Return an image that can be run as it is."""
        if image == HOST:
            return Image(HOST, f"host:{os.uname().release}")
        if (folder := self._folder(image)) is None:
            return None
        about = self._about(image)
        return Image(image, about.get("id") or f"folder:{folder}", about.get("size", 0), about.get("created_at"))

    def list(self) -> list[Image]:
        """Return every image that can be run as it is, and the node itself first."""
        kept = [path.parent.name.replace("%", "/") for path in sorted(self._folders.images.glob("*/image.json"))]
        names = dict.fromkeys((HOST, *self._given, *kept))
        return [image for name in names if (image := self.find(name)) is not None]

    async def build(self, name: str, context: AsyncIterator[bytes], report: Report) -> Image:
        """Unpack a root filesystem as the image *name*."""
        if name == HOST or name in self._given or not _NAME.fullmatch(name):
            raise Failure("bad-name", f"An image cannot be called {name}; use lower-case letters, digits, '.', '-', '_' and '/'.")
        await self._unpack(name, context, report)
        found = self.find(name)
        if found is None:
            raise Failure("runtime-fault", f"The image {name} vanished while it was made; try again.")
        return found

    async def remove(self, image: str, used: set[str]) -> None:
        """Delete an image that was unpacked here."""
        if image == HOST:
            raise Failure("conflict", "The image host is the node itself; it cannot be deleted.")
        if image in used:
            raise Failure("conflict", f"Containers need the image {image}; stop and remove them first.")
        await delete([self._kept(image)])

    def _tarball(self, image: str) -> Path | None:
        source = Path(self._given.get(image, "/nonexistent"))
        return source if source.is_file() else None

    def _kept(self, image: str) -> Path:
        return self._folders.images / image.replace("/", "%")

    def _folder(self, image: str) -> Path | None:
        given = Path(self._given.get(image, "/nonexistent"))
        if given.is_dir():
            return given
        if not _NAME.fullmatch(image):
            return None
        kept = self._kept(image)
        return kept / "rootfs" if (kept / "image.json").is_file() else None

    def _about(self, image: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._kept(image) / "image.json").read_text())
        except OSError:
            return {}
        return found

    async def _unpack(self, image: str, data: AsyncIterator[bytes], report: Report) -> None:
        """Unpack a tar stream; an image is there as a whole or not at all."""
        fresh = self._folders.images / f".new-{os.getpid()}-{time.monotonic_ns()}"
        (fresh / "rootfs").mkdir(parents=True)
        try:
            digest, size = await _extract(data, fresh / "rootfs", report)
            if (fresh / "rootfs" / "Dockerfile").is_file():
                raise Failure("unsupported", "The sandbox cannot build from a Dockerfile; give it a root filesystem as a tarball, or use "
                                             "an agent with a container engine.")
            about = {"id": f"sha256:{digest}", "size": size, "created_at": time.time()}
            (fresh / "image.json").write_text(json.dumps(about))
            await delete([self._kept(image)])
            fresh.chmod(0o711)
            fresh.rename(self._kept(image))
        finally:
            await delete([fresh])


async def _extract(data: AsyncIterator[bytes], folder: Path, report: Report) -> tuple[str, int]:
    """Run tar over *data*; return its digest and size."""
    tar = shutil.which("tar")
    if tar is None:
        raise Failure("unsupported", "There is no tar on this agent's node; install it.")
    theirs, ours = os.pipe()
    said = os.memfd_create("said")
    try:
        try:
            first = b""
            async for first in data:
                if first:
                    break
            packing = next((flag for magic, flag in _PACKINGS.items() if first.startswith(magic)), ())
            child = spawn([tar, *packing, "-xf", "-", "-C", str(folder), "--numeric-owner", "--delay-directory-restore", *_LEFT_OUT],
                          {0: theirs, 2: said})
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        digest, size = await _feed(_again(first, data), ours, report)
        if await child.wait():
            raise Failure("bad-image", "That is no tarball of a root filesystem, as `docker export` makes one.",
                          detail=os.pread(said, 4096, 0).decode(errors="replace"))
    finally:
        os.close(said)
    return digest, size


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _feed(data: AsyncIterator[bytes], pipe: int, report: Report) -> tuple[str, int]:
    digest, size, told = hashlib.sha256(), 0, 0
    sink = Sink(pipe)
    try:
        async for piece in data:
            digest.update(piece)
            size += len(piece)
            try:
                await sink.write(piece)
            except (BrokenPipeError, ConnectionResetError):
                break  # tar has given up; its exit code says so
            if size - told >= _STEP:
                told = size
                report(Progress("Unpacking", size))
    finally:
        sink.close()
    return digest.hexdigest(), size


async def _file(path: Path) -> AsyncIterator[bytes]:
    """Give a file's bytes."""
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece
