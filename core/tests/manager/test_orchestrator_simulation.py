"""Hundreds of sessions under a storm that a seed makes: links break, agents come and go, the manager is killed, and the accounts agree.

Every run with one seed is the same run. Time is the stage's; nothing here waits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from backendai.manager.operations import sessions as operations
from backendai.manager.operations.asking import AfterInput, PartInput, RetryInput, WishesInput
from backendai.manager.store.schema import groups, kernels
from backendai.model.errors import Failure
from backendai.model.group import GroupOptions, Preemption
from backendai.model.ids import make_id
from backendai.model.session import FINAL, After, Evicted, SessionState, SessionType
from backendai.wire.link import KernelState as K
from sqlalchemy import select, update

from core.tests.manager.stage import Box, Stage, staged

pytestmark = pytest.mark.system  # long: half a minute of restarts and storms

SILENCE_S = 30.0  # after which a manager hangs up
REASONS = ("was lost.", "came back without it.", "was replaced by a new one.", "when the machine stopped.", "took longer than",
           "did not say in time", "began it only when", "neither begun nor given it back", "so all were ended", "sub1: The command ended")


class Storm:
    """A seeded run of trouble. asked: sessions that were accepted and not removed."""

    def __init__(self, stage: Stage, seed: int, many: int) -> None:
        self.stage = stage
        self.many = many
        self.random = Random(seed)
        self.asked: list[str] = []
        self.count = 0
        self.kills = 0
        self.broken_at: dict[int, float] = {}
        self.deeds: Counter[str] = Counter()
        self.weights: dict[Callable[[], Awaitable[None]], int] = {
            self.ask: 20, self.stop: 4, self.remove: 4, self.work: 60, self.look: 40, self.wait: 25, self.come: 12, self.cut: 4,
            self.go_silent: 3, self.reboot: 2, self.wipe: 1, self.move: 1, self.sicken: 3, self.recover: 4, self.kill: 2,
            self.kill_in_a_look: 2}

    async def blow(self) -> None:
        """Do one thing after the other until enough was asked for."""
        while self.count < self.many:
            deed = self.random.choices(list(self.weights), list(self.weights.values()))[0]
            await deed()
            self.deeds[deed.__name__] += 1

    def box(self, linked: bool | None = None) -> Box | None:
        found = [box for box in self.stage.boxes if linked is None or (box.wire is not None) is linked]
        return self.random.choice(found) if found else None

    async def ask(self) -> None:
        idle = self.random.random() < 0.2
        self.count += 1
        try:
            self.asked.append(await self.stage.ask(
                cpu=self.random.choice((0.5, 1, 2, 4)), mem=self.random.choice(("512m", "2g", "8g")),
                priority=self.random.choice((0, 10, 10, 90)), type=SessionType.INTERACTIVE if idle else SessionType.BATCH,
                **self.more(idle)))
        except Failure as failure:
            assert failure.code == "impossible" or (failure.code == "conflict" and "after:" in failure.message), failure

    def more(self, idle: bool) -> dict[str, Any]:
        """Return what some ask for besides: other kernels, further attempts, somebody's end, to make room for others."""
        more: dict[str, Any] = {}
        if self.random.random() < 0.25:
            more["cluster"] = (PartInput(role="main"), PartInput(role="sub", count=self.random.choice((1, 1, 2))))
            more["wishes"] = WishesInput(one_agent=self.random.random() < 0.3)
        if not idle and self.random.random() < 0.25:
            more["retry"] = RetryInput(count=self.random.choice((1, 2)), backoff_s=self.random.choice((0.0, 1.0)))
        if self.asked and self.random.random() < 0.15:
            more["after"] = (AfterInput(session=self.random.choice(self.asked), kind=self.random.choice(list(After))),)
        if self.random.random() < 0.2:
            more["evicted"] = self.random.choice(list(Evicted))
        return more

    async def stop(self) -> None:
        if self.asked:
            await self.stage.stop(self.random.choice(self.asked))

    async def remove(self) -> None:
        ended = [id for id, (state, *_) in (await self.stage.states()).items() if state in FINAL]
        if ended:
            id = self.random.choice(ended)
            self.judge(await self.stage.row(id))
            await operations.remove(self.stage.context, self.stage.caller, operations.DeleteSession(id))
            self.asked.remove(id)

    async def work(self) -> None:
        """Have an agent hear, do some of what it should, and speak."""
        box = self.box()
        if box is not None:
            box.hear()
            for kernel in self.random.sample(sorted(box.kernels), self.random.randint(0, len(box.kernels))):
                box.step(kernel, self.random.choice((0, 0, 1)))
            if self.random.random() < 0.8:
                box.speak()

    async def look(self) -> None:
        if self.random.random() < 0.7:
            await self.stage.orchestrator.write_reports()
        if self.random.random() < 0.7:
            await self.stage.orchestrator.look_once(self.random.random() < 0.5)

    async def wait(self) -> None:
        """Let time pass, with what is said meanwhile; whoever is silent for too long is hung up on."""
        self.stage.now += self.random.choice((0.01, 1.0, 5.0, 20.0))
        for box in self.stage.boxes:
            box.hear()
            box.speak()
        await self.stage.orchestrator.write_reports()
        for box in self.stage.boxes:
            if box.wire is None:
                continue
            if not box.wire.broken:
                await box.beat()
            elif self.stage.now - self.broken_at[id(box.wire)] >= SILENCE_S:
                await box.leave()

    async def come(self) -> None:
        """Have an agent connect anew: one that is away, or one whose old link is still taken for alive."""
        box = self.box(linked=False) or self.box()
        if box is not None:
            try:
                await box.connect()
            except Failure as failure:
                assert failure.code == "name-taken", failure

    async def cut(self) -> None:
        if (box := self.box(linked=True)) is not None:
            await box.leave()

    async def go_silent(self) -> None:
        if (box := self.box(linked=True)) is not None and box.wire is not None and not box.wire.broken:
            box.wire.broken = True
            self.broken_at[id(box.wire)] = self.stage.now

    async def reboot(self) -> None:
        if (box := self.box()) is not None:
            await box.leave()
            box.reboot()

    async def wipe(self) -> None:
        if (box := self.box()) is not None:
            await self.erase(box)
            box.kernels.clear()

    async def move(self) -> None:
        """Set an agent up anew under its old name."""
        if (box := self.box()) is not None:
            await self.erase(box)
            self.stage.boxes.remove(box)
            self.stage.boxes.append(Box(self.stage, make_id(2, self.random.getrandbits(70)), box.name, box.capacity))

    async def erase(self, box: Box) -> None:
        """End an agent whose journal goes: what nobody heard of from it, nobody can know, so that may be begun once more."""
        await box.leave()
        query = select(kernels.c.session_id).where(kernels.c.id.in_(list(box.kernels)), kernels.c.state == "")
        for row in await self.stage.context.store.read(lambda connection: connection.execute(query)):
            for key in [key for key in self.stage.ran if key.startswith(row.session_id)]:
                del self.stage.ran[key]

    async def sicken(self) -> None:
        if (box := self.box(linked=True)) is not None and box.wire is not None and not box.wire.broken:
            await box.beat(why="The engine does not answer.")

    async def recover(self) -> None:
        for box in self.stage.boxes:
            if box.wire is not None and not box.wire.broken:
                await box.beat(why="")

    async def kill(self) -> None:
        await self.stage.kill()
        self.stage.now += self.random.choice((0.1, 5.0, 400.0))
        await self.stage.start()
        self.kills += 1

    async def kill_in_a_look(self) -> None:
        """Die in the middle, after so many turns of the event loop."""
        looking = asyncio.create_task(self.stage.orchestrator.look_once())
        for _ in range(self.random.randint(0, 25)):
            await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await self.kill()

    async def calm(self) -> None:
        """Make everybody well and connected, and go on until nothing more happens."""
        stage = self.stage
        for box in stage.boxes:
            await box.leave()
            box.why = ""
        for box in stage.boxes:
            await box.connect()
            box.hear()
        for _ in range(600):
            await stage.later(5.0)
            stepped = [box.step(kernel) for box in stage.boxes for kernel in list(box.kernels)]
            if not any(stepped) and not any(hold.startswith("Waits until") for _, hold, _ in (await stage.states()).values()):
                return
        raise AssertionError("it does not come to an end")

    async def settled(self, going: list[str]) -> None:
        """See that who has not ended runs, where it should, or waits for those who run, and says so."""
        rows = [await self.stage.row(id) for id in going]
        runs = {row.id for row in rows if row.state == "RUNNING"}
        waits = any(row.hold.startswith("Needs") for row in rows)  # for agents larger than there are
        assert (runs or waits) and all(row.id in runs or (row.state == "PENDING" and row.hold) for row in rows), [
            (row.id, row.state, row.hold, row.reason, row.claim, row.spec) for row in rows]
        assert all(row.type == "interactive" for row in rows if row.id in runs)
        assert all(self.stage.kernels(row.id)["main1"][0].id == row.agent_id for row in rows if row.id in runs)
        kernels = [played for box in self.stage.boxes for played in box.kernels.values()]
        assert {played.order.session for played in kernels} == runs, "agents have nothing else"
        assert len(kernels) == sum(len(played.order.peers) or 1 for played in kernels if played.order.hostname == "main1")
        assert {played.seen.state for played in kernels} == {K.RUNNING}

    def judge(self, row: object) -> None:
        """See that a session that has ended can say how."""
        state, reason, result, code = (getattr(row, name) for name in ("state", "reason", "result", "exit_code"))
        if state == SessionState.FAILED:
            assert result == "failure" and any(said in reason for said in REASONS), reason
        elif state == SessionState.CANCELLED:
            assert result is None and reason, row
        else:
            assert state == SessionState.TERMINATED and result in ("success", "failure") and (code == 0 or reason), row
        started, ended = (getattr(row, name) for name in ("started_at", "ended_at"))
        assert ended is not None and (started is None or started <= ended), row


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_a_storm_every_session_ends_or_runs_and_every_slot_is_accounted_for(tmp_path: Path, seed: int) -> None:
    async with staged(tmp_path) as stage:
        storm = await weather(stage, seed, 200)
        assert storm.kills and min(storm.deeds.values()) > 0, storm.deeds


