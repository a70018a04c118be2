"""Who holds what of which device. All of a request or nothing; what is held is remembered by the journal, not here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backendai.model.errors import Failure
from backendai.model.slots import SlotDecl, SlotKind, format_slots
from backendai.spec.accelerator_v21 import Device, Grant, Health


class Full(Failure):
    """It would fit, but others hold it now."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


@dataclass(slots=True)
class Allocator:
    """The devices of this node and what is granted of them.

    plugins: which accelerator plugin has which slots. devices: by plugin. held: by kernel.
    """

    slots: Mapping[str, tuple[str, SlotDecl]] = field(default_factory=dict)  # slot to plugin and declaration
    devices: Mapping[str, Sequence[Device]] = field(default_factory=dict)
    held: dict[str, tuple[Grant, ...]] = field(default_factory=dict)

    def capacity(self) -> dict[str, int]:
        """Return what healthy devices can lend in all, by slot."""
        total = dict.fromkeys(self.slots, 0)
        for device in self._healthy():
            for slot, amount in device.slots.items():
                if slot in total:
                    total[slot] += amount
        return {slot: amount for slot, amount in total.items() if amount}

    def fractions(self) -> dict[str, dict[str, int]]:
        """Return for each FRACTION slot how much of which healthy device can be lent in all."""
        named = [name for name, (_, declared) in self.slots.items() if declared.kind is SlotKind.FRACTION]
        lent = {name: {device.id: device.slots[name] for device in self._healthy() if device.slots.get(name)} for name in named}
        return {name: devices for name, devices in lent.items() if devices}

    def take(self, kernel: str, wanted: Mapping[str, int], units: Mapping[str, Mapping[str, int]] | None = None) -> tuple[Grant, ...]:
        """Grant all of *wanted* to *kernel*, or raise: ``Full`` when others hold it, ``Failure('impossible')`` when it never fits.

        units: for FRACTION slots, which devices the manager chose. That is followed, also if it means to wait for a device that others
        still hold; only where the devices are not there, or it does not add up, another is chosen.
        """
        if kernel in self.held:
            return self.held[kernel]
        free = self._free(self.held.values())
        empty = self._free(())
        grants: list[Grant] = []
        for slot in sorted(wanted, key=lambda name: (name in ("cpu", "mem"), name)):  # scarce devices choose the NUMA node
            if (chosen := self._as_told(slot, wanted[slot], (units or {}).get(slot, {}), empty)) is not None:
                if any(free[slot, grant.device] < grant.amount for grant in chosen):
                    raise Full(f"Others still hold {', '.join(grant.device for grant in chosen)}.")
                grants += chosen
                continue
            if (found := self._choose(slot, wanted[slot], free, grants)) is None:
                asked = format_slots({slot: wanted[slot]})
                if self._choose(slot, wanted[slot], empty, []) is None:
                    raise Failure("impossible", f"This agent can never give {asked}; see `bai agents`.")
                raise Full(f"Others hold what {asked} needs.")
            grants += found
        self.held[kernel] = tuple(grants)
        return self.held[kernel]

    def restore(self, kernel: str, grants: Sequence[Grant]) -> None:
        """Take in what the journal says, even of a device that is not there now: its holder may still use it."""
        self.held[kernel] = tuple(grants)

    def free(self, kernel: str) -> None:
        """Give back everything that *kernel* holds."""
        self.held.pop(kernel, None)

    def by_plugin(self, grants: Iterable[Grant]) -> dict[str, list[Grant]]:
        """Return *grants* by the accelerator plugin that they concern."""
        groups: dict[str, list[Grant]] = {}
        for grant in grants:
            if grant.slot in self.slots:
                groups.setdefault(self.slots[grant.slot][0], []).append(grant)
        return groups

    def _healthy(self) -> list[Device]:
        return [device for devices in self.devices.values() for device in devices if device.health is Health.HEALTHY]

    def _free(self, held: Iterable[Sequence[Grant]]) -> dict[tuple[str, str], int]:
        free = {(slot, device.id): amount for device in self._healthy() for slot, amount in device.slots.items()}
        for grant in (grant for grants in held for grant in grants):
            if (key := (grant.slot, grant.device)) in free:
                free[key] -= grant.amount
        return free

    def _as_told(self, slot: str, amount: int, parts: Mapping[str, int], empty: Mapping[tuple[str, str], int]) -> list[Grant] | None:
        """Return the grants that the manager chose, None where it chose none or they can never be."""
        if slot not in self.slots or self.slots[slot][1].kind is not SlotKind.FRACTION or sum(parts.values()) != amount:
            return None
        if any(part <= 0 or empty.get((slot, device), 0) < part for device, part in parts.items()):
            return None
        return [Grant(device, slot, part) for device, part in sorted(parts.items())]

    def _choose(self, slot: str, amount: int, free: Mapping[tuple[str, str], int], chosen: Sequence[Grant]) -> list[Grant] | None:
        """Return grants that make *amount*, or None. One device if one suffices (the fullest that does), else the emptiest first."""
        if slot not in self.slots:
            return None
        declared = self.slots[slot][1]
        if amount % declared.quantum:
            raise Failure("bad-slots", f"{format_slots({slot: amount})} is not a multiple of {format_slots({slot: declared.quantum})}.")
        numa = {device.id: device.numa for device in self._healthy()}
        near = {numa[grant.device] for grant in chosen if numa.get(grant.device) is not None}
        there = [(device, left) for (name, device), left in free.items() if name == slot and left >= declared.quantum]
        far = {device: bool(near) and numa[device] not in near for device, _ in there}
        if fitting := [(far[device], left, device) for device, left in there if left >= amount]:
            return [Grant(min(fitting)[2], slot, amount)]
        if declared.kind in (SlotKind.UNIQUE, SlotKind.FRACTION):
            return None
        grants, missing = [], amount
        for device, left in sorted(there, key=lambda pair: (far[pair[0]], -pair[1], pair[0])):
            part = min(missing, left // declared.quantum * declared.quantum)
            grants.append(Grant(device, slot, part))
            missing -= part
            if not missing:
                return grants
        return None
