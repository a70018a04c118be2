"""Each law of a network between nodes catches the network that breaks it, and no other law does."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backendai.model.network import NetPlan
from backendai.spec import hookimpl
from backendai.spec.network_v10 import NetEnd, NetView
from backendai.testing.null_network import NullNetwork

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside: pytest's importlib mode adds nothing itself
import broken

SPEC = "network_v10"


class Crowded(NullNetwork):
    """The node's own address is a kernel's, too."""

    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        plan = super().plan(view)
        return replace(plan, gateways={agent: next(iter(plan.addresses.values())) for agent in plan.gateways})


class Deaf(NullNetwork):
    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        return replace(super().plan(view), outward=False)


class Careless(NullNetwork):
    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        return replace(super().plan(view), vni=7)


class Restless(NullNetwork):
    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        return replace(super().plan(view), vni=next(self._numbers))


class Clocked(NullNetwork):
    @hookimpl
    def plan(self, view: NetView) -> NetPlan:
        time.time()
        return super().plan(view)


class Renewing(NullNetwork):
    """Every attaching makes another bridge."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()

    @hookimpl
    async def attach(self, plan: NetPlan, agent: str) -> NetEnd:
        await super().attach(plan, agent)
        return NetEnd(f"bridge{next(self._numbers)}")


class Gossip(NullNetwork):
    @hookimpl
    async def attached(self, agent: str) -> Sequence[str]:
        return sorted(network for network, _ in self._ends)


class Keeper(NullNetwork):
    @hookimpl
    async def detach(self, network: str, agent: str) -> None:
        """Keep it."""


MUTANTS = broken.general(SPEC, NullNetwork) | {
    "test_a_plan_has_an_address_for_everyone": Crowded,
    "test_a_plan_is_of_its_view": Deaf,
    "test_networks_are_apart": Careless,
    "test_same_view_same_plan": Restless,
    "test_planning_is_pure": Clocked,
    "test_attaching_again_changes_nothing": Renewing,
    "test_what_is_attached_is_told": Gossip,
    "test_detaching_leaves_nothing": Keeper,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_good_ones_hold_all() -> None:
    broken.holds_all(SPEC, NullNetwork)