@pytest.mark.parametrize("db_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_the_same_holds_on_a_server(tmp_path: Path, db_url: str) -> None:
    async with staged(tmp_path, db_url) as stage:
        await weather(stage, 4, 60)


async def weather(stage: Stage, seed: int, many: int) -> Storm:
    """Have a storm and the calm after it, and look at everything."""
    options = msgspec.json.encode(GroupOptions(preemption=Preemption(enabled=True))).decode()
    await stage.context.store.write(lambda tx: tx.connection.execute(update(groups).values(options=options)))
    stage.context.groups.forget()
    for n, cpu in enumerate((2, 4, 4, 8)):
        await stage.box(f"box{n}", cpu=cpu)
    storm = Storm(stage, seed, many)
    await storm.blow()
    await storm.calm()
    await stage.check()
    assert (await stage.states()).keys() == set(storm.asked), "what was accepted is there until it is removed"
    while going := [id for id, (state, *_) in (await stage.states()).items() if state not in FINAL]:
        await storm.settled(going)
        for id in going:
            if await stage.state(id) == "RUNNING" or (await stage.row(id)).hold.startswith("Needs"):
                await stage.stop(id)
        await storm.calm()
        await stage.check()
    for id in storm.asked:
        storm.judge(await stage.row(id))
    assert await stage.ledger() == {} and not any(box.kernels for box in stage.boxes)
    return storm
