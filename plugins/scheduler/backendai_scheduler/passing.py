"""Who may pass whom: what every scheduler shares that goes on when somebody finds no room."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter

from backendai.spec.scheduler_v10 import Amounts, Attempt, Node, Outcome, QueueView, Reserve, Waiting

ASKS = 8  # reservations that nobody could date: how many are asked for beyond the depth, so that they cost no more than this

Wish = Attempt | Reserve
Talk = Generator[Wish, Outcome, None]


@dataclass(frozen=True, slots=True)
class Passing:
    """depth: how many sessions that find no room have it kept for them, so that nobody who passes them delays them.

    limit: how many may find no room before the rest waits for the next look; the likes of one that found none do not count.
    patience_s: how long a session waits whose start nobody can foretell (some session has no time limit) before agents are kept
    for it; their number doubles each time it has waited as long again. inf: for ever.
    """

    depth: int = 1
    limit: int = 500
    patience_s: float = 21600.0

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError("depth is a number of sessions, 0 or more")
        if self.limit < 1:
            raise ValueError("limit is a number of sessions, 1 or more")
        if not self.patience_s > 0:
            raise ValueError("patience_s is a number of seconds, more than 0")


def urgent(view: QueueView) -> list[Waiting]:
    """Return who waits by priority, and then as they asked."""
    return sorted(view.waiting, key=attrgetter("priority"), reverse=True)  # a stable sort, reversed or not: the order of asking stays


def in_turn(view: QueueView, ordered: Iterable[Waiting], overtake: bool) -> Talk:
    """Try one after the other; stop at the first that waits for room, unless others may overtake it.

    What no agent could ever hold keeps nobody waiting.
    """
    going = Pass(view, Passing(depth=0))
    for waiting in going.hopeful(ordered):
        outcome = yield Attempt(waiting.id)
        if outcome is Outcome.BLOCKED:
            if not overtake:
                return
            going.note(waiting)


class Pass:
    """One view, and what it has taught so far: which shapes find no room, and how much is kept for whom."""

    def __init__(self, view: QueueView, rules: Passing) -> None:
        self._view = view
        self._patience_s = rules.patience_s
        self._reservations = rules.depth
        self._asks = rules.depth + ASKS
        self._tries = rules.limit
        self._blocked: dict[int, float] = {}  # by shape: the shortest time limit that found no room
        self._avoid: frozenset[str] = frozenset()

    @property
    def over(self) -> bool:
        """Tell whether so many found no room that the rest waits for the next look."""
        return self._tries <= 0

    def hopeful(self, line: Iterable[Waiting]) -> Iterator[Waiting]:
        """Yield who might yet find room: those of whom no like has found none that was to run no longer."""
        blocked = self._blocked
        for waiting in line:  # of thousands that wait few get further than the next two lines
            shortest = blocked.get(waiting.shape)
            if shortest is None or (waiting.time_limit_s is not None and waiting.time_limit_s < shortest):
                yield waiting

    def attempt(self, waiting: Waiting) -> Generator[Wish, Outcome, bool]:
        """Try a session, and keep room for it where it finds none and may have that; return whether it was placed."""
        outcome = yield Attempt(waiting.id, self._avoid)
        if outcome is not Outcome.BLOCKED:  # what no room would help says nothing of its likes: a quota may hold it back
            return outcome is Outcome.PLACED
        self._tries -= 1
        if self._reservations and self._asks:
            self._asks -= 1
            if (yield Reserve(waiting.id)) is Outcome.RESERVED:
                self._reservations -= 1
                if self._reservations:
                    return False  # its likes may have a reservation, too
            elif kept := self._kept(waiting):
                self._avoid, self._reservations = kept, 0  # a reservation knows nothing of agents that are kept, and might be theirs
        self.note(waiting)
        return False

    def note(self, waiting: Waiting) -> None:
        """Remember that a session found no room: its likes need not be tried."""
        if waiting.shape:
            self._blocked[waiting.shape] = inf if waiting.time_limit_s is None else waiting.time_limit_s

    def _kept(self, waiting: Waiting) -> frozenset[str]:
        """Return the agents that are kept for a session of which nobody can tell when it will start."""
        periods = int(min((self._view.now - waiting.submitted_at) / self._patience_s, 64))
        if periods < 1 or _fits(waiting.kernels, self._view.nodes):  # it is not others that take its room
            return frozenset()
        need = tuple(map(min, zip(*waiting.kernels, strict=True)))
        able = [node for node in self._view.nodes if all(has >= asks for has, asks in zip(node.capacity, need, strict=True))]
        able.sort(key=lambda node: (_lack(node, need), node.id))
        return frozenset(node.id for node in able[:len(waiting.kernels) << (periods - 1)])


def first_placed(line: Iterator[Waiting], going: Pass) -> Generator[Wish, Outcome, Waiting | None]:
    """Try one of a line after the other; return the first that was placed, None where nobody was."""
    for waiting in line:
        if (yield from going.attempt(waiting)):
            return waiting
        if going.over:
            return None
    return None


def _fits(kernels: Sequence[Amounts], nodes: Sequence[Node]) -> bool:
    """Tell whether the containers go onto what is free, each on the first agent with room."""
    free = [node.free for node in nodes]
    for kernel in kernels:
        at = next((at for at, has in enumerate(free) if all(a >= b for a, b in zip(has, kernel, strict=True))), None)
        if at is None:
            return False
        free[at] = tuple(a - b for a, b in zip(free[at], kernel, strict=True))
    return True


def _lack(node: Node, need: Amounts) -> float:
    """Return the largest share of an agent that it lacks for *need*, 0 to 1."""
    return max((max(0, asks - free) / has for asks, free, has in zip(need, node.free, node.capacity, strict=True) if has), default=0.0)
