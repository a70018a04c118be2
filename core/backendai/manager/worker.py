"""A thread of one resource group's own, in which its plugins decide: one that hangs keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], object], asyncio.AbstractEventLoop, "asyncio.Future[object]"]


class Worker:
    """Runs one function after the other in a thread that does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.busy = False  # with something that was asked of it
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work* there and return its answer. Cancelled, it is not waited for, and goes on."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self.busy = True
        self._jobs.put((work, loop, answer))
        return await answer  # type: ignore[return-value]  # what work returned

    def close(self) -> None:
        """Let the thread end once it is done."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, loop, answer = job
            try:
                result, error = work(), None
            except BaseException as problem:
                result, error = None, problem
            self.busy = not self._jobs.empty()
            with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
                loop.call_soon_threadsafe(_tell, answer, result, error)


def _tell(answer: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if answer.done():  # whoever asked has gone
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
