"""A group of one pool, played by the book: what the tests of the schedulers talk to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from backendai.spec.scheduler_v10 import Account, Amounts, Attempt, Holding, Node, Outcome, QueueView, Reserve, Waiting
from backendai_scheduler.passing import Talk

NOW = 100_000.0
Answer = Callable[[str], Outcome]


class Talker(Protocol):
    """A scheduler."""

    def attempts(self, view: QueueView) -> Talk: ...


def waiting(id: str, user: str = "ann", need: Amounts = (1000,), **more: object) -> Waiting:
    """Make a session that waits; unless told otherwise it was asked for just now, in the project ``lab`` of the domain ``uni``."""
    given = {"project": "lab", "priority": 10, "submitted_at": NOW, "domain": "uni", **more}
    kernels = given.pop("kernels", (need,))
    return Waiting(id=id, user=user, kernels=kernels, **given)  # type: ignore[arg-type]  # what the caller gives is of the field's type


def holding(user: str, need: Amounts, project: str = "lab", domain: str = "uni", ends_by: float | None = None) -> Holding:
    """Make a session that holds something."""
    return Holding(f"held by {user}", user, project, 10, NOW - 10, (need,), ("agent0",), ends_by, domain)


def view(sessions: Sequence[Waiting], total: Amounts = (8000,), held: Sequence[Holding] = (), nodes: Sequence[Node] = (),
         accounts: Mapping[str, Account] | None = None) -> QueueView:
    """Make a view, with one agent of the size *total* unless there are others."""
    return QueueView(NOW, tuple(f"slot{n}" for n in range(len(total))), tuple(sessions), tuple(held),
                     tuple(nodes) or (Node("agent0", total, total),), total=total, accounts=accounts or {})


def tell(scheduler: Talker, seen: QueueView, attempt: Answer,
         reserve: Answer = lambda session: Outcome.RESERVED) -> list[Attempt | Reserve]:
    """Hold a conversation; return what was said."""
    talk, said = scheduler.attempts(seen), list[Attempt | Reserve]()
    try:
        wish = next(talk)
        while True:
            said.append(wish)
            wish = talk.send(reserve(wish.session) if isinstance(wish, Reserve) else attempt(wish.session))
    except StopIteration:
        return said


def tried(said: Sequence[Attempt | Reserve]) -> list[str]:
    """Return whom a conversation named: a reservation with an R before."""
    return [f"R{wish.session}" if isinstance(wish, Reserve) else wish.session for wish in said]


def always(outcome: Outcome) -> Answer:
    """Answer everything alike."""
    return lambda session: outcome


def only(*placed: str, others: Outcome = Outcome.BLOCKED) -> Answer:
    """Place these, and no others."""
    return lambda session: Outcome.PLACED if session in placed else others


class Pool:
    """One pool of everything, from which sessions take as long as there is enough. taken: how much each user got."""

    def __init__(self, seen: QueueView) -> None:
        self._sessions = {w.id: w for w in seen.waiting}
        self.left = list(seen.total)
        self.taken: dict[str, list[int]] = {}
        self.placed: list[str] = []

    def __call__(self, session: str) -> Outcome:
        one = self._sessions[session]
        need = [sum(column) for column in zip(*one.kernels, strict=True)]
        if any(has < asks for has, asks in zip(self.left, need, strict=True)):
            return Outcome.BLOCKED
        self.left = [has - asks for has, asks in zip(self.left, need, strict=True)]
        mine = self.taken.setdefault(one.user, [0] * len(need))
        self.taken[one.user] = [a + b for a, b in zip(mine, need, strict=True)]
        self.placed.append(session)
        return Outcome.PLACED
