"""The life of a container on the engine: create, start, stop, remove, list."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState

from backendai_runtime_docker.engine import Engine, refused, sentence, together
from backendai_runtime_docker.network import Networks
from backendai_runtime_docker.orphans import end_orphan, was_begun
from backendai_runtime_docker.spec import Dialect, to_engine

CREATE_S, START_S, REMOVE_S, LIST_S, INSPECT_S, KILL_S = 40.0, 50.0, 50.0, 20.0, 10.0, 30.0
LOOKS = 16  # inspections at once
STATES = {"created": ContainerState.CREATED, "configured": ContainerState.CREATED, "initialized": ContainerState.CREATED,
          "running": ContainerState.RUNNING, "paused": ContainerState.RUNNING, "restarting": ContainerState.RUNNING,
          "stopping": ContainerState.RUNNING}  # every other is an end
FORGOTTEN = ("The container engine broke off while it started the container, so that nobody knows whether the command has run; "
             "it is not run again. Ask for the session anew.")
_FRACTION = re.compile(r"\.(\d{1,6})\d*")
_NO_PROGRAM = re.compile(r'exec: \\?"(?P<program>.*?)\\?": (?P<why>[^:\n]+)')


class Containers:
    """Every container of ours. What no longer changes is asked once: a running one's process and start, an ended one's end.

    dialect: how to ask for new ones. root: where the engine keeps its files.
    """

    def __init__(self, engine: Engine, networks: Networks, parallel: int) -> None:
        self._engine = engine
        self._networks = networks
        self._starts = asyncio.Semaphore(parallel)
        self._looks = asyncio.Semaphore(LOOKS)
        self._seen: dict[str, Container] = {}
        self._unsure: set[str] = set()  # asked to start, and not known to have
        self.dialect = Dialect()
        self.root = ""

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container without running it, and return its id."""
        async with self._starts:
            network = spec.net.network if spec.net is not None else await self._networks.mode(spec.network)
            try:
                made = await self._engine.ask("POST", "containers/create", params={"name": spec.name},
                                              data=to_engine(spec, network, self.dialect), within_s=CREATE_S)
            except DockerError as error:
                if (error.status == 409 or "already in use" in error.message) and (found := await self._inspect(spec.name)) is not None:
                    return str(found["Id"])
                raise _not_created(error, spec) from error
        return str(made["Id"])

    async def start(self, id: str) -> None:
        """Run a container; return once its first process runs. One that has run, or may have, is not run again."""
        async with self._starts:
            begun = was_begun(self.root, id)
            if (begun is not False or id in self._unsure) and (found := await self._inspect(id)) is not None:
                if to_container(found).state is not ContainerState.CREATED:
                    return
                if begun and not found["State"].get("Error"):  # else it knows that it did not start it
                    raise Failure("runtime-fault", FORGOTTEN, detail=id)
            self._unsure.add(id)
            try:
                await self._start(id)
            except DockerError as error:
                raise _not_started(error) from error
        self._unsure.discard(id)
        self._engine.doubted = ""

    async def _start(self, id: str) -> None:
        try:
            await self._engine.ask("POST", f"containers/{id}/start", within_s=START_S)
        except DockerError as error:
            if error.status != 404 or "network" not in error.message:
                raise
            self._networks.forget()  # another agent on this engine has removed it since the container was created
            await self._networks.mode("outward")
            await self._engine.ask("POST", f"containers/{id}/start", within_s=START_S)

    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        """Send *signal*, and SIGKILL after *grace_s*; return once it has ended."""
        if grace_s > 0 and signal != "SIGKILL":
            if not await self._signal(id, signal):
                return
            try:
                async with asyncio.timeout(grace_s):
                    await self._ended(id, grace_s + KILL_S)
                    return
            except TimeoutError:
                pass  # the grace is over
        if await self._signal(id, "SIGKILL"):
            await self._ended(id, KILL_S)

    async def remove(self, id: str) -> None:
        """Remove a container and what was made for it, killing it if it runs."""
        if id not in self._seen and was_begun(self.root, id):
            found = await self._inspect(id)
            if found is not None and to_container(found).state is ContainerState.CREATED:
                await end_orphan(id)
        try:
            await self._engine.ask("DELETE", f"containers/{id}", params={"force": True, "v": True}, within_s=REMOVE_S)
        except DockerError as error:
            if error.status == 409 and "already in progress" in error.message:
                await self._removed(id)
            elif error.status != 404:
                raise refused(error, "remove the container") from error
        self._seen.pop(id, None)
        self._unsure.discard(id)

    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """Return every container with *labels*."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        try:
            rows = await self._engine.get("containers/json", params={"all": True, "filters": filters}, within_s=LIST_S)
        except DockerError as error:
            raise refused(error, "list containers") from error
        found = [one for one in await together(map(self._look, rows)) if one is not None]
        self._forget(labels, found)
        return found

    async def pid(self, id: str) -> int:
        """Return the first process of a running container; raise ``Failure('conflict')`` when it does not run."""
        found = await self._inspect(id)
        if found is None or not (pid := found["State"].get("Pid")) or not found["State"].get("Running"):
            raise Failure("conflict", "The container does not run now.")
        return int(pid)

    async def user(self, id: str) -> tuple[int, int]:
        """Return the (uid, gid) that a container runs as; raise ``Failure('not-found')`` when it is gone."""
        if (found := await self._inspect(id)) is None:
            raise Failure("not-found", "The container is not there any more.")
        uid, _, gid = str(found["Config"].get("User") or "0").partition(":")
        return (int(uid), int(gid or 0)) if uid.isdigit() and (gid or "0").isdigit() else (0, 0)

    async def _look(self, row: Mapping[str, Any]) -> Container | None:
        """Return a listed container with all that is known of it; None when it went meanwhile."""
        id, state = str(row["Id"]), STATES.get(str(row["State"]).lower(), ContainerState.EXITED)
        if state is ContainerState.CREATED:
            return Container(id, _name(row["Names"]), state, dict(row["Labels"] or {}))
        seen = self._seen.get(id)
        if seen is not None and seen.state is state:
            return seen
        async with self._looks:
            details = await self._inspect(id)
        if details is None:
            return None
        found = to_container(details)
        if found.state is not ContainerState.CREATED:
            self._seen[id] = found
        return found

    def _forget(self, labels: Mapping[str, str], found: Iterable[Container]) -> None:
        there = {one.id for one in found}
        for id in [id for id, one in self._seen.items() if id not in there and labels.items() <= one.labels.items()]:
            del self._seen[id]

    async def _inspect(self, id: str) -> dict[str, Any] | None:
        try:
            details: dict[str, Any] = await self._engine.get(f"containers/{id}/json", within_s=INSPECT_S)
        except DockerError as error:
            if error.status == 404:
                return None
            raise refused(error, "look at the container") from error
        return details

    async def _signal(self, id: str, signal: str) -> bool:
        """Send *signal*; tell whether there was something to send it to."""
        try:
            await self._engine.ask("POST", f"containers/{id}/kill", params={"signal": signal}, within_s=KILL_S)
        except DockerError as error:
            if error.status in (404, 409) or "running containers" in error.message:
                return False
            raise refused(error, "stop the container") from error
        return True

    async def _ended(self, id: str, within_s: float) -> None:
        try:
            await self._engine.ask("POST", f"containers/{id}/wait", within_s=within_s)
        except DockerError as error:
            if error.status != 404:
                raise refused(error, "wait for the container") from error

    async def _removed(self, id: str) -> None:
        """Wait until a removal that someone else began is done."""
        try:
            await self._engine.ask("POST", f"containers/{id}/wait", params={"condition": "removed"}, within_s=REMOVE_S)
        except DockerError as error:
            if error.status != 404:
                raise refused(error, "remove the container") from error


def to_container(details: Mapping[str, Any]) -> Container:
    """Return what an inspection says."""
    state = details["State"]
    now = STATES.get(str(state["Status"]).lower(), ContainerState.EXITED)
    ended = now is ContainerState.EXITED
    started_at, ended_at = seconds(state.get("StartedAt")), seconds(state.get("FinishedAt")) if ended else None
    if started_at is not None and ended_at is not None:
        started_at = min(started_at, ended_at)  # Podman may note the start a little late
    return Container(
        id=str(details["Id"]), name=_name([details["Name"]]), state=now, labels=dict(details["Config"].get("Labels") or {}),
        exit_code=int(state["ExitCode"]) if ended else None, out_of_memory=ended and bool(state.get("OOMKilled")),
        pid=int(state["Pid"]) if now is ContainerState.RUNNING and state.get("Pid") else None,
        started_at=started_at, ended_at=ended_at,
        error=sentence(state["Error"]) if ended and state.get("Error") else "")


def seconds(text: str | None) -> float | None:
    """Return an engine's timestamp in seconds since the epoch; None for its zero time."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(_FRACTION.sub(r".\1", text).replace("Z", "+00:00")).timestamp()


def _name(names: Sequence[str]) -> str:
    return names[0].removeprefix("/") if names else ""


def _not_created(error: DockerError, spec: ContainerSpec) -> Failure:
    message = error.message.lower()
    if error.status == 404 and "image" in message:
        return Failure("bad-image", f"The image {spec.image} is no longer on this agent; try again, and it will be fetched.")
    if "no command specified" in message:
        return Failure("bad-image", f"The image {spec.image} does not say what to run; give a command.", detail=str(error))
    if "bind source path does not exist" in message or "mount" in message:
        return Failure("bad-mount", f"The container cannot have its mounts: {sentence(error.message)}", detail=str(error))
    return refused(error, "create the container")


def _not_started(error: DockerError) -> Failure:
    if error.status == 404 and "no such container" in error.message.lower():
        return Failure("not-found", "The container is not there any more.", detail=str(error))
    if (found := _NO_PROGRAM.search(error.message)) is not None:
        return Failure("runtime-fault", f"{found['program']} cannot be run in this image: {sentence(found['why'])}", detail=str(error))
    return refused(error, "start the container")
