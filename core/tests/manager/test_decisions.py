"""The record of decisions: what was placed by whom, from which moment."""

from __future__ import annotations

from typing import Any

from backendai.manager.decisions import Recorder
from backendai.manager.store.decisions import KEPT, forget, frozen_of, newest, of_session, placed_of, thin, write_decision
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import Eviction, Placement, Plan
from backendai.sokovan.record import Digester, unpack

from core.tests.manager.stage import Stage


async def test_who_is_placed_is_on_record_with_the_plugins_and_the_moment(stage: Stage) -> None:
    box = await stage.box("a")
    first, second, waits = await stage.ask(cpu=1), await stage.ask(cpu=2), await stage.ask(cpu=4)
    await stage.look()
    rows = await stage.context.store.read(lambda c: newest(c, None, None, None, 50))
    assert {id: agents for row in rows for id, agents in placed_of(row).items()} == {first: (box.id,), second: (box.id,)}
    assert all(row.scheduler.startswith(f"{stage.config.scheduler} (backendai-scheduler ") and row.kept for row in rows)
    assert all(row.selector.startswith(f"{stage.config.selector} (backendai-agentselector ") for row in rows)
    made = await stage.context.store.read(lambda c: _find(c, stage, first))
    packed = await stage.context.store.read(lambda c: frozen_of(c, made.id))
    snapshot = unpack(packed)
    assert first in snapshot.requests and Digester().of(snapshot) == made.snapshot
    assert await stage.context.store.read(lambda c: _find(c, stage, waits)) is None


async def _find(connection: Any, stage: Stage, id: str) -> Any:
    return await of_session(connection, await stage.row(id))


async def test_a_session_that_was_placed_twice_has_its_last_decision(stage: Stage) -> None:
    await stage.box("a")
    id = await stage.ask()
    await stage.look()
    async def job(tx: Any) -> None:
        await write_decision(tx, "default", stage.now + 3, "new", ("s", "t"), {id: ("x",)}, None)
        await write_decision(tx, "default", stage.now + 300, "later", ("s", "t"), {"other": ("x",)}, None)
    await stage.context.store.write(job)
    made = await stage.context.store.read(lambda c: _find(c, stage, id))
    assert (made.snapshot, made.kept, made.group) == ("new", False, "default")


async def test_old_moments_are_let_go_and_old_decisions_forgotten(stage: Stage) -> None:
    async def job(tx: Any) -> None:
        for number in range(KEPT + 3):
            await write_decision(tx, "default", float(number), "d", ("s", "t"), {}, b"moment")
    await stage.context.store.write(job)
    await stage.context.store.write(thin)
    rows = await stage.context.store.read(lambda c: newest(c, None, None, None, 9999))
    assert [row.kept for row in rows] == [True] * KEPT + [False] * 3
    await stage.context.store.write(lambda tx: forget(tx, 2.0))
    assert len(await stage.context.store.read(lambda c: newest(c, "default", None, None, 9999))) == KEPT + 1


def test_a_plan_that_does_nothing_is_not_noted_and_costly_moments_are_only_named() -> None:
    recorder, snapshot = Recorder(), take(1.0, [], [])
    assert recorder.note(snapshot, Plan()) is None
    first = recorder.note(snapshot, Plan((Placement("s", ("a",)),)))
    assert first is not None and first.frozen is not None and first.snapshot == Digester().of(snapshot)
    recorder._next = float("inf")  # packing has cost too much of late
    again = recorder.note(snapshot, Plan(evictions=(Eviction("v", "s"),)))
    assert again is not None and again.frozen is None and again.snapshot == first.snapshot
