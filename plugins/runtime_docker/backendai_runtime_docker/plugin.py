"""The wiring of the runtime ``docker``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from backendai.spec import hookimpl
from backendai.spec import runtime_v10 as v10

from backendai_runtime_docker import archive, dial, events, images, logs, process, stats
from backendai_runtime_docker.node import Node, Options


class Docker:
    """Containers by Docker 20.10+ or Podman 4.3+."""

    Config = Options

    def __init__(self, config: Options | None = None) -> None:
        self.options = config or Options()
        self.node = Node(self.options)

    async def teardown(self) -> None:
        await self.node.close()

    @hookimpl
    async def probe(self) -> v10.Capabilities:
        return await self.node.probe()

    @hookimpl
    async def ensure_image(self, image: str, report: v10.Report) -> v10.Image:
        return await images.find_image(self.node.engine, image) or await images.pull_image(self.node.engine, image, report)

    @hookimpl
    async def create(self, container: v10.ContainerSpec) -> str:
        return await self.node.containers.create(container)

    @hookimpl
    async def start(self, id: str) -> None:
        await self.node.containers.start(id)

    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        await self.node.containers.stop(id, signal, grace_s)

    @hookimpl
    async def remove(self, id: str) -> None:
        await self.node.containers.remove(id)

    @hookimpl
    async def create_network(self, network: v10.NetworkSpec) -> v10.Network:
        return await self.node.sessions.create(network)

    @hookimpl
    async def remove_network(self, id: str) -> None:
        await self.node.sessions.remove(id)

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[v10.Network]:
        return await self.node.sessions.list(labels)

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[v10.Container]:
        return await self.node.containers.list(labels)

    @hookimpl
    def events(self, labels: Mapping[str, str]) -> AsyncIterator[v10.Event]:
        return events.watch(self.node.engine, labels)

    @hookimpl
    def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[v10.LogChunk]:
        return logs.read_logs(logs.Source(self.node.engine, id, self.node.podman, self.node.root), offset, follow)

    @hookimpl
    async def images(self) -> Sequence[v10.Image]:
        return await images.list_images(self.node.engine)

    @hookimpl
    async def remove_image(self, image: str) -> None:
        await images.remove_image(self.node.engine, image)

    @hookimpl
    async def build_image(self, name: str, context: AsyncIterator[bytes], report: v10.Report) -> v10.Image:
        return await images.build_image(self.node.engine, name, context, report, self.options.build_args, self.options.build_network)

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> v10.ExecStream:
        return await process.run_inside(self.node.engine, id, argv, env, user, workdir, tty)

    @hookimpl
    def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        return archive.get_archive(self.node.engine, id, path)

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        await archive.put_archive(self.node.engine, id, path, data, await self.node.containers.user(id))

    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, v10.Usage]:
        return await stats.measure(self.node.engine, ids)

    @hookimpl
    async def dial(self, id: str, port: int) -> v10.ByteStream:
        return await dial.dial(await self.node.containers.pid(id), port)
