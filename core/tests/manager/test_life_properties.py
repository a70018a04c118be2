"""The pure state machine under any words in any order: what must hold of every session, whatever its agents say."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import Random

import msgspec
import pytest
from backendai.manager import life
from backendai.manager.held import Held, Kernel
from backendai.model.session import FINAL, TRANSITIONS, Evicted, Part, Retry, SessionSpec, SessionState, SessionType
from backendai.wire.link import KernelState as K
from backendai.wire.link import Observed

S = SessionState


class Play:
    """One session, and everything that may happen to it. began: kernels of this attempt that an agent said to have begun."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.numbers = count(1)
        self.now = 1000.0
        self.began: set[str] = set()
        self.seen: list[tuple[str, Observed]] = []
        subs = self.dice.choice((0, 0, 1, 2, 4))
        kind = self.dice.choice(list(SessionType))
        retry = Retry(self.dice.choice((0, 0, 2)), 1.0) if kind is SessionType.BATCH else Retry()
        cluster = (Part("main"), Part("sub", subs)) if subs else ()
        spec = SessionSpec(kind, "s", slots={"cpu": 1000}, cluster=cluster, retry=retry, time_limit_s=self.dice.choice((None, 500.0)))
        names = [("main", 1), *(("sub", n) for n in range(1, subs + 1))]
        kernels = tuple(Kernel(self.fresh(), role, idx, '{"cpu":1000}', None, False, "", None, "", "{}", 1) for role, idx in names)
        text = msgspec.json.encode(spec).decode()
        self.held = Held("s", "s", "u", kind, text, 10, S.PENDING, None, False, None, None, "", "", None, None, 0.0, None, None, "p", "d",
                         "g", 1, 0, None, None, "", "", None, "", "", None, 0, 0, kernels)

    def fresh(self) -> str:
        return f"k{next(self.numbers)}"

    def step(self) -> None:
        before = self.held
        if before.state == S.PENDING and not before.stop:
            after: Held | None = life.place(before, [f"a{n % 2}" for n in range(len(before.kernels))], self.now)
        else:
            after = self.dice.choice((self.word, self.word, self.word, self.word, self.again, self.time, self.lost, self.wish, self.room))()
        if after is None:
            return
        self.check(before, after)
        if after.state == S.PENDING:
            self.began.clear()
        self.held = replace(after, past=())

    def word(self) -> Held | None:
        """Have an agent say something of a kernel, true or not."""
        kernel = self.dice.choice(self.held.kernels)
        state = self.dice.choice(list(K))
        over = state in (K.EXITED, K.GONE)
        ran = state is K.RUNNING or kernel.id in self.began or (over and self.dice.random() < 0.4)
        code = self.dice.choice((0, 0, 3, 143)) if over and ran else None
        why = self.dice.choice(("", "", "stopped", "time-limit", "out-of-memory")) if code else ""
        error = "It broke." if over and self.dice.random() < 0.1 else ""
        seen = Observed(kernel.id, state, exit_code=code, why=why, error=error, started_at=self.now if ran else None,
                        ended_at=self.now if over else None)
        if ran and kernel.holds:
            self.began.add(kernel.id)
        self.seen.append((kernel.id, seen))
        return life.report(self.held, kernel.id, seen, self.fresh, self.now)

    def again(self) -> Held | None:
        """Have the last word be said once more, or an old one."""
        if not self.seen:
            return None
        kernel, seen = self.seen[-1]
        assert life.report(self.held, kernel, seen, self.fresh, self.now) is None, "a repeated word changes nothing"
        return None

    def time(self) -> Held | None:
        self.now += self.dice.choice((1.0, 61.0, 130.0, 2000.0))
        present = ("a0", "a1") if self.dice.random() < 0.8 else ("a0",)
        return life.overdue(self.held, present, self.fresh, self.now) or life.outlived(self.held, self.now)

    def lost(self) -> Held | None:
        if self.dice.random() < 0.7:
            return None
        agent = self.dice.choice(("a0", "a1"))
        return life.lose(self.held, [k.id for k in self.held.kernels if k.agent == agent], "It was lost.", self.fresh, self.now)

    def wish(self) -> Held | None:
        if self.dice.random() < 0.8:
            return None
        self.held = replace(self.held, stop=True)
        return life.stop(self.held, self.now)

    def room(self) -> Held | None:
        return life.evict(self.held, self.dice.choice(list(Evicted)), 5.0, self.now) if self.dice.random() < 0.2 else None

    def check(self, before: Held, after: Held) -> None:
        """See that a step is one that may be."""
        assert before.state not in FINAL, "what has ended stays as it is"
        assert after.state == before.state or after.state in TRANSITIONS[S(before.state)], (before, after)
        was = {kernel.id: kernel for kernel in before.kernels}
        if before.state != S.PENDING:
            assert all(was[kernel.id].holds for kernel in after.holding), "nothing is held that was not"
        if after.state in FINAL:
            assert not after.holds and after.ended_at is not None and after.deadline is None
            assert (after.result is None) is (after.state == S.CANCELLED)
            assert after.state != S.FAILED or after.reason
        elif after.state == S.PENDING:
            assert not after.holds and not was.keys() & {kernel.id for kernel in after.kernels}, "its kernels are others"
            assert after.agent_id is None and after.started_at is None and not after.stop
            assert after.attempt > before.attempt or not self.began, "what has begun is no more begun in the same attempt"
            assert after.attempt == before.attempt or len(after.past) == len(before.kernels)
        else:
            assert after.deadline is not None or after.state == S.RUNNING, "no passing state lasts for ever"
        if before.state == S.TERMINATING and before.result is not None and after.state != S.PENDING:
            assert (after.result, after.exit_code) == (before.result, before.exit_code), "a result that is known stays"
        if after.state == S.RUNNING and before.state != S.RUNNING:
            assert all(kernel.state in (K.RUNNING, K.EXITED, K.GONE) for kernel in after.kernels), "it runs when all run"


@pytest.mark.parametrize("seeds", range(20))
def test_whatever_agents_say_a_session_stays_what_a_session_is(seeds: int) -> None:
    ends = set()
    for seed in range(seeds * 100, seeds * 100 + 100):
        play = Play(seed)
        for _ in range(60):
            if play.held.state in FINAL:
                break
            try:
                play.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
        ends.add(str(play.held.state))
    assert {"TERMINATED", "FAILED"} <= ends, "the dice reach every end"
