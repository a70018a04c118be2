"""The calm after a storm: everybody is well, and goes on until nothing more happens. Then nothing may be left anywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

from backendai.manager.operations import agents as agent_operations
from backendai.manager.store.schema import sessions
from backendai.model.session import FINAL
from backendai.wire.link import KernelState as K
from sqlalchemy import select

from core.tests.manager.stage import Stage
from core.tests.manager.storm import Storm, judge

ROUNDS, ROUND_S = 120, 15.0  # what has not come to rest then never will
STEPS = 4  # that a kernel takes in a round at most
STILL = 2  # rounds without any change


async def calm(storm: Storm) -> Counter[str]:
    """Bring everything to its end, and look at everything; return how many sessions ended how."""
    stage = storm.stage
    await still(storm)
    await rest(storm)
    await check(storm)
    for _ in range(50):
        going = [row for row in await rows(stage) if row.state not in FINAL]
        if not going:
            break
        settled(stage, going)
        for row in going:
            if row.state == "RUNNING":
                await stage.stop(row.id)
        await rest(storm)
        await check(storm)
    found = await rows(stage)
    assert not [row for row in found if row.state not in FINAL], "not everybody has come to an end"
    for row in found:
        judge(row)
    assert await stage.ledger() == {}, "something is still held"
    assert not any(box.kernels for box in stage.boxes), "something is left on an agent"
    return Counter(f"{row.state}{f' ({row.result})' if row.state == 'TERMINATED' else ''}" for row in found)


async def rows(stage: Stage) -> list[Any]:
    return list((await stage.context.store.read(lambda connection: connection.execute(select(sessions).order_by(sessions.c.id)))).all())


async def still(storm: Storm) -> None:
    """Make everybody well and connected, and let the operator want nothing special."""
    stage = storm.stage
    storm.free_disk()
    storm.release()
    storm.fates.spare()
    storm.stray.clear()
    await storm.orchestrate(stage.orchestrator.write_reports)
    for box in stage.boxes:
        box.full, box.why = False, ""
        storm.arrive(box)
        if box.wire is None or box.wire.broken or box.lossy or box.wire.closed:  # a link that works stays as it is
            await storm.leave(box)
    for box in stage.boxes:
        if box.wire is None:
            await box.connect()
        group = "other" if box.name == "three" else None  # one that was set up anew is in the first
        await agent_operations.change(stage.context, stage.caller, agent_operations.ChangeAgent(box.id, cordoned=False, group=group))


async def rest(storm: Storm) -> None:
    """Go on until nothing changes any more, and nobody waits for a time."""
    stage, chance = storm.stage, storm.random
    before: Any = None
    quiet = 0
    for _ in range(ROUNDS):
        stage.now += ROUND_S
        for box in stage.boxes:
            await box.beat()
            box.hear()
            assert not box.torn, "a link that works loses nothing"
        steps = sum([box.step(kernel, chance.choice((0, 0, 0, 1)))
                     for _ in range(STEPS) for box in stage.boxes for kernel in list(box.kernels)])
        for box in stage.boxes:
            box.speak()
        await stage.orchestrator.write_reports()
        await stage.orchestrator.look_once()
        if steps or any(box.wire is None or box.wire.inbox for box in stage.boxes):
            quiet = 0
            continue
        found = [row for row in await rows(stage) if row.state not in FINAL]
        now = [(row.id, row.state, row.hold, row.attempt, row.stop, row.claim) for row in found]
        waits = [row for row in found if row.state not in ("RUNNING", "PENDING")
                 or (row.state == "PENDING" and (row.not_before or 0.0) > stage.now)]
        quiet = 0 if waits or now != before else quiet + 1
        before = now
        if quiet >= STILL or not found:
            return
    raise AssertionError(f"it does not come to rest: {before}")


def settled(stage: Stage, going: list[Any]) -> None:
    """See that who has not ended runs, where it should, or waits for those who run, and says so."""
    runs = {row.id: row for row in going if row.state == "RUNNING"}
    assert runs, f"they wait for nobody: {[(row.id, row.state, row.hold) for row in going]}"
    for row in going:
        assert row.id in runs or (row.state == "PENDING" and row.hold), f"it does not say why it waits: {row}"
        assert row.id not in runs or not row.evict, f"it is to make room, and runs: {row}"
    played = [(box.id, played) for box in stage.boxes for played in box.kernels.values()]
    assert {one.order.session for _, one in played} == runs.keys(), "agents have nothing else"
    assert {one.seen.state for _, one in played} <= {K.RUNNING}


async def check(storm: Storm) -> None:
    """Hold what the manager remembers against what the database says."""
    stage = storm.stage
    await stage.check()
    found = await rows(stage)
    orchestrator: Any = stage.orchestrator
    mirror, leases = orchestrator._mirror, orchestrator._settler.leases
    waiting = {row.id for row in found if row.state == "PENDING" and not row.stop}
    assert mirror.waits() == waiting, "the planners know who waits"
    ledger = await stage.ledger()
    for group, side in mirror.sides.items():
        assert side.waiting.keys() == {row.id for row in found if row.id in waiting and row.group_id == group}
        assert side.claimed <= side.waiting.keys()
        snapshot = side.cluster.freeze(stage.now)
        for id, number in snapshot.rows.items():
            for slot, capacity, free in zip(snapshot.view.slots, snapshot.capacity[number], snapshot.free[number], strict=True):
                assert capacity - free == ledger.get((id, slot), 0), f"the planners take {capacity - free} of {id}.{slot} for used"
        assert set(snapshot.requests) == side.waiting.keys() - side.aside
    holding = {row.id for row in found if row.state not in (*FINAL, "PENDING")}
    assert leases.nets.keys() <= holding, "networks of those who are gone are taken"
    assert +leases.arrays == Counter(row.array_id or "" for row in found if row.id in holding)
