"""Groups are planned side by side: a plugin that hangs, fails or is slow is blamed by name, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
import pytest
from backendai.manager import planning
from backendai.manager.store.schema import agents, groups
from backendai.manager.worker import Worker
from backendai.model.group import GroupOptions
from backendai.spec import scheduler_v10
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView
from backendai.wire.link import KernelState as K
from sqlalchemy import insert, update

from core.tests.manager.stage import Stage


class Hanging:
    """A scheduler that does not come back until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def attempts(self, view: QueueView) -> Generator[Attempt, Outcome, None]:
        self.gate.wait(60.0)
        for waiting in view.waiting:
            yield Attempt(waiting.id)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    monkeypatch.setattr(planning, "PLAN_S", 0.05)
    monkeypatch.setattr(planning, "SLACK_S", 0.05)
    made = Hanging()
    yield made
    made.gate.set()


async def two_groups(stage: Stage) -> None:
    """Have an agent in the group ``default`` and one in the group ``slow``, each planned in a thread of its own."""
    stage.orchestrator._make_worker = Worker
    row = {"id": "slow", "name": "slow", "scheduler": "fifo", "created_at": 0.0}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(groups), [row]))
    stage.context.groups.forget()
    await stage.box("box")
    other = await stage.box("other")
    await stage.context.store.write(lambda tx: tx.connection.execute(update(agents).where(agents.c.id == other.id).values(group_id="slow")))
    await stage.orchestrator.observe(True)
    for planner in stage.orchestrator._planners.values():
        planner._make_worker = Worker


async def test_a_scheduler_that_hangs_is_blamed_and_keeps_its_own_group_only(
        stage: Stage, hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_groups(stage)
    variant = stage.host.variant

    async def chosen(spec: Any, name: str, options: Any) -> Any:
        return hanging if spec is scheduler_v10.SPEC and name == "fifo" else await variant(spec, name, options)

    monkeypatch.setattr(stage.host, "variant", chosen)
    here, there = await stage.ask(), await stage.ask(group="slow")
    await asyncio.gather(*(planner.round() for planner in await rung(stage)))
    assert (await stage.state(here), await stage.state(there)) == ("SCHEDULED", "PENDING")
    assert (await stage.row(there)).hold.startswith("The scheduler plugin fifo (backendai-scheduler 0.1.0) does not come to an end; ask")
    labels = {"plugin": "scheduler_v10.fifo", "hook": "attempts"}
    assert stage.context.metrics.registry.get_sample_value("backendai_plugin_faults_total", labels) == 1.0
    await stage.context.store.write(lambda tx: tx.connection.execute(
        update(groups).where(groups.c.id == "slow").values(scheduler="backfill")))
    stage.context.groups.forget()
    await asyncio.gather(*(planner.round() for planner in await rung(stage)))
    assert await stage.state(there) == "SCHEDULED", "another one was chosen, and the thread of the first is left to itself"


async def test_a_scheduler_that_comes_back_is_asked_again(stage: Stage, hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_groups(stage)
    variant = stage.host.variant

    async def chosen(spec: Any, name: str, options: Any) -> Any:
        return hanging if spec is scheduler_v10.SPEC and name == "fifo" else await variant(spec, name, options)

    monkeypatch.setattr(stage.host, "variant", chosen)
    there = await stage.ask(group="slow")
    planner = next(planner for planner in await rung(stage) if planner.side.group.id == "slow")
    await planner.round()
    assert planner._worker is not None and planner._worker.busy
    await planner.round()
    assert await stage.state(there) == "PENDING", "it is not asked twice at a time"
    hanging.gate.set()
    async with asyncio.timeout(10.0):
        while planner._worker.busy:  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0.01)
    await planner.round()
    assert await stage.state(there) == "SCHEDULED"


async def test_a_group_s_own_choice_takes_effect_at_the_next_look(stage: Stage) -> None:
    await stage.box("box", cpu=2)
    first = await stage.running(cpu=1)
    large, small = await stage.ask(cpu=2), await stage.ask(cpu=1, time_limit_s=60.0)
    options = msgspec.json.encode(GroupOptions(scheduler={"overtake": False})).decode()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).values(scheduler="fifo", options=options)))
    stage.context.groups.forget()
    await stage.look()
    assert (await stage.state(large), await stage.state(small)) == ("PENDING", "PENDING"), "fifo lets nobody pass"
    options = msgspec.json.encode(GroupOptions(scheduler={"overtake": True})).decode()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).values(options=options)))
    stage.context.groups.forget()
    await stage.look()
    assert (await stage.state(large), await stage.state(small)) == ("PENDING", "SCHEDULED")
    await stage.see(first, K.GONE, exit_code=0)


async def rung(stage: Stage) -> list[Any]:
    """Have everything looked at, and return the planners that have a reason to plan."""
    await stage.orchestrator.observe(True)
    return [planner for planner in stage.orchestrator._planners.values() if planner.side.bell.is_set()]
