"""One kernel's life: take the next step, look at what came of it, decide again. What must survive us is journalled before it is done."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from backendai.agent import boot
from backendai.agent.container import container_name, container_spec
from backendai.agent.health import explain, is_passing
from backendai.agent.kernel import Kernel
from backendai.agent.look import Lookout
from backendai.agent.networks import Place
from backendai.agent.node import Node
from backendai.agent.pump import pump
from backendai.agent.scratch import make_scratch, remove_scratch
from backendai.agent.steps import Step, next_step
from backendai.model.errors import Failure
from backendai.spec.accelerator_v21 import Grant
from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState, Edits
from backendai.wire.link import KernelState

log = logging.getLogger(__name__)
BEGINNING = frozenset({Step.RESERVE, Step.FETCH, Step.CREATE, Step.START})
TRIES = 3  # to fetch an image while the runtime is well and says that it cannot just now
PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
DRAIN_S = 10.0  # for a follower to notice the end of a container, before the rest of its output is asked for anew
MOUNTS_S = 10.0
STOP_S = 30.0  # that stopping may take beyond the grace


class Life:
    """Follow the steps of one kernel. starts: bounds how many containers are made at once; freed: wakes those who wait for devices."""

    def __init__(self, node: Node, kernel: Kernel, lookout: Lookout, starts: asyncio.Semaphore, freed: Callable[[], None]) -> None:
        self._node = node
        self._kernel = kernel
        self._lookout = lookout
        self._starts = starts
        self._freed = freed
        self._look_s = boot.LOOK_S
        self._scratch = node.config.scratch / kernel.id
        self._do: dict[Step, Callable[[], Awaitable[None]]] = {
            Step.RESERVE: self._reserve, Step.FETCH: self._fetch, Step.CREATE: self._create, Step.START: self._start,
            Step.BOOT: self._boot, Step.MARK_RUNNING: self._mark_running, Step.WATCH: self._watch, Step.STOP: self._stop,
            Step.DRAIN: self._drain,
            Step.RECORD_EXIT: self._record_exit, Step.LOSE: self._lose, Step.REMOVE: self._remove, Step.CLEAN: self._clean,
            Step.FORGET: self._forget}

    async def run(self) -> None:
        """Return once there is nothing left to do and nothing left to remember."""
        kernel = self._kernel
        try:
            while True:
                kernel.changed.clear()
                self._pump()
                step = next_step(kernel.facts())
                try:
                    await self._do[step]()
                except Exception as error:
                    await self._failed(step, error)
                else:
                    kernel.failures = 0
                    if step is Step.FORGET:
                        return
        finally:
            await self._end_pump()

    async def _failed(self, step: Step, error: Exception) -> None:
        """Give up what cannot be begun; try everything else again, after a pause that any change cuts short."""
        kernel = self._kernel
        kernel.failures += 1
        passing = is_passing(error)
        if passing and step is not Step.RESERVE:
            await self._doubt(step, error)
        log.log(logging.INFO if isinstance(error, Failure) else logging.WARNING, "kernel %s: %s failed: %s", kernel.id, step,
                explain(error), exc_info=None if passing or isinstance(error, Failure) else error)
        if step in BEGINNING and (not passing or self._too_late(step) or (
                step is Step.FETCH and kernel.failures >= TRIES and not self._node.health.why)):
            entry = kernel.entry
            entry.error, entry.code = explain(error), error.code if isinstance(error, Failure) else "runtime-fault"
            entry.ended_at = time.time()
            try:
                self._save()
            except OSError as worse:  # the disk is full; what follows tries to save again
                self._node.health.doubt(worse)
        else:
            await self._pause(min(PAUSE_S * 2 ** min(kernel.failures, 10), LONGEST_PAUSE_S))

    async def _doubt(self, step: Step, error: Exception) -> None:
        """Find out whether it is the runtime that does not work, or only something behind it, such as a registry."""
        if step is Step.FETCH:
            try:
                await self._lookout.look()
            except (Failure, TimeoutError):
                log.debug("the runtime does not answer a look either")
        else:
            self._node.health.doubt(error)
            self._lookout.ask()

    def _too_late(self, step: Step) -> bool:
        order, begun = self._kernel.entry.order, self._kernel.begun
        return begun is not None and time.monotonic() - begun >= (order.prepare_s if step is Step.FETCH else order.start_s)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._kernel.changed.wait()
        except TimeoutError:
            pass  # nothing has changed, and it is time again

    def _save(self, tell: bool = True) -> None:
        self._node.journal.save(self._kernel.entry)
        if tell:
            self._node.outbox.tell(self._kernel.id)

    def _enter(self, state: KernelState) -> None:
        """Begin a phase; its deadline counts from the first try in this process."""
        if self._kernel.entry.state is not state or self._kernel.begun is None:
            self._kernel.begun = time.monotonic()
        if self._kernel.entry.state is not state:
            self._kernel.entry.state = state
            self._node.outbox.tell(self._kernel.id)

    async def _reserve(self) -> None:
        if self._kernel.begun is None:
            self._kernel.begun = time.monotonic()
        entry = self._kernel.entry
        entry.grants = self._node.devices.allocator.take(self._kernel.id, entry.order.slots, entry.order.units)
        self._save(tell=False)

    async def _fetch(self) -> None:
        self._enter(KernelState.PREPARING)
        await self._interruptible(self._fetch_image())

    async def _fetch_image(self) -> None:
        entry, capabilities = self._kernel.entry, self._node.health.capabilities
        name = entry.order.image or (capabilities.default_image if capabilities else "")
        if not name:
            raise Failure("bad-image", "This agent's runtime has no default image; name one with --image.")
        try:
            async with asyncio.timeout(entry.order.prepare_s) as limit:
                found = await self._node.runtime.ensure_image(name, lambda at: self._node.outbox.advance(self._kernel.id, at))
        except TimeoutError:
            if limit.expired():
                raise Failure("deadline", f"The image {name} was not fetched within {entry.order.prepare_s:g} s.") from None
            raise
        entry.image = found.name

    async def _create(self) -> None:
        entry, node = self._kernel.entry, self._node
        self._enter(KernelState.STARTING)
        grants: tuple[Grant, ...] = entry.grants or ()
        place = await node.networks.join(entry.order, node.cluster)
        spec = await self._spec(node.devices.edits(grants), place)
        async with self._starts:
            with self._kernel.acting():
                scratch = node.config.scratch / self._kernel.id
                make_scratch(scratch, entry.order.user)
                if entry.order.bootstrap:
                    boot.make_boot(scratch, entry.order.bootstrap, entry.order.user)
                await node.devices.prepare(spec.name, grants)
                entry.container = await node.runtime.create(spec)
        self._save(tell=False)
        self._kernel.container = Container(entry.container, spec.name, ContainerState.CREATED)
        self._recheck()

    async def _spec(self, edits: Edits, place: Place | None) -> ContainerSpec:
        entry, node = self._kernel.entry, self._node
        make = functools.partial(container_spec, entry.order, entry.image, edits, node.surroundings(), _resolve,
                                 place.endpoint if place else None, place.hosts if place else None)
        if not entry.order.mounts:
            return make()
        try:
            async with asyncio.timeout(MOUNTS_S):
                return await asyncio.get_running_loop().run_in_executor(node.mount_threads, make)
        except TimeoutError:
            raise Failure("bad-mount", "The file system of a mount does not answer; ask your administrator to look at it.") from None

    async def _start(self) -> None:
        kernel = self._kernel
        self._enter(KernelState.STARTING)
        container = kernel.container
        assert container is not None  # the step is for a created container
        async with self._starts:
            with kernel.acting():
                await self._node.runtime.start(container.id)
        if kernel.container is container:  # nobody has seen it older meanwhile
            kernel.container = Container(container.id, container.name, ContainerState.RUNNING, started_at=time.time())
        self._recheck()

    async def _boot(self) -> None:
        """Look whether the script has ended; if not, come again. Past its deadline the container is stopped, which ends the kernel."""
        kernel, entry = self._kernel, self._kernel.entry
        if boot.status_of(self._scratch) == 0:
            kernel.booted = True
            return
        self._enter(KernelState.STARTING)
        begun = kernel.container.started_at if kernel.container else None
        if begun is not None and time.time() - begun > entry.order.bootstrap_s:
            entry.stopping, entry.why = True, "time-limit"
            self._save(tell=False)
        else:
            await self._pause(self._look_s)
            self._look_s = min(self._look_s * 1.5, boot.LONGEST_LOOK_S)

    async def _mark_running(self) -> None:
        entry, container = self._kernel.entry, self._kernel.container
        assert container is not None  # the step is for a running container
        entry.container = container.id
        began = None if entry.order.bootstrap else container.started_at  # the time of a script does not count
        entry.started_at = entry.started_at or began or time.time()
        entry.state = KernelState.RUNNING
        self._save()

    async def _watch(self) -> None:
        ends_at = self._kernel.ends_at if self._kernel.entry.state is KernelState.RUNNING else None
        if ends_at is None:
            await self._kernel.changed.wait()
        else:
            await self._pause(max(0.0, ends_at - time.time()))

    async def _stop(self) -> None:
        entry, container = self._kernel.entry, self._kernel.container
        assert container is not None  # the step is for a running container
        if not entry.stopping:
            facts = self._kernel.facts()
            entry.stopping, entry.why = True, "time-limit" if facts.wanted and not facts.dropped else "stopped"
            entry.container = container.id
            self._save(tell=False)
        await self._interruptible(self._stop_container(container.id, entry.order.grace_s))

    async def _stop_container(self, id: str, grace_s: float) -> None:
        async with asyncio.timeout(grace_s + STOP_S):
            await self._node.runtime.stop(id, "SIGTERM", grace_s)
        await self._lookout.look()
        if self._kernel.container is not None and self._kernel.container.state is ContainerState.RUNNING:
            raise Failure("runtime-fault", "The container runs on although it was stopped.")

    async def _drain(self) -> None:
        output = self._kernel.output
        before = output.next
        await self._pause(DRAIN_S)
        if not self._kernel.changed.is_set() and output.next == before:
            await self._end_pump()  # the follower has not noticed; a new one asks for the rest only

    async def _record_exit(self) -> None:
        entry, container = self._kernel.entry, self._kernel.container
        assert container is not None  # the step is for an ended container
        entry.container, entry.exit_code = container.id, container.exit_code
        if not entry.order.bootstrap or entry.started_at is None:
            entry.started_at = container.started_at or entry.started_at  # the engine's clock for both ends
        entry.ended_at = container.ended_at or time.time()
        if container.out_of_memory:
            entry.why = "out-of-memory"
        if container.error or container.exit_code is None:
            entry.error, entry.code = container.error or "The container runtime lost the exit code.", "runtime-fault"
        elif entry.order.bootstrap and entry.state is not KernelState.RUNNING and (entry.why == "time-limit" or not entry.why):
            overdue = entry.why == "time-limit"
            entry.error = boot.complaint(boot.status_of(self._scratch), entry.exit_code, overdue, entry.order.bootstrap_s)
            entry.code = "bad-bootstrap" if entry.error else ""
        self._kernel.output.finish(self._node.config.fsync)
        entry.state = KernelState.EXITED
        self._save()

    async def _lose(self) -> None:
        entry = self._kernel.entry
        entry.error = "The container runtime no longer has this container; it was removed behind our back or the node was reset."
        entry.code, entry.ended_at = "runtime-fault", time.time()
        self._save(tell=False)

    async def _remove(self) -> None:
        container = self._kernel.container
        assert container is not None  # the step is for a container that is there
        with self._kernel.acting():
            await self._node.runtime.remove(container.id)
        self._kernel.container = None

    async def _clean(self) -> None:
        kernel, node = self._kernel, self._node
        if kernel.entry.grants:
            await node.devices.release(container_name(kernel.id), kernel.entry.grants)
        await node.networks.leave(kernel.entry.order)
        if self._scratch.exists():
            await asyncio.to_thread(remove_scratch, self._scratch)
        await self._end_pump()
        kernel.output.finish()
        node.devices.allocator.free(kernel.id)
        kernel.entry.grants, kernel.entry.ended_at = None, kernel.entry.ended_at or time.time()
        kernel.entry.state = KernelState.GONE
        self._save()
        self._freed()

    async def _forget(self) -> None:
        if self._kernel.entry.purge:
            self._node.log_path(self._kernel.id).unlink(missing_ok=True)
        self._node.journal.forget(self._kernel.id)

    async def _interruptible(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* unless a new order comes; then the next step is decided anew."""
        task = self._kernel.waiting = asyncio.create_task(work)
        me = asyncio.current_task()
        try:
            await task
        except asyncio.CancelledError:
            if me is not None and me.cancelling():
                raise
        finally:
            self._kernel.waiting = None

    def _recheck(self) -> None:
        if self._kernel.stale:
            self._kernel.stale = False
            self._lookout.ask()

    def _pump(self) -> None:
        """See to it that the output of what runs or has run is taken."""
        kernel = self._kernel
        active = kernel.container is not None and kernel.container.state is not ContainerState.CREATED
        if active and kernel.pump is None and not kernel.drained.is_set() and not kernel.output.done:
            kernel.pump = asyncio.create_task(pump(self._node, kernel, self._lookout))

    async def _end_pump(self) -> None:
        task, self._kernel.pump = self._kernel.pump, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _resolve(path: str) -> str:
    return os.path.realpath(path, strict=True)
