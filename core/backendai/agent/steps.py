"""What to do next for one kernel: a pure function of what is wanted, what is remembered and what is there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backendai.spec.runtime_v10 import ContainerState
from backendai.wire.link import KernelState


class Step(StrEnum):
    """One thing to do. After each, the facts are looked at again."""

    RESERVE = "reserve"  # take devices
    FETCH = "fetch"  # the image
    CREATE = "create"  # the container
    START = "start"
    BOOT = "boot"  # wait for the bootstrap script
    MARK_RUNNING = "mark-running"  # write down that it runs
    WATCH = "watch"  # nothing, until something changes
    STOP = "stop"  # signal, grace, kill
    DRAIN = "drain"  # wait until its output is complete
    RECORD_EXIT = "record-exit"
    LOSE = "lose"  # write down that the runtime no longer has it
    REMOVE = "remove"  # the container
    CLEAN = "clean"  # scratch and devices; then it is gone
    FORGET = "forget"  # the journal's entry


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the next step depends on.

    wanted: the manager wants it to run. dropped: the manager no longer knows it. state: as journalled. container: as the runtime
    has it now, None for absent. made: a container was once journalled. failed: an error is recorded. reserved: it holds devices.
    image: its image is here. stopping: we are ending it. overdue: it has run for as long as it may. drained: its output is complete.
    booted: it has no bootstrap script, or that has ended.
    """

    wanted: bool = True
    dropped: bool = False
    state: KernelState = KernelState.ACCEPTED
    container: ContainerState | None = None
    made: bool = False
    failed: bool = False
    reserved: bool = False
    image: bool = False
    stopping: bool = False
    overdue: bool = False
    drained: bool = False
    booted: bool = True


def next_step(facts: Facts) -> Step:
    """Decide. Whatever the facts are, following the steps leads to GONE once the kernel is no longer wanted or has ended."""
    if facts.state in (KernelState.EXITED, KernelState.GONE) or facts.failed:
        return _leave(facts)
    match facts.container:
        case ContainerState.RUNNING:
            if not facts.wanted or facts.dropped or facts.overdue or facts.stopping:
                return Step.STOP
            if facts.state is KernelState.RUNNING:
                return Step.WATCH
            return Step.MARK_RUNNING if facts.booted else Step.BOOT
        case ContainerState.EXITED:
            return Step.RECORD_EXIT if facts.drained else Step.DRAIN
        case ContainerState.CREATED:
            return Step.START if facts.wanted and not facts.dropped else Step.REMOVE
        case None:
            return _begin(facts)


def _begin(facts: Facts) -> Step:
    """Without a container: make one, unless it is too late for that."""
    if facts.made and (facts.wanted and not facts.dropped and not facts.stopping):
        return Step.LOSE  # never a second time: a command is run at most once
    if not facts.wanted or facts.dropped or facts.stopping:
        return Step.CLEAN
    if not facts.reserved:
        return Step.RESERVE
    return Step.CREATE if facts.image else Step.FETCH


def _leave(facts: Facts) -> Step:
    """It has ended, or it never will run: leave nothing behind."""
    if facts.container is not None:
        return Step.REMOVE
    if facts.state is not KernelState.GONE:
        return Step.CLEAN
    return Step.FORGET if facts.dropped else Step.WATCH
