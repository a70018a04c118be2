"""The sandbox as a plugin: wiring only."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence

from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import (
    ByteStream,
    Capabilities,
    Container,
    ContainerSpec,
    Event,
    ExecStream,
    Image,
    LogChunk,
    Network,
    NetworkSpec,
    Report,
    Usage,
)

from backendai_runtime_sandbox import archive, config, probe, streams
from backendai_runtime_sandbox.engine import Engine
from backendai_runtime_sandbox.events import read_events
from backendai_runtime_sandbox.images import Images
from backendai_runtime_sandbox.logs import read_log
from backendai_runtime_sandbox.notices import Notices
from backendai_runtime_sandbox.usage import measure


class Sandbox:
    """Containers without daemon and image store."""

    Config = config.Config

    def __init__(self, options: config.Config | None = None) -> None:
        self._config = options or config.Config()
        self._folders = config.folders(self._config)
        self._images = Images(self._folders, self._config.images)
        self._notices = Notices()
        self._engine: Engine | None = None
        self._setting_up = asyncio.Lock()

    async def teardown(self) -> None:
        """Let go; the containers go on."""
        self._notices.close()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    async def _get(self) -> Engine:
        """Return the engine, set up on first use, and again until that works."""
        async with self._setting_up:
            if self._engine is not None:
                return self._engine
            self._folders.make()
            engine = Engine(self._config, self._folders, await probe.look_around(self._config, self._folders))
            await engine.sweep()
            if not await probe.has_overlay(engine):
                engine.node = dataclasses.replace(engine.node, overlay=False)
            self._engine = engine
            return engine

    @hookimpl
    async def probe(self) -> Capabilities:
        engine = await self._get()
        await probe.try_out(engine)
        return probe.capabilities(engine.node)

    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        self._folders.make()
        return await self._images.ensure(image, report)

    @hookimpl
    async def images(self) -> Sequence[Image]:
        self._folders.make()
        return self._images.list()

    @hookimpl
    async def remove_image(self, image: str) -> None:
        engine = await self._get()
        await self._images.remove(image, engine.images_in_use())

    @hookimpl
    async def build_image(self, name: str, context: AsyncIterator[bytes], report: Report) -> Image:
        self._folders.make()
        return await self._images.build(name, context, report)

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        engine = await self._get()
        return engine.create(container, self._images.rootfs(container.image))

    @hookimpl
    async def start(self, id: str) -> None:
        await (await self._get()).start(id)

    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        await (await self._get()).stop(id, signal, grace_s)

    @hookimpl
    async def remove(self, id: str) -> None:
        await (await self._get()).remove(id)

    @hookimpl
    async def create_network(self, network: NetworkSpec) -> Network:
        return await (await self._get()).networks.create(network)

    @hookimpl
    async def remove_network(self, id: str) -> None:
        await (await self._get()).remove_network(id)

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        return (await self._get()).networks.find(labels)

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return (await self._get()).list(labels)

    @hookimpl
    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        engine = await self._get()
        async for event in read_events(engine.folders.containers, labels, self._notices):
            yield event

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        engine = await self._get()
        async for chunk in read_log(engine.box(id), offset, follow, self._notices):
            yield chunk

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> ExecStream:
        return await streams.open_exec(await self._get(), id, argv, env, user, workdir, tty)

    @hookimpl
    async def dial(self, id: str, port: int) -> ByteStream:
        return await streams.open_connection(await self._get(), id, port)

    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        async for piece in archive.get_archive(await self._get(), id, path):
            yield piece

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        await archive.put_archive(await self._get(), id, path, data)

    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        engine = await self._get()
        return await asyncio.to_thread(lambda: {id: usage for id in ids if (usage := measure(engine, id)) is not None})
