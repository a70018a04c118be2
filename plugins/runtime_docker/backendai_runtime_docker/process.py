"""A process inside a container, from outside."""

from __future__ import annotations

import asyncio
import os
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiodocker import DockerError
from backendai.model.errors import Failure

from backendai_runtime_docker.engine import HINT, Engine, refused, sentence
from backendai_runtime_docker.logs import HEADER

ASK_S = 20.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.005, 1.0  # between two questions whether it has ended
READ = 65536
NOT_RUN = b"OCI runtime exec failed"


async def run_inside(engine: Engine, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None,
                     workdir: str | None, tty: bool) -> Process:
    """Run *argv* inside the container *id*."""
    body = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": tty, "Cmd": list(argv),
            "Env": [f"{name}={value}" for name, value in env.items()], "DetachKeys": ""}
    if user is not None:
        body["User"] = f"{user[0]}:{user[1]}"
    if workdir is not None:
        body["WorkingDir"] = workdir
    try:
        made = await engine.ask("POST", f"containers/{id}/exec", data=body, within_s=ASK_S)
        reader, writer = await engine.hijack(f"exec/{made['Id']}/start", {"Detach": False, "Tty": tty}, within_s=ASK_S)
    except DockerError as error:
        if error.status in (404, 409) or "running containers" in error.message:
            raise Failure("conflict", "The container does not run now.", detail=str(error)) from error
        raise refused(error, f"run {argv[0]}") from error
    return Process(engine, str(made["Id"]), tty, reader, writer)


class Process:
    """The stream to and from one process."""

    def __init__(self, engine: Engine, id: str, tty: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._id = id
        self._tty = tty
        self._reader = reader
        self._writer = writer
        self._left: tuple[int, int] | None = None  # stream and bytes of the frame that is being read

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output, None at the end."""
        try:
            if self._tty:
                data = await self._reader.read(READ)
                return (1, data) if data else None
            while self._left is None or not self._left[1]:
                stream, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                self._left = (2 if stream == 2 else 1), length
            stream, length = self._left
            data = await self._reader.read(min(length, READ))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Failure("unavailable", f"The output of the process broke off; {HINT}.") from error
            return None
        except OSError as error:
            raise Failure("unavailable", f"The output of the process broke off; {HINT}.", detail=repr(error)) from error
        if not data:
            raise Failure("unavailable", f"The output of the process broke off; {HINT}.")
        self._left = stream, length - len(data)
        if data.startswith(NOT_RUN) and (await self._inspect()).get("ExitCode") in (126, 127):
            return 2, data  # the engine's own word, which it mixes into the output
        return stream, data

    async def write(self, data: bytes) -> None:
        """Send *data* to its input; what a process no longer reads is dropped, as by a pipe that it has closed."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            pass  # it has ended, or has had the end of its input

    async def end_input(self) -> None:
        """Close its input; a terminal is told so in its own way."""
        if self._tty:
            await self.write(b"\x04")
            return
        try:
            if self._writer.can_write_eof() and not self._writer.is_closing():
                self._writer.write_eof()
        except OSError:
            pass  # it has ended

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal a new size."""
        if not self._tty:
            return
        try:
            await self._engine.ask("POST", f"exec/{self._id}/resize", params={"h": rows, "w": columns}, within_s=ASK_S)
        except DockerError as error:
            if error.status < 500 and await self._pid():
                raise refused(error, "resize the terminal") from error

    async def signal(self, signal: str) -> None:
        """Send *signal* to the process; one that has ended is left alone."""
        try:
            number = signals.Signals[signal]
        except KeyError:
            raise Failure("invalid-request", f"There is no signal {signal}; use SIGINT, SIGTERM or the like.") from None
        if not (pid := await self._pid()):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has just ended
        except PermissionError:
            raise Failure("unsupported", "The agent may not signal the container's processes; run it as the engine's own user.") from None

    async def exit_code(self) -> int:
        """Wait for the end of the process and return its status."""
        details = await self._until(lambda now: not now.get("Running") and now.get("ExitCode") is not None)
        return int(details["ExitCode"])

    async def close(self) -> None:
        """Let go of the stream."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # closed by the other side

    async def _pid(self) -> int:
        """Return the process's id on the node, 0 once it has ended. The engine takes a moment to know it."""
        details = await self._until(lambda now: bool(now.get("Pid")) or not now.get("Running"))
        return int(details["Pid"]) if details.get("Running") else 0

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        pause = FIRST_LOOK_S
        while not condition(details := await self._inspect()):
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK_S)
        return details

    async def _inspect(self) -> dict[str, Any]:
        try:
            details: dict[str, Any] = await self._engine.get(f"exec/{self._id}/json", within_s=ASK_S)
        except DockerError as error:
            if error.status == 404:
                raise Failure("conflict", f"The container has ended and taken the process with it: {sentence(error.message)}") from error
            raise refused(error, "look at the process") from error
        return details
