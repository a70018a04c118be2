"""Making what is equal to what should be: the desired set in, one task for each kernel, and nothing left over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from backendai.agent.container import AGENT, CLUSTER, KERNEL
from backendai.agent.health import explain
from backendai.agent.journal import Entry
from backendai.agent.kernel import Kernel
from backendai.agent.life import LONGEST_PAUSE_S, PAUSE_S, Life
from backendai.agent.look import Lookout
from backendai.agent.node import Node
from backendai.agent.output import Output
from backendai.agent.scratch import remove_scratch
from backendai.model.ids import is_id
from backendai.spec.runtime_v10 import Container
from backendai.wire.link import Desired, KernelOrder, KernelState, Observed, Want

log = logging.getLogger(__name__)


class Reconciler:
    """Owner of every kernel. told: the manager has said all that it wants, so that what nobody wants may be removed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.kernels: dict[str, Kernel] = {}
        self.told = False
        self.lookout = Lookout(node.runtime, {AGENT: node.id}, node.health, node.config.resync_s, self._see)
        self._seen: dict[str, Container] = {}
        self._lives: asyncio.TaskGroup | None = None  # once the first look tells what is there
        self._starts = asyncio.Semaphore(1)
        self._leftovers: dict[str, asyncio.Task[None]] = {}
        self._sweep_due, self._sweeping = False, False
        for entry in node.journal.load().values():
            kernel = self.kernels[entry.order.kernel] = Kernel(entry, self._output(entry.order.kernel))
            kernel.output.done = entry.state in (KernelState.EXITED, KernelState.GONE)
            if entry.grants is not None:
                node.devices.allocator.restore(kernel.id, entry.grants)
            if entry.state is not KernelState.GONE:
                node.networks.hold(entry.order)

    async def run(self) -> None:
        """Reconcile for ever; nothing is decided before the runtime has once told what it has."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.lookout.run())
            group.create_task(self.lookout.listen())
            await self.lookout.looked.wait()
            capabilities = self._node.health.capabilities
            self._starts = asyncio.Semaphore(max(1, capabilities.parallel_starts if capabilities else 1))
            self._lives = group
            for kernel in self.kernels.values():
                group.create_task(self._live(kernel))
            self._clear(self._folders())

    def apply(self, desired: Desired) -> None:
        """Take in what the manager wants; when this returns it is journalled."""
        for order in desired.put:
            self._put(order)
        for id in desired.drop:
            self._drop(id)
        if desired.full:
            for id in self.kernels.keys() - {order.kernel for order in desired.put}:
                self._drop(id)
            self.told = True
            self._sweep_due = True
            self._clear(self._folders())
            self.lookout.ask()

    def purge(self, kernels: Sequence[str]) -> None:
        """Delete logs; that of a kernel which is still here goes with it."""
        for id in filter(is_id, kernels):
            if (kernel := self.kernels.get(id)) is None:
                self._node.log_path(id).unlink(missing_ok=True)
            else:
                kernel.entry.purge = True
                self._node.journal.save(kernel.entry)

    def observed(self) -> tuple[Observed, ...]:
        """Return everything that is known of every kernel."""
        return tuple(kernel.entry.observed() for kernel in self.kernels.values())

    def logs(self) -> tuple[str, ...]:
        """Return the kernels of which only the log is left."""
        return tuple(path.stem for path in self._node.config.logs.glob("*.log") if path.stem not in self.kernels)

    def wake(self) -> None:
        """Have everyone who waits to try again do so: the runtime answers, or devices have become free."""
        for kernel in self.kernels.values():
            if kernel.failures:
                kernel.changed.set()

    def _output(self, kernel: str) -> Output:
        return Output(self._node.log_path(kernel), self._node.config.log_limit)

    def _put(self, order: KernelOrder) -> None:
        kernel = self.kernels.get(order.kernel)
        if kernel is None:
            self._node.log_path(order.kernel).unlink(missing_ok=True)  # an earlier life's
            entry = Entry(order)
            self._node.journal.save(entry)
            self._node.networks.hold(order)
            kernel = self.kernels[order.kernel] = Kernel(entry, self._output(order.kernel))
            if self._lives is not None:
                self._lives.create_task(self._live(kernel))
        elif kernel.entry.dropped:
            kernel.again = order if order.want is Want.RUN else None  # first the old life ends
        elif order != kernel.entry.order:
            kernel.entry.order = order
            self._node.journal.save(kernel.entry)
            kernel.interrupt()
        self._node.outbox.tell(order.kernel)

    def _drop(self, id: str) -> None:
        if (kernel := self.kernels.get(id)) is None:
            return
        kernel.again = None
        if not kernel.entry.dropped:
            kernel.entry.dropped = True
            self._node.journal.save(kernel.entry)
            kernel.interrupt()

    async def _live(self, kernel: Kernel) -> None:
        if (removing := self._leftovers.get(kernel.id)) is not None:
            await asyncio.wait([removing])
        if kernel.container is None:
            kernel.container = self._seen.get(kernel.id)
        await Life(self._node, kernel, self.lookout, self._starts, self.wake).run()
        self._seen.pop(kernel.id, None)
        del self.kernels[kernel.id]
        if kernel.again is not None:
            try:
                self._put(kernel.again)
            except OSError as error:  # the manager gives up waiting for it, and places it anew
                self._node.health.doubt(error)

    def _see(self, found: Sequence[Container], began: float) -> None:
        """Let every kernel see its container, and remove what is ours and nobody's."""
        self._seen = {container.labels.get(KERNEL, container.name): container for container in found}
        for id, kernel in self.kernels.items():
            kernel.see(self._seen.get(id), began)
        self._clear(set())

    def _folders(self) -> set[str]:
        return {path.name for path in self._node.config.scratch.iterdir()}

    def _clear(self, folders: set[str]) -> None:
        """Remove containers, and scratch *folders*, that belong to no kernel, once it is known what should be and what is."""
        if self._lives is None or not self.told:
            return
        ours = {id for id, container in self._seen.items() if container.labels.get(CLUSTER, "") == self._node.cluster}
        if self._sweep_due and not self._sweeping:
            self._sweep_due, self._sweeping = False, True
            self._lives.create_task(self._sweep())
        for id in ours | folders:
            if id not in self.kernels and id not in self._leftovers:
                self._leftovers[id] = self._lives.create_task(self._remove_leftover(id, self._seen.get(id)))

    async def _sweep(self) -> None:
        """Remove the networks that nobody needs, once; containers that are still in one are leftovers that go first."""
        pause = PAUSE_S
        while True:
            try:
                await asyncio.gather(*self._leftovers.values())
                await self._node.networks.sweep()
            except Exception as error:
                log.warning("networks that nobody needs cannot be removed now: %s", explain(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self._sweeping = False
                return

    async def _remove_leftover(self, id: str, container: Container | None) -> None:
        pause = PAUSE_S
        while True:
            try:
                if container is not None:
                    log.warning("removing the container %s, which nobody wants", container.name)
                    await self._node.runtime.remove(container.id)
                await asyncio.to_thread(remove_scratch, self._node.config.scratch / id)
            except Exception as error:
                log.warning("what is left of %s cannot be removed now: %s", id, explain(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self._seen.pop(id, None)
                del self._leftovers[id]
                return
