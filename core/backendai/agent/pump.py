"""Taking a container's output from its runtime into our own file, from where it was left off to its very end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any, cast

from backendai.agent.health import explain
from backendai.agent.kernel import Kernel
from backendai.agent.look import Lookout
from backendai.agent.node import Node
from backendai.spec.runtime_v10 import ContainerState

log = logging.getLogger(__name__)
TURN = 64  # chunks that are taken before others have their turn
QUIET_S = 60.0  # that the rest of an ended container's output may take between two chunks
PAUSE_S = 1.0
TRIES = 5  # for the rest of an ended container's output


async def pump(node: Node, kernel: Kernel, lookout: Lookout) -> None:
    """Follow the output; once the container has ended, ask for the rest; then ``kernel.drained`` is set."""
    failures = 0
    while True:
        container = kernel.container
        if container is None:
            return  # nothing is left to ask
        ended = container.state is ContainerState.EXITED
        try:
            kernel.output.open()
            await _take(node, kernel, container.id, ended)
            if ended:
                break
            await lookout.look()
            if kernel.container is not None and kernel.container.state is ContainerState.RUNNING:
                await asyncio.sleep(PAUSE_S)  # the stream broke off while it runs
        except Exception as error:
            failures += ended
            log.log(logging.INFO if node.health.why else logging.WARNING, "kernel %s: its output cannot be taken now: %s", kernel.id,
                    explain(error))
            if isinstance(error, OSError):
                node.health.doubt(error)
            if failures >= TRIES:
                _say_lost(kernel, explain(error))
                break
            await asyncio.sleep(PAUSE_S)
    kernel.drained.set()
    kernel.changed.set()


async def _take(node: Node, kernel: Kernel, id: str, ended: bool) -> None:
    chunks = node.runtime.logs(id, kernel.output.next, not ended)
    count = 0
    async with aclosing(cast(Any, chunks)):
        while True:
            async with asyncio.timeout(QUIET_S if ended else None):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            kernel.output.write(chunk.stream, chunk.data, chunk.next)
            count += 1
            if count % TURN == 0:
                await asyncio.sleep(0)


def _say_lost(kernel: Kernel, why: str) -> None:
    """Leave a word for the reader where output is missing, if the disk lets us."""
    try:
        kernel.output.write(2, f"\n[The rest of the output could not be had: {why}]\n".encode(), kernel.output.next)
    except (OSError, ValueError):
        log.warning("kernel %s: not even that could be written", kernel.id)
