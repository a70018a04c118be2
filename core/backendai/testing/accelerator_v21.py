"""The laws of an accelerator."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backendai.model.slots import SlotDecl, SlotKind
from backendai.spec.accelerator_v21 import SPEC, Accelerator, Device, Grant, Health
from backendai.spec.runtime_v10 import Edits
from backendai.testing.laws import Conformance, NotHere, Weight, ensure, law
from backendai.testing.watch import watching

_SLOT = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
CONTAINER = "kit-container"


class AcceleratorConformance(Conformance[Accelerator]):
    """What an accelerator keeps to. Laws about devices need one that is present."""

    spec = SPEC

    @law()
    async def test_it_declares_slots(self, accelerator: Accelerator) -> None:
        """It declares at least one slot; each has a name such as cuda.device of its own, a kind and a quantum."""
        declared = accelerator.slots()
        ensure(declared, "it declares no slot")
        for slot in declared:
            ensure(isinstance(slot, SlotDecl), f"it declared {slot!r}, which is no SlotDecl")
            ensure(_SLOT.fullmatch(slot.name), f"{slot.name!r} is no slot's name; use small letters, digits, '-' and '.'")
            ensure(isinstance(slot.kind, SlotKind) and slot.quantum >= 1, f"{slot.name} is {slot.kind!r} with the quantum {slot.quantum}")
        ensure(len({slot.name for slot in declared}) == len(declared), "it declares a slot twice")

    @law()
    async def test_slots_stay(self, accelerator: Accelerator) -> None:
        """It declares the same slots each time."""
        first, second = (list(accelerator.slots()) for _ in range(2))
        ensure(first == second, f"it declared {_names(first)}, then {_names(second)}")

    @law()
    async def test_it_lists_devices(self, accelerator: Accelerator) -> None:
        """It lists devices, if there are any, each with an id of its own."""
        devices = await accelerator.devices()
        for device in devices:
            ensure(isinstance(device, Device), f"it listed {device!r}, which is no Device")
            ensure(device.id, "a device has no id")
        ids = [device.id for device in devices]
        ensure(len(set(ids)) == len(ids), f"two devices have one id, among {', '.join(ids)}")

    @law()
    async def test_devices_lend_declared_slots(self, accelerator: Accelerator) -> None:
        """What a device lends is a whole number of quanta of a declared slot."""
        quanta = {slot.name: slot.quantum for slot in accelerator.slots()}
        for device in await _present(accelerator):
            for name, amount in device.slots.items():
                ensure(name in quanta, f"{device.id} lends {name}, which is not declared")
                ensure(isinstance(amount, int) and amount >= 0, f"{device.id} lends {amount!r} of {name}; amounts are whole numbers")
                ensure(amount % quanta[name] == 0, f"{device.id} lends {amount} of {name}, whose quantum is {quanta[name]}")

    @law()
    async def test_device_ids_last(self, accelerator: Accelerator) -> None:
        """A device keeps its id, from one look to the next and over a restart of the agent."""
        first = {device.id for device in await _present(accelerator)}
        async with self.started() as again:
            for other in (accelerator, again):
                ids = {device.id for device in await other.devices()}
                ensure(ids == first, f"the ids were {', '.join(sorted(first))}, then {', '.join(sorted(ids))}")

    @law(Weight.RECOMMENDED)
    async def test_the_unhealthy_say_why(self, accelerator: Accelerator) -> None:
        """A device that is not healthy says why."""
        for device in await _present(accelerator):
            ensure(device.health is Health.HEALTHY or device.why.strip(), f"{device.id} is unhealthy without a word")

    @law(Weight.RECOMMENDED)
    async def test_facts_are_facts(self, accelerator: Accelerator) -> None:
        """Memory and NUMA node are not negative, the PCI address is one, links lead to other devices of the list."""
        devices = await _present(accelerator)
        ids = {device.id for device in devices}
        for device in devices:
            ensure(device.memory is None or device.memory >= 0, f"{device.id} has {device.memory} bytes of memory")
            ensure(device.numa is None or device.numa >= 0, f"{device.id} is on the NUMA node {device.numa}; None when it is not known")
            ensure(device.pci is None or _PCI.fullmatch(device.pci.lower()), f"{device.id} has the PCI address {device.pci!r}")
            ensure(set(device.links) <= ids - {device.id}, f"{device.id} is linked to {', '.join(device.links)}, which are not listed")

    @law()
    async def test_edits_are_whole(self, accelerator: Accelerator) -> None:
        """What a container needs is said in absolute paths, strings and permissions out of r, w and m."""
        for grants in await _whole(accelerator):
            edits = accelerator.edits(grants)
            ensure(isinstance(edits, Edits), f"it returned {edits!r}, which is no Edits")
            paths = [p for d in edits.devices for p in (d.source, d.target)] + [p for m in edits.mounts for p in (m.source, m.target)]
            ensure(all(path.startswith("/") for path in paths), f"not all of {', '.join(paths)} are absolute")
            ensure(all(d.permissions and set(d.permissions) <= set("rwm") for d in edits.devices), "a device's permissions are not of rwm")
            ensure(all(isinstance(text, str) for pair in edits.env.items() for text in pair), f"{edits.env} is not all strings")

    @law()
    async def test_same_grants_same_edits(self, accelerator: Accelerator) -> None:
        """The same grants give the same edits."""
        for grants in await _whole(accelerator):
            first, second = (accelerator.edits(grants) for _ in range(2))
            ensure(first == second, f"it asked for {first}, then for {second}")

    @law()
    async def test_edits_ask_nobody(self, accelerator: Accelerator) -> None:
        """Edits are computed: no clock, no file, no hardware is asked, for the agent asks while it decides."""
        for grants in await _whole(accelerator):
            with watching() as seen:
                accelerator.edits(grants)
            ensure(not seen, f"it called {seen[0] if seen else ''}")

    @law()
    async def test_edits_leave_grants_alone(self, accelerator: Accelerator) -> None:
        """It changes nothing in the grants."""
        for grants in await _whole(accelerator):
            given = list(grants)
            accelerator.edits(given)
            ensure(given == list(grants), f"the grants became {given}")

    @law()
    async def test_any_share_can_be_granted(self, accelerator: Accelerator) -> None:
        """It takes a grant of one quantum of anything that a device lends."""
        quanta = {slot.name: slot.quantum for slot in accelerator.slots()}
        for device in await _present(accelerator):
            for name in device.slots:
                accelerator.edits([Grant(device.id, name, quanta.get(name, 1))])

    @law()
    async def test_samples_are_of_devices(self, accelerator: Accelerator) -> None:
        """What it measures belongs to its devices; utilisation is from 0 to 1, memory and power are not negative."""
        if not hasattr(accelerator, "sample"):
            raise NotHere("it does not measure")
        devices = {device.id: device for device in await _present(accelerator)}
        for sample in await accelerator.sample():
            ensure(sample.device in devices, f"it measured {sample.device!r}, which is no device of its")
            ensure(sample.utilisation is None or 0 <= sample.utilisation <= 1, f"{sample.device} is used to {sample.utilisation}")
            ensure(sample.memory is None or sample.memory >= 0, f"{sample.device} uses {sample.memory} bytes")
            ensure(sample.power_w is None or sample.power_w >= 0, f"{sample.device} takes {sample.power_w} W")

    @law()
    async def test_release_can_be_repeated(self, accelerator: Accelerator) -> None:
        """Release can be called again, and for a container that was never prepared."""
        release, prepare = getattr(accelerator, "release", None), getattr(accelerator, "prepare", None)
        if release is None:
            raise NotHere("it has nothing to release")
        for grants in (await _whole(accelerator))[:1]:
            await release(CONTAINER, grants)
            if prepare is not None:
                await prepare(CONTAINER, grants)
            for _ in range(2):
                await release(CONTAINER, grants)


async def _present(accelerator: Accelerator) -> Sequence[Device]:
    """Return the devices; the law cannot be tried where there is none."""
    if not (devices := await accelerator.devices()):
        raise NotHere("no device is present")
    return devices


async def _whole(accelerator: Accelerator) -> list[tuple[Grant, ...]]:
    """Return sets of grants: each device whole, and all of them together."""
    each = [tuple(Grant(device.id, name, amount) for name, amount in device.slots.items()) for device in await _present(accelerator)]
    return [*each, tuple(grant for grants in each for grant in grants)]


def _names(slots: Sequence[SlotDecl]) -> str:
    return ", ".join(slot.name for slot in slots) or "none"
