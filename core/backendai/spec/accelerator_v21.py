"""What a node can lend.

A plugin finds devices and says how to hand them to a container. It neither allocates nor remembers: who holds what is the agent's
business. Device ids are stable (a UUID or serial number, never an index).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backendai.model.slots import SlotDecl
from backendai.spec import Arity, Spec, hook
from backendai.spec.runtime_v10 import Edits


class Health(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the node.

    id: stable across restarts. slots: what it can lend, in internal units. model: for people. memory: bytes of its own.
    pci: address such as ``0000:3b:00.0``. numa: node number, None where the machine does not tell. links: other devices' ids to the
    kind of link. why: when unhealthy. attributes: anything worth showing.
    """

    id: str
    slots: Mapping[str, int]
    model: str = ""
    memory: int | None = None
    pci: str | None = None
    numa: int | None = None
    health: Health = Health.HEALTHY
    why: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """A part of a device given to one container. amount: in the slot's internal unit."""

    device: str
    slot: str
    amount: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A device's use at one moment. utilisation: 0 to 1. memory: bytes. power_w: watts. temperature_c: degrees Celsius."""

    device: str
    utilisation: float | None = None
    memory: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None


class Accelerator:
    """One kind of device on one node."""

    @hook()
    def slots(self) -> Sequence[SlotDecl]:
        """Declare the slots that this plugin's devices lend, whether or not a device is present."""
        raise NotImplementedError

    @hook(deadline_s=30.0)
    async def devices(self) -> Sequence[Device]:
        """Return the devices now present, the unhealthy ones included."""
        raise NotImplementedError

    @hook()
    def edits(self, grants: Sequence[Grant]) -> Edits:
        """Say what a container that holds *grants* needs. A pure function: it changes nothing and asks no hardware."""
        raise NotImplementedError

    @hook(optional=True, deadline_s=10.0)
    async def sample(self) -> Sequence[Sample]:
        """Measure the devices."""
        raise NotImplementedError

    @hook(optional=True, deadline_s=60.0)
    async def prepare(self, container: str, grants: Sequence[Grant]) -> None:
        """Make devices ready before *container* is created with them."""
        raise NotImplementedError

    @hook(optional=True, deadline_s=60.0)
    async def release(self, container: str, grants: Sequence[Grant]) -> None:
        """Clean devices after *container* is gone. May be called again for the same container."""
        raise NotImplementedError


SPEC = Spec("accelerator", 21, Accelerator, Arity.MANY)
