"""A decision made again, with every word of the plugins noted: the order in which sessions were tried, and how the agents were ranked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.record import Digester, unpack
from backendai.sokovan.snapshot import Snapshot
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve, Scheduler

BEST = 5  # agents shown of each choice


@dataclass(frozen=True, slots=True)
class Ranked:
    """An agent, by name, with its rank from 1 and its score. taken: the best, and so the one that was taken."""

    agent: str
    rank: int
    score: float
    taken: bool


@dataclass(frozen=True, slots=True)
class Again:
    """What came of it. digest: of the moment that was unpacked. choices: of the session that was asked about."""

    snapshot: Snapshot
    plan: Plan
    digest: str
    choices: tuple[tuple[Ranked, ...], ...]


class _Noted:
    """Both plugins, and what they say while *session* is being tried."""

    def __init__(self, scheduler: Scheduler, selector: AgentSelector, session: str) -> None:
        self._scheduler, self._selector, self._session = scheduler, selector, session
        self._trying = ""
        self.said: list[tuple[tuple[str, ...], Any]] = []
        if (pick := getattr(selector, "pick_device", None)) is not None:
            self.pick_device = pick

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        """Pass the scheduler's wishes on."""
        talk = self._scheduler.attempts(view)
        try:
            wish = next(talk, None)
            while wish is not None:
                self._trying = wish.session
                wish = talk.send((yield wish))
        except StopIteration:
            return

    def scores(self, view: PlacementView) -> Any:
        """Pass the selector's scores on. It is asked about every agent each time: ``rowwise`` is left out on purpose."""
        scores = self._selector.scores(view)
        if self._trying == self._session:
            self.said.append((view.agents, np.array(scores, dtype=np.float64)))
        return scores


def replay(packed: bytes, session: str, scheduler: Scheduler, selector: AgentSelector, late: Callable[[], bool]) -> Again:
    """Make a decision again; raise ``ValueError`` when the moment cannot be read."""
    snapshot = unpack(packed)
    noted = _Noted(scheduler, selector, session)
    plan = make_plan(snapshot, cast(Scheduler, noted), cast(AgentSelector, noted), late)
    names = {node.id: name for node, name in zip(snapshot.view.nodes, snapshot.names, strict=True)}
    placed = next((placement.agents for placement in plan.placements if placement.session == session), ())
    rows = [(agents, scores) for agents, scores in noted.said if agents[int(scores.argmax())] in placed]
    return Again(snapshot, plan, Digester().of(snapshot), tuple(_ranked(*row, names) for row in rows[-len(placed):] if placed))


def _ranked(agents: tuple[str, ...], scores: Any, names: Mapping[str, str]) -> tuple[Ranked, ...]:
    order = np.argsort(-scores, kind="stable")[:BEST].tolist()
    return tuple(Ranked(names[agents[row]], rank, float(scores[row]), rank == 1) for rank, row in enumerate(order, 1))
