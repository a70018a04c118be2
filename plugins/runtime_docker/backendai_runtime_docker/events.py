"""News from the engine, as a hint to look."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import ContainerState, Event

from backendai_runtime_docker.engine import Engine

OPEN_S = 10.0
RETRY_S = 1.0
BECAME = {"start": ContainerState.RUNNING, "die": ContainerState.EXITED, "died": ContainerState.EXITED}


async def watch(engine: Engine, labels: Mapping[str, str]) -> AsyncIterator[Event]:
    """Yield starts and ends for ever. After a break it goes on from the last news, as far back as the engine remembers."""
    filters = {"type": ["container"], "event": list(BECAME), "label": [f"{key}={value}" for key, value in labels.items()]}
    since = str(int(time.time()))
    while True:
        try:
            async with engine.open("GET", "events", params={"filters": filters, "since": since}, within_s=OPEN_S) as response:
                async for news in json_lines(response):
                    since = str(news.get("time") or since)
                    if (state := BECAME.get(str(news.get("status") or news.get("Action")))) is not None:
                        yield Event(str(news.get("id") or news["Actor"]["ID"]), state)
        except (Failure, DockerError, aiohttp.ClientError, OSError, ValueError):
            pass  # it is away; look again soon
        await asyncio.sleep(RETRY_S)


async def json_lines(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects of a stream, one a line, however long."""
    rest = b""
    async for data in response.content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if rest.strip():
        yield json.loads(rest)
