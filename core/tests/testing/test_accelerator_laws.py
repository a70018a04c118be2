"""Each law of an accelerator catches the accelerator that breaks it, and no other law does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backendai.model.slots import SlotDecl, SlotKind
from backendai.spec import hookimpl
from backendai.spec.accelerator_v21 import Device, Grant, Health, Sample
from backendai.spec.runtime_v10 import DeviceNode, Edits
from backendai.testing.check import Outcome, check, kit_of

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "accelerator_v21"
SLOT = SlotDecl("toy.share", SlotKind.FRACTION, quantum=10)
ONE = Device("T-1", {SLOT.name: 1000}, "Toy 3000", 1 << 30, "0000:3b:00.0", 0, links={"T-2": "bridge"})
TWO = Device("T-2", {SLOT.name: 1000}, health=Health.UNHEALTHY, why="it is too hot")


class Good:
    """Two devices, the second of which is ill."""

    one, two = ONE, TWO
    born = 0

    def __init__(self) -> None:
        type(self).born += 1
        self.held: set[str] = set()
        self.count = 0

    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        return (SLOT,)

    @hookimpl
    async def devices(self) -> Sequence[Device]:
        return (self.one, self.two)

    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        ids = sorted({grant.device for grant in grants})
        return Edits(tuple(DeviceNode(f"/dev/{id}", f"/dev/{id}") for id in ids), {"TOYS": ",".join(ids)})

    @hookimpl
    async def sample(self) -> Sequence[Sample]:
        return (Sample("T-1", 0.5, 1 << 20, 30.0, 60.0),)

    @hookimpl
    async def prepare(self, container: str, grants: Sequence[Grant]) -> None:
        self.held.add(container)

    @hookimpl
    async def release(self, container: str, grants: Sequence[Grant]) -> None:
        self.held.discard(container)


class Shouter(Good):
    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        return (SLOT, replace(SLOT, name="TOY"))


class Waverer(Good):
    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        self.count += 1
        return (SLOT, replace(SLOT, name=f"toy.n{self.count}"))


class Twins(Good):
    one = replace(ONE, links={})
    two = replace(TWO, id=ONE.id)

    @hookimpl
    async def sample(self) -> Sequence[Sample]:
        return ()


class Crumbs(Good):
    two = replace(TWO, slots={SLOT.name: 995})


class Numbered(Good):
    """An index for an id, and they are counted anew in each life."""

    @hookimpl
    async def devices(self) -> Sequence[Device]:
        if not self.count:
            self.count = self.born
        return (replace(ONE, links={}), replace(TWO, id=f"T{self.count}"))


class Sulker(Good):
    two = replace(TWO, why="")


class Liar(Good):
    two = replace(TWO, numa=-1)


class Relative(Good):
    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        return Edits((DeviceNode("dev/toy", "/dev/toy"),))


class Counter(Good):
    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        self.count += 1
        return Edits(env={"TOYS": str(self.count)})


class Asker(Good):
    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        return Edits(env={"TOYS": Path("/proc/self/comm").read_text()})


class Taker(Good):
    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        if isinstance(grants, list):
            grants.clear()
        return Edits()


class WholeOnly(Good):
    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        if any(grant.amount < 1000 for grant in grants):
            raise ValueError("toys are not cut")
        return Edits()


class Percent(Good):
    @hookimpl
    async def sample(self) -> Sequence[Sample]:
        return (Sample("T-1", 50.0),)


class Once(Good):
    @hookimpl
    async def release(self, container: str, grants: Sequence[Grant]) -> None:
        self.held.remove(container)


MUTANTS = broken.general(SPEC, Good) | {
    "test_it_declares_slots": Shouter,
    "test_slots_stay": Waverer,
    "test_it_lists_devices": Twins,
    "test_devices_lend_declared_slots": Crumbs,
    "test_device_ids_last": Numbered,
    "test_the_unhealthy_say_why": Sulker,
    "test_facts_are_facts": Liar,
    "test_edits_are_whole": Relative,
    "test_same_grants_same_edits": Counter,
    "test_edits_ask_nobody": Asker,
    "test_edits_leave_grants_alone": Taker,
    "test_any_share_can_be_granted": WholeOnly,
    "test_samples_are_of_devices": Percent,
    "test_release_can_be_repeated": Once,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_good_ones_hold_all() -> None:
    for good in (Good, "accelerator_v21.cpu", "accelerator_v21.mem"):
        broken.holds_all(SPEC, good)


class Absent(Good):
    @hookimpl
    async def devices(self) -> Sequence[Device]:
        return ()


def test_without_a_device_the_laws_about_devices_are_skipped() -> None:
    report = check(kit_of(SPEC), Absent)
    skipped = [one for one in report.results if one.outcome is Outcome.SKIP]
    assert report.grade == "A"
    assert {one.why for one in skipped} == {"no device is present"}
    assert len(skipped) > 5
