"""A session with its kernels as the tables hold them, frozen: what transitions are worked out from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec

from backendai.model.session import Part, Result, SessionSpec, SessionState
from backendai.wire.link import KernelState

S = SessionState
MAIN = "main1"
OVER = (KernelState.EXITED, KernelState.GONE)
_spec_decoder = msgspec.json.Decoder(SessionSpec)
_slots_decoder = msgspec.json.Decoder(dict[str, int])
_units_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])


@dataclass(frozen=True, slots=True)
class Kernel:
    """One container of a session. slots, units: JSON text. agent: an id, None before it was placed."""

    id: str
    role: str
    idx: int
    slots: str
    agent: str | None
    holds: bool
    state: str
    exit_code: int | None
    container: str
    units: str
    attempt: int

    @property
    def name(self) -> str:
        """Return its role and number, by which people and its peers know it."""
        return f"{self.role}{self.idx}"

    @property
    def amounts(self) -> Mapping[str, int]:
        """Return what it takes, by slot."""
        return _slots_decoder.decode(self.slots)

    @property
    def devices(self) -> dict[str, dict[str, int]]:
        """Return how much of which device it was given, by fraction slot."""
        return _units_decoder.decode(self.units)


@dataclass(frozen=True, slots=True)
class Held:
    """A session with the kernels of its present attempt, the main one first. spec: JSON text.

    past: kernels of the attempt that has just ended, as they shall be written; empty in what was read.
    """

    id: str
    name: str
    owner_id: str
    type: str
    spec: str
    priority: int
    state: str
    deadline: float | None
    stop: bool
    result: str | None
    exit_code: int | None
    reason: str
    hold: str
    agent_id: str | None
    image: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    project_id: str
    domain_id: str
    group_id: str
    attempt: int
    retried: int
    not_before: float | None
    array_id: str | None
    claim: str
    evict: str
    expires_at: float | None
    net: str
    stop_why: str
    grace_s: float | None
    uid: int
    gid: int
    kernels: tuple[Kernel, ...] = ()
    past: tuple[Kernel, ...] = ()

    @property
    def asked(self) -> SessionSpec:
        """Return what its owner asked for."""
        return _spec_decoder.decode(self.spec)

    @property
    def grace(self) -> float:
        """Return the seconds from SIGTERM to SIGKILL: of the stop that is wanted, else as its owner asked."""
        return self.asked.grace_s if self.grace_s is None else self.grace_s

    @property
    def main(self) -> Kernel:
        """Return the kernel whose end is the session's."""
        return self.kernels[0]

    @property
    def holds(self) -> bool:
        """Tell whether any of its kernels holds capacity."""
        return any(kernel.holds for kernel in self.kernels)

    @property
    def holding(self) -> Iterator[Kernel]:
        """Yield the kernels that hold capacity."""
        return (kernel for kernel in self.kernels if kernel.holds)

    @property
    def doomed(self) -> bool:
        """Tell whether it is being ended because it failed; the reason is recorded already."""
        return self.state == S.TERMINATING and self.result == Result.FAILURE and self.exit_code is None

    @property
    def settled(self) -> bool:
        """Tell whether it is known how it ends, and only what it used is still there."""
        return self.state == S.TERMINATING and (self.result is not None or self.main.state in OVER)

    @property
    def recalled(self) -> bool:
        """Tell whether its agents, which have not begun, are to give it back: a command is run at most once, so only then another may."""
        return self.state == S.SCHEDULED and bool(self.reason)

    def kernel(self, id: str) -> Kernel | None:
        """Return one of its kernels."""
        return next((kernel for kernel in self.kernels if kernel.id == id), None)

    def with_kernel(self, kernel: Kernel) -> Held:
        """Return it with one kernel as that shall be."""
        return replace(self, kernels=tuple(kernel if one.id == kernel.id else one for one in self.kernels))


def parts_of(spec: SessionSpec) -> tuple[Part, ...]:
    """Return the kernels of a session by role, the main role first."""
    return tuple(sorted(spec.cluster, key=lambda part: (part.role != "main", part.role))) or (Part("main"),)


def part_of(spec: SessionSpec, role: str) -> Part:
    """Return what was asked for the kernels of *role*."""
    return next((part for part in spec.cluster if part.role == role), Part(role))
