"""What the manager counts: phases of a start, plans, queues, slots and quotas, as Prometheus reads them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from backendai.manager.metrics import Metrics, exposition
from backendai.manager.store.schema import quotas
from backendai.wire.link import KernelState
from prometheus_client import generate_latest
from sqlalchemy import delete, insert

K = KernelState


def values(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}


async def read(stage: Any) -> dict[str, float]:
    return values((await exposition(stage.context)).decode())


async def test_each_phase_of_a_start_is_timed(stage: Any) -> None:
    await stage.box("a")
    id = await stage.ask()
    stage.now += 30.0
    await stage.look()
    for seconds, state in ((2.0, K.PREPARING), (20.0, K.STARTING), (1.0, K.RUNNING)):
        stage.now += seconds
        await stage.see(id, state)
    found = await read(stage)
    phases = ("queued", "scheduled", "preparing", "starting")
    sums = {phase: found[f'backendai_session_phase_seconds_sum{{phase="{phase}"}}'] for phase in phases}
    assert sums == pytest.approx({"queued": 30.0, "scheduled": 2.0, "preparing": 20.0, "starting": 1.0}, abs=0.01)
    assert found['backendai_decisions_total{group="default",outcome="placed"}'] == 1
    assert found['backendai_planning_seconds_count{group="default"}'] >= 1


@pytest.mark.parametrize(("moves", "counted"), [
    ([("PENDING", "CANCELLED", 5.0)], {}),
    ([("PENDING", "SCHEDULED", 5.0), ("SCHEDULED", "RUNNING", 8.0)], {"queued": 5.0, "scheduled": 3.0}),
    ([("PENDING", "SCHEDULED", 5.0), ("SCHEDULED", "PENDING", 8.0), ("PENDING", "SCHEDULED", 9.0)], {"queued": 6.0}),
    ([("STARTING", "RUNNING", 5.0)], {}),
    ([("PENDING", "SCHEDULED", 5.0), ("SCHEDULED", "FAILED", 9.0)], {"queued": 5.0}),
])
def test_only_what_leads_on_is_timed(moves: list[tuple[str, str, float]], counted: dict[str, float]) -> None:
    metrics = Metrics()
    for before, after, now in moves:
        metrics.moved("s", before, after, 0.0, now)
    found = values(generate_latest(metrics.registry).decode())
    sums = {re.findall('phase="(.*?)"', name)[0]: value for name, value in found.items()
            if name.startswith("backendai_session_phase_seconds_sum")}
    assert sums == counted


async def test_queues_slots_and_quotas_are_shown_and_forgotten(stage: Any) -> None:
    await stage.box("a", cpu=4)
    row = {"id": "q", "scope": "user", "scope_id": stage.caller.id, "group_id": "", "what": "cpu", "limit": 64_000}
    await stage.context.store.write(lambda tx: tx.connection.execute(insert(quotas), [row]))
    await stage.running(cpu=3)
    await stage.ask(cpu=2)
    await stage.look()
    found = await read(stage)
    assert found['backendai_waiting_sessions{group="default"}'] == 1
    assert found['backendai_slots{amount="used",group="default",slot="cpu"}'] == 3
    assert found['backendai_slots{amount="capacity",group="default",slot="mem"}'] == 16 << 30
    assert found['backendai_quota{amount="limit",group="",scope="user admin",what="cpu"}'] == 64
    assert found['backendai_quota{amount="used",group="",scope="user admin",what="cpu"}'] == 3
    await stage.context.store.write(lambda tx: tx.connection.execute(delete(quotas)))
    assert not [name for name in await read(stage) if name.startswith("backendai_quota")]
