"""A connection to a port inside a container: the socket is made in its network, whatever that is."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading

from backendai.model.errors import Failure

CONNECT_S = 10.0
CLONE_NEWNET = 0x40000000
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def dial(pid: int, port: int) -> Stream:
    """Connect to *port* on the loopback of the network of the process *pid*."""
    refusal: OSError | None = None
    for family, address in LOOPBACKS:
        opened = await _socket_inside(pid, family)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(opened, (address, port))
                return Stream(*await asyncio.open_connection(sock=opened))
        except (OSError, TimeoutError) as error:
            opened.close()
            refusal = refusal or OSError(str(error))
        except BaseException:
            opened.close()
            raise
    raise Failure("conflict", f"Nothing listens on port {port} in the container.", detail=str(refusal))


async def _socket_inside(pid: int, family: int) -> socket.socket:
    """Make a socket in the network of *pid*. A thread enters it and ends there: a thread of a pool would stay inside."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[socket.socket] = loop.create_future()

    def settle(made: socket.socket | None, error: OSError | None) -> None:
        if made is not None and future.cancelled():
            made.close()
        elif made is not None:
            future.set_result(made)
        elif error is not None and not future.cancelled():
            future.set_exception(error)

    def work() -> None:
        made, problem = None, None
        try:
            made = _enter_and_make(pid, family)
        except OSError as error:
            problem = error
        loop.call_soon_threadsafe(settle, made, problem)

    threading.Thread(target=work, daemon=True).start()
    try:
        return await future
    except PermissionError as error:
        raise Failure("unsupported", "The agent may not enter the container's network; that needs root.", detail=str(error)) from error
    except OSError as error:
        raise Failure("conflict", "The container does not run now.", detail=str(error)) from error


def _enter_and_make(pid: int, family: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(space, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(space)
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


class Stream:
    """A connection, as the contract has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 65536) -> bytes:
        """Return some bytes, empty at the end."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send *data*."""
        self._writer.write(data)
        await self._writer.drain()

    async def end_output(self) -> None:
        """End our direction."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def close(self) -> None:
        """End both directions."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # closed by the other side
