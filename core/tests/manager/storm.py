"""A storm that a seed makes, and the calm after it: every kind of session, every kind of fault, and the accounts agree all the time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from backendai.manager.operations import agents as agent_operations
from backendai.manager.operations import sessions as operations
from backendai.manager.store.schema import kernels, sessions
from backendai.manager.sweep import Sweeper
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.model.session import FINAL, SessionState
from backendai.wire.link import Desired, Observed, Report
from sqlalchemy import select

from core.tests.manager.asks import pick
from core.tests.manager.books import Books
from core.tests.manager.single import Fates
from core.tests.manager.stage import Box, Stage

SILENCE_S = 30.0  # after which a manager hangs up
REASONS = ("was lost.", "came back without it.", "was replaced by a new one.", "when the machine stopped.", "took longer than",
           "did not say in time", "began it only when", "neither begun nor given it back", "has not begun within", "The command ended with",
           "ended it without saying why", "is being drained", "made room")
REFUSED = ("impossible", "conflict", "quota-exceeded", "not-found")
Deed = Callable[[], Awaitable[None]]


class Storm:
    """A seeded run of trouble. answered: sessions that were accepted and not removed. faults, deeds: how often what happened."""

    def __init__(self, stage: Stage, seed: int, fates: Fates, books: Books) -> None:
        self.stage, self.fates, self.books = stage, fates, books
        self.random = Random(seed)
        self.answered: set[str] = set()
        self.count = 0
        self.down = False  # the orchestrator failed, and is to begin anew
        self.broken_at: dict[int, float] = {}
        self.late: dict[int, deque[tuple[Observed, ...]]] = {}  # reports that are under way, by link
        self.stray: list[tuple[str, tuple[Observed, ...]]] = []  # those of links that have ended, by agent
        self.faults: Counter[str] = Counter()
        self.deeds: Counter[str] = Counter()
        self.harmless: dict[Deed, int] = {
            self.ask: 50, self.stop: 5, self.remove: 3, self.work: 60, self.look: 50, self.wait: 25, self.come: 14, self.operate: 5,
            self.judge_idle: 4, self.mend: 14}
        self.harmful: dict[Deed, int] = {
            self.lose_message: 3, self.repeat_message: 3, self.reorder_messages: 3, self.repeat_report: 3, self.deliver_stray: 3,
            self.cut: 4, self.go_silent: 3, self.reboot: 3, self.wipe: 2, self.move: 1, self.sicken: 2, self.kill: 1, self.kill_amid: 7,
            self.fill_disk: 2, self.fill_agents_disk: 2, self.hang: 2, self.raise_in_plugin: 3, self.leap: 2, self.set_back: 2}

    async def blow(self, sessions: int, faults: int) -> None:
        """Do one thing after the other until enough was asked for and enough has gone wrong."""
        while self.count < sessions or sum(self.faults.values()) < faults:
            harm = self.random.random() < 0.2
            deeds = self.harmful if harm else self.harmless
            await self.do(self.random.choices(list(deeds), list(deeds.values()))[0])

    async def do(self, deed: Deed) -> None:
        """Do one thing. With a full disk the manager may refuse; then nothing has happened."""
        self.deeds[deed.__name__] += 1
        try:
            await deed()
        except Failure as failure:
            if not (self.fates.full and failure.code == "unavailable"):
                raise
        await self.tear()

    def fault(self, name: str) -> None:
        self.faults[name] += 1

    def box(self, linked: bool | None = None) -> Box | None:
        found = [box for box in self.stage.boxes if linked is None or (box.wire is not None) is linked]
        return self.random.choice(found) if found else None

    # what is no fault

    async def ask(self) -> None:
        self.count += 1
        known = sorted(self.answered)
        try:
            id = await self.stage.ask(**pick(self.random, self.stage.now, known))
        except Failure as failure:
            if failure.code == "unavailable":
                raise
            assert failure.code in REFUSED, failure
            return
        self.answered |= await self.siblings(id)

    async def siblings(self, id: str) -> set[str]:
        """Return a session's id, with those of its array."""
        row = await self.stage.row(id)
        if row.array_id is None:
            return {id}
        query = select(sessions.c.id).where(sessions.c.array_id == row.array_id)
        return set((await self.stage.context.store.read(lambda connection: connection.execute(query))).scalars())

    async def stop(self) -> None:
        if self.answered:
            await self.stage.stop(self.random.choice(sorted(self.answered)))

    async def remove(self) -> None:
        ended = [id for id, (state, *_) in (await self.stage.states()).items() if state in FINAL and id in self.answered]
        if ended:
            id = self.random.choice(ended)
            judge(await self.stage.row(id))
            await operations.remove(self.stage.context, self.stage.caller, operations.DeleteSession(id))
            self.answered.discard(id)

    async def work(self) -> None:
        """Have an agent hear, do some of what it should, and speak."""
        box = self.box()
        if box is not None:
            box.hear()
            for kernel in self.random.sample(sorted(box.kernels), self.random.randint(0, len(box.kernels))):
                box.step(kernel, self.random.choice((0, 0, 0, 1, 2)))
            if self.random.random() < 0.8:
                self.speak(box)

    def speak(self, box: Box) -> None:
        """Have an agent report. What it says of one kernel stays in order; the rest may arrive in any, and late."""
        told = list(box.words())
        if not told or box.wire is None or box.wire.broken:
            return
        queue = self.late.setdefault(id(box.wire), deque())
        if queue or self.random.random() < 0.25:
            self.random.shuffle(told)
            self.fault("reports delayed, in another order")
            queue.extend((seen,) for seen in told)
            self.arrive(box, self.random.randint(0, len(queue)))
        else:
            self.stage.orchestrator.reported(box.id, Report(box.generation, tuple(told)))

    def arrive(self, box: Box, count: int | None = None) -> None:
        """Let reports arrive that are under way."""
        queue = self.late.get(id(box.wire))
        while queue and (count is None or count > 0) and box.wire is not None:
            self.stage.orchestrator.reported(box.id, Report(box.generation, queue.popleft()))
            count = None if count is None else count - 1

    async def leave(self, box: Box) -> None:
        """End a link; what is under way on it may still arrive, or never."""
        if box.wire is not None:
            self.stray += [(box.id, told) for told in self.late.pop(id(box.wire), ())]
        await box.leave()

    async def tear(self) -> None:
        """Hang up for those who have noticed that something is wrong."""
        for box in self.stage.boxes:
            if box.torn:
                box.torn = False
                await self.leave(box)

    async def orchestrate(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have the orchestrator work; when it fails, it begins anew the next time."""
        try:
            if self.down:
                await self.stage.orchestrator.begin()
                self.down = False
            await work()
        except Failure:
            self.down = True
            raise

    async def look(self) -> None:
        if self.random.random() < 0.7:
            await self.orchestrate(self.stage.orchestrator.write_reports)
        if self.random.random() < 0.8:
            await self.orchestrate(lambda: self.stage.orchestrator.look_once(self.random.random() < 0.5))

    async def wait(self) -> None:
        """Let time pass, with what is said meanwhile; whoever is silent for too long is hung up on."""
        self.stage.now += self.random.choice((0.01, 1.0, 5.0, 20.0))
        for box in self.stage.boxes:
            box.hear()
            self.speak(box)
        await self.orchestrate(self.stage.orchestrator.write_reports)
        for box in self.stage.boxes:
            if box.wire is None:
                continue
            if not box.wire.broken:
                await self.beat(box)
            elif self.stage.now - self.broken_at.get(id(box.wire), self.stage.now) >= SILENCE_S:
                await self.leave(box)

    async def beat(self, box: Box, why: str | None = None) -> None:
        """Have an agent say that it lives; a manager that cannot write that down hangs up."""
        try:
            await box.beat(why)
        except Failure:
            await self.leave(box)

    async def come(self) -> None:
        """Have an agent connect anew: one that is away, or one whose old link is still taken for alive."""
        box = self.box(linked=False) or self.box()
        if box is not None:
            await self.connect(box)

    async def connect(self, box: Box) -> None:
        """Have an agent say hello; one that is refused has hung up before."""
        old = box.wire
        try:
            await box.connect()
        except Failure as failure:
            assert failure.code == "name-taken" or self.fates.full, failure
            if old is not None:
                await self.stage.orchestrator.gone(old)
        self.stray += [(box.id, told) for told in self.late.pop(id(old), ())]

    async def operate(self) -> None:
        """Have an operator cordon an agent, drain it, or take that back."""
        if (box := self.box()) is not None:
            wish = self.random.choice(({"cordoned": True}, {"draining": True}, {"cordoned": False}, {"cordoned": False}))
            try:
                await agent_operations.change(self.stage.context, self.stage.caller, agent_operations.ChangeAgent(box.name, **wish))
            except Failure as failure:
                if failure.code != "not-found":  # one that was set up anew has not said hello yet
                    raise

    async def judge_idle(self) -> None:
        await Sweeper(self.stage.context).judge_once()

    async def mend(self) -> None:
        """Take something back that was wrong for a while."""
        self.random.choice((self.free_disk, self.free_disks, self.release))()
        await self.recover()

    def free_disk(self) -> None:
        self.fates.full = False

    def release(self) -> None:
        self.fates.hang, self.fates.raise_in = False, None

    def free_disks(self) -> None:
        for box in self.stage.boxes:
            if box.full:
                box.full, box.why = False, ""

    async def recover(self) -> None:
        for box in self.stage.boxes:
            if box.wire is not None and not box.wire.broken and not box.full:
                await self.beat(box, "")

    # faults of the link

    def told(self, least: int = 1) -> Box | None:
        """Return an agent for which so many messages are under way."""
        found = [box for box in self.stage.boxes if box.wire is not None and len(box.wire.inbox) >= least]
        return self.random.choice(found) if found else None

    async def lose_message(self) -> None:
        if (box := self.told()) is not None and box.wire is not None:
            del box.wire.inbox[self.random.randrange(len(box.wire.inbox))]
            box.lossy = True
            self.fault("message lost")

    async def repeat_message(self) -> None:
        box = self.told()
        if box is None or box.wire is None:
            return
        if said := [one for one in box.wire.inbox if isinstance(one, Desired) and not one.full]:
            box.wire.inbox.append(self.random.choice(said))
            box.lossy = True
            self.fault("message repeated")

    async def reorder_messages(self) -> None:
        if (box := self.told(2)) is not None and box.wire is not None:
            self.random.shuffle(box.wire.inbox)
            box.lossy = True
            self.fault("messages in another order")

    async def repeat_report(self) -> None:
        """Have an agent say once more what it has said, together with what it has not said yet."""
        some = [box for box in self.stage.boxes
                if box.kernels and box.wire is not None and not box.wire.broken and not self.late.get(id(box.wire))]
        if some:
            box = self.random.choice(some)
            seen = box.kernels[self.random.choice(sorted(box.kernels))].seen
            self.stage.orchestrator.reported(box.id, Report(box.generation, (seen,)))
            self.stray.append((box.id, (seen,)))
            self.fault("report repeated")

    async def deliver_stray(self) -> None:
        """Let a report arrive that was said on a link that has ended, however old."""
        if self.stray:
            agent, told = self.stray.pop(self.random.randrange(len(self.stray)))
            self.stage.orchestrator.reported(agent, Report(0, told))
            self.fault("old report")

    async def cut(self) -> None:
        if (box := self.box(linked=True)) is not None:
            await self.leave(box)
            self.fault("agent killed")

    async def go_silent(self) -> None:
        if (box := self.box(linked=True)) is not None and box.wire is not None and not box.wire.broken:
            box.wire.broken = True
            self.broken_at[id(box.wire)] = self.stage.now
            self.fault("link silent")

    # faults of agents

    async def reboot(self) -> None:
        if (box := self.box()) is not None:
            await self.leave(box)
            box.reboot()
            self.fault("agent rebooted")

    async def wipe(self) -> None:
        if (box := self.box()) is not None:
            await self.erase(box)
            box.kernels.clear()
            self.fault("agent wiped")

    async def move(self) -> None:
        """Set an agent up anew under its old name."""
        if (box := self.box()) is not None:
            await self.erase(box)
            self.stage.boxes.remove(box)
            self.stage.boxes.append(Box(self.stage, make_id(2, self.random.getrandbits(70)), box.name, box.capacity))
            self.fault("agent set up anew")

    async def erase(self, box: Box) -> None:
        """End an agent whose journal goes: what nobody heard of from it, nobody can know, so that may be begun once more."""
        await self.leave(box)
        query = select(kernels.c.session_id).where(kernels.c.id.in_(list(box.kernels)), kernels.c.state == "")
        unheard = set((await self.stage.context.store.read(lambda connection: connection.execute(query))).scalars())
        for key in [key for key in self.stage.ran if key.partition(".")[0] in unheard]:
            del self.stage.ran[key]

    async def sicken(self) -> None:
        if (box := self.box(linked=True)) is not None and box.wire is not None and not box.wire.broken:
            self.fault("runtime ill")
            await self.beat(box, "The engine does not answer.")

    async def fill_agents_disk(self) -> None:
        if (box := self.box()) is not None and not box.full:
            box.full = True
            self.fault("agent's disk full")

    # faults of the manager

    async def fill_disk(self) -> None:
        if not self.fates.full:
            self.fates.full = True
            self.fault("manager's disk full")

    async def hang(self) -> None:
        if not self.fates.hang:
            self.fates.hang = True
            self.fault("plugin hung")

    async def raise_in_plugin(self) -> None:
        if self.fates.raise_in is None:
            self.fates.raise_in = self.random.randint(0, 4)
            self.fault("plugin raised")

    async def leap(self) -> None:
        self.stage.now += self.random.choice((100.0, 4000.0))
        self.fault("clock leapt")

    async def set_back(self) -> None:
        self.stage.now -= self.random.choice((0.5, 5.0, 30.0))
        self.fault("clock set back")

    async def kill(self) -> None:
        self.fault("manager killed")
        await self.restart()

    async def restart(self) -> None:
        self.fates.full, self.fates.hang = False, False
        await self.stage.kill()
        self.fates.bury()
        self.fates.spare()
        self.late.clear()
        self.stray.clear()
        self.down = False
        self.stage.now += self.random.choice((0.1, 5.0, 400.0))
        await self.stage.start()

    async def kill_amid(self) -> None:
        """Die while something is done: at a statement of the database, or between a commit and telling of it."""
        box = self.box() or self.stage.boxes[0]
        work = self.random.choice((self.look, self.look, self.look, self.work_and_write, lambda: self.connect(box), self.ask, self.stop,
                                   self.judge_idle))
        after_commit = self.random.random() < 0.4
        when = self.random.choice((0, 0, 1, 2) if after_commit else (0, 3, 10, 30, 60))
        self.fates.kill_at(when, at_commit=after_commit)
        doing, death = asyncio.ensure_future(self.quiet(work)), asyncio.create_task(self.fates.dead.wait())
        await asyncio.wait([doing, death], return_when=asyncio.FIRST_COMPLETED)
        died = self.fates.dead.is_set()
        if not died:
            self.fates.spare()
        for task in (doing, death):
            task.cancel()
        await asyncio.gather(doing, death, return_exceptions=True)
        if doing.done() and not doing.cancelled() and (error := doing.exception()) is not None:
            raise error
        self.fault("manager killed between a commit and telling" if after_commit and died else
                   "manager killed in the middle" if died else "manager killed")
        await self.restart()

    async def quiet(self, work: Deed) -> None:
        try:
            await work()
        except Failure as failure:
            assert self.fates.full or failure.code == "name-taken", failure

    async def work_and_write(self) -> None:
        await self.work()
        await self.orchestrate(self.stage.orchestrator.write_reports)


def judge(row: Any) -> None:
    """See that a session that has ended can say how."""
    if row.state == SessionState.FAILED:
        assert row.result == "failure" and any(said in row.reason for said in REASONS), row
    elif row.state == SessionState.CANCELLED:
        assert row.result is None and row.reason, row
    else:
        assert row.state == SessionState.TERMINATED and row.result in ("success", "failure") and (row.exit_code == 0 or row.reason), row
    assert row.ended_at is not None and (row.started_at is None or row.started_at <= row.ended_at), row
