"""The engine of this node, and all that is known of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Capabilities

from backendai_runtime_docker.containers import Containers
from backendai_runtime_docker.engine import HINT, Engine, refused, together
from backendai_runtime_docker.images import find_image, list_images
from backendai_runtime_docker.network import Networks
from backendai_runtime_docker.probe import ASK_S, capabilities, is_podman, try_start, user_space
from backendai_runtime_docker.sessions import SessionNetworks
from backendai_runtime_docker.spec import LOCAL_LOG, Dialect

PROOF_S = 5.0  # of a probe's time
PODMAN_LOG: dict[str, Any] = {"Type": "k8s-file"}


@dataclass(frozen=True, slots=True)
class Options:
    """url: ``unix:///path``; empty: DOCKER_HOST, or where Docker and Podman usually listen. network: the outward network's name.

    pool: addresses for the networks of sessions with several kernels.

    parallel_starts: containers created or started at once. build_network, build_args: for ``bai image build``.
    """

    url: str = ""
    default_image: str = "debian:bookworm-slim"
    network: str = "backendai"
    pool: str = "10.232.0.0/13"
    parallel_starts: int = 20
    build_network: str = ""
    build_args: dict[str, str] = field(default_factory=dict)


class Node:
    """Everything that lives as long as the plugin. podman: the engine is one. root: where it keeps its files."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.engine = Engine(options.url)
        self.networks = Networks(self.engine, options.network)
        self.sessions = SessionNetworks(self.engine, options.pool)
        self.containers = Containers(self.engine, self.networks, options.parallel_starts)
        self.podman = False
        self.root = ""
        self._trial: asyncio.Task[None] | None = None

    async def probe(self) -> Capabilities:
        """Ask the engine what it is; if it was late before, let it prove that it still starts containers."""
        try:
            version, info = await together(self.engine.get(what, within_s=ASK_S) for what in ("version", "info"))
        except DockerError as error:
            raise refused(error, "say what it is") from error
        found = capabilities(version, info, self._options.default_image, self._options.parallel_starts)
        self.podman = is_podman(version)
        self.networks.user_space = user_space() if self.podman else ""
        self.containers.dialect = Dialect(PODMAN_LOG if self.podman else LOCAL_LOG, frozenset(found.missing))
        self.networks.forget()
        self.root = self.containers.root = "" if self.podman else str(info.get("DockerRootDir") or "")
        if self.engine.doubted:
            await self._try()
        return found

    async def _try(self) -> None:
        """Let the engine prove that it starts containers. A slow one may take longer than a probe; the next probe asks again."""
        if self._trial is None:
            self._trial = asyncio.create_task(self._try_start())
        done, _ = await asyncio.wait([self._trial], timeout=PROOF_S)
        if not done:
            raise Failure("unavailable", f"The container engine is tried: {self.engine.doubted}; {HINT}.")
        trial, self._trial = self._trial, None
        await trial

    async def _try_start(self) -> None:
        if image := await self._some_image():
            await try_start(self.engine, image)

    async def close(self) -> None:
        """Remove what no container needs any more, and let go of the engine."""
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.gather(self._trial, return_exceptions=True)
        try:
            if self.engine.used:
                await self.networks.remove()
        except Failure:
            pass  # an engine that does not answer keeps it until the next time
        await self.engine.close()

    async def _some_image(self) -> str:
        """Return the id of any image that is here."""
        if (found := await find_image(self.engine, self._options.default_image)) is not None:
            return found.id
        every = await list_images(self.engine)
        return every[0].id if every else ""
