"""Images: found here, pulled, built, listed, removed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Image, Progress, Report

from backendai_runtime_docker.containers import seconds
from backendai_runtime_docker.engine import HINT, Engine, refused, sentence
from backendai_runtime_docker.events import json_lines

LOOK_S = 15.0
OPEN_S = 60.0
QUIET_S = 600.0  # without a word from a pull or a build
REMOVE_S = 110.0
LAST_WORDS = 300  # characters of a failed build's output that are told
PASSING = re.compile(r"toomanyrequests|too many requests|\b50[0234]\b", re.IGNORECASE)
UNREACHABLE = re.compile(r"dial tcp|lookup |no such host|timeout|connection refused|network is unreachable|tls|x509|EOF", re.IGNORECASE)


async def find_image(engine: Engine, name: str) -> Image | None:
    """Return the image *name* if the engine has it."""
    try:
        found = await engine.get(f"images/{name}/json", within_s=LOOK_S)
    except DockerError as error:
        if error.status == 404:
            return None
        if error.status == 400:
            raise Failure("bad-image", f"{name!r} is not an image reference: {sentence(error.message)}") from error
        raise refused(error, f"look for the image {name}") from error
    config = found.get("Config") or {}
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    return Image(name, str(found["Id"]), int(found.get("Size") or 0), seconds(found.get("Created")), tuple(command),
                 dict(config.get("Labels") or {}))


async def pull_image(engine: Engine, name: str, report: Report) -> Image:
    """Fetch *name* from its registry, saying how many layers and bytes have come."""
    reference = name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"
    layers = Layers(reference)
    report(layers.progress())
    try:
        async with engine.open("POST", "images/create", params={"fromImage": reference}, within_s=OPEN_S) as response:
            async for line in _unhurried(response, "pull"):
                if "error" in line:
                    raise _not_pulled(name, str(line["error"]))
                layers.take(line)
                report(layers.progress())
    except DockerError as error:
        raise _not_pulled(name, error.message) from error
    if (found := await find_image(engine, name)) is None:
        raise Failure("bad-image", f"The image {name} was fetched and is not there; is it for another kind of machine?")
    return found


class Layers:
    """How far a pull is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bytes: dict[str, tuple[int, int]] = {}
        self._layers: dict[str, bool] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in one line of the engine's progress."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        if status in ("Pulling fs layer", "Waiting"):
            self._layers.setdefault(layer, False)
        elif status in ("Already exists", "Pull complete"):
            self._layers[layer] = True
            _, total = self._bytes.get(layer, (0, 0))
            self._bytes[layer] = total, total
        elif status == "Downloading" and (detail := line.get("progressDetail")) and detail.get("total"):
            self._layers.setdefault(layer, False)
            self._bytes[layer] = int(detail.get("current", 0)), int(detail["total"])
        elif status in ("Verifying Checksum", "Download complete", "Extracting") and layer in self._bytes:
            self._bytes[layer] = self._bytes[layer][1], self._bytes[layer][1]

    def progress(self) -> Progress:
        """Return it for people; the number of bytes once any is known."""
        if not self._layers:
            return Progress(f"Pulling {self._name}")
        text = f"Pulling {self._name}, {sum(self._layers.values())} of {len(self._layers)} layers"
        total = sum(size for _, size in self._bytes.values())
        return Progress(text, sum(done for done, _ in self._bytes.values()), total) if total else Progress(text)


async def list_images(engine: Engine) -> Sequence[Image]:
    """Return every image that has a name."""
    try:
        rows = await engine.get("images/json", within_s=LOOK_S)
    except DockerError as error:
        raise refused(error, "list images") from error
    return [Image(tag, str(row["Id"]), int(row.get("Size") or 0), float(row["Created"]), (), dict(row.get("Labels") or {}))
            for row in rows for tag in row.get("RepoTags") or () if tag != "<none>:<none>"]


async def remove_image(engine: Engine, name: str) -> None:
    """Delete an image."""
    try:
        await engine.ask("DELETE", f"images/{name}", within_s=REMOVE_S)
    except DockerError as error:
        if error.status == 404:
            raise Failure("not-found", f"There is no image {name} on this agent; see `bai image ls`.") from error
        if error.status == 409:
            raise Failure("conflict", f"The image {name} is in use: {sentence(error.message)} End what runs on it first.") from error
        raise refused(error, f"remove the image {name}") from error


async def build_image(engine: Engine, name: str, context: AsyncIterator[bytes], report: Report, arguments: Mapping[str, str],
                      network: str) -> Image:
    """Build the tar stream *context* into the image *name*."""
    params = {"t": name, "rm": True, "forcerm": True, "buildargs": json.dumps(dict(arguments))}
    if network:
        params["networkmode"] = network
    said = ""
    report(Progress(f"Building {name}"))
    try:
        async with engine.open("POST", "build", params=params, data=context, headers={"Content-Type": "application/x-tar"},
                               within_s=QUIET_S) as response:
            async for line in _unhurried(response, "build"):
                if "error" in line:
                    raise Failure("bad-image", f"The image {name} could not be built: {sentence(str(line['error']))} "
                                  f"It last said: {sentence(said[-LAST_WORDS:])}", detail=said)
                said = (said + str(line.get("stream", "")))[-4 * LAST_WORDS :]
                if text := str(line.get("stream") or line.get("status") or "").strip():
                    report(Progress(text))
    except DockerError as error:
        raise Failure("bad-image", f"The image {name} could not be built: {sentence(error.message)}", detail=str(error)) from error
    if (found := await find_image(engine, name)) is None:
        raise Failure("bad-image", f"The image {name} could not be built; its build ended without one.", detail=said)
    return found


async def _unhurried(response: aiohttp.ClientResponse, what: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of a stream that may be quiet for a while."""
    lines = json_lines(response)
    try:
        while True:
            async with asyncio.timeout(QUIET_S):
                line = await anext(lines, None)
            if line is None:
                return
            yield line
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Failure("unavailable", f"The container engine broke off the {what}; try again, or {HINT}.", detail=repr(error)) from error


def _not_pulled(name: str, message: str) -> Failure:
    if PASSING.search(message):
        return Failure("unavailable", f"The registry does not give {name} now: {sentence(message)} Try again later.", detail=message)
    if UNREACHABLE.search(message):
        return Failure("bad-image", f"The image {name} is not on this agent, and its registry cannot be reached from there; build it with "
                       "`bai image build`, or let the agent's machine reach the registry.", detail=message)
    return Failure("bad-image", f"There is no image {name} that this agent may have: {sentence(message)} "
                   "Check its name, log in to its registry on the agent's machine, or build it with `bai image build`.", detail=message)
