"""Fair shares of domains, of projects in them, of users in these, over time.

Of siblings the one goes first whose factor F = 2^(-U/S) is the largest: U is the part of the siblings' use that is its own, S its part of
their weights. Source: the Fair Tree of Slurm's multifactor plugin (slurm.schedmd.com/fair_tree.html), which ranks siblings level by level,
with the classic factor of the same plugin; both put siblings into the order of use divided by weight, which is what is compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from math import inf

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Account, Amounts, Promise, QueueView, Waiting

from backendai_scheduler.passing import Pass, Passing, Talk, first_placed, urgent
from backendai_scheduler.shares import bands, capacity, dominant

Path = tuple[str, str, str]  # a domain, a project and a user
NOTHING = Account()


class Fairshare:
    """The scheduler ``fairshare``."""

    @dataclass(frozen=True, slots=True)
    class Config(Passing):
        """ahead_s: for how long what is held counts as used already, in seconds, so that who has just been granted much goes last.

        bands: whether a higher priority goes before everybody's share; without, it orders each user's own sessions only.
        depth: how many sessions that find no room have it kept for them, so that nobody who passes them delays them. limit: how many may
        find no room before the rest waits for the next look. patience_s: how long a session waits whose start nobody can foretell
        before agents are kept for it.
        """

        ahead_s: float = 3600.0
        bands: bool = True

        def __post_init__(self) -> None:
            Passing.__post_init__(self)
            if not 0 < self.ahead_s < inf:
                raise ValueError("ahead_s is a number of seconds, more than 0")

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        """Try the earliest session of the neediest domain's neediest project's neediest user, count what is granted, and look again."""
        going, uses = Pass(view, self._config), _Uses(view, self._config.ahead_s)
        ordered = urgent(view)
        for band in bands(ordered) if self._config.bands else [ordered]:
            yield from _fill(band, going, uses)
            if going.over:
                return

    @hookimpl
    def promises(self) -> frozenset[Promise]:
        """Promise each user his own order, and with reservations that nobody starves."""
        return frozenset({Promise.EARLIER_FIRST, Promise.NOBODY_STARVES} if self._config.depth else {Promise.EARLIER_FIRST})


class _Uses:
    """How much of the group everybody has used, in seconds of all of it, with what is held counted ahead."""

    def __init__(self, view: QueueView, ahead_s: float) -> None:
        self._accounts: Mapping[str, Account] = view.accounts
        self._total = capacity(view)
        self._ahead_s = ahead_s
        self._sizes: dict[tuple[Amounts, ...], float] = {}
        self._more: dict[str, float] = {}
        uses: dict[Path, float] = {}
        for held in view.holding:
            names = (held.domain, held.project, held.user)
            uses[names] = uses.get(names, 0.0) + self._use(held.kernels, ahead_s if held.ends_by is None else held.ends_by - view.now)
        for names, use in uses.items():
            self._book(names, use)

    def grant(self, waiting: Waiting) -> None:
        """Count a session that was placed just now."""
        left = self._ahead_s if waiting.time_limit_s is None else waiting.time_limit_s
        self._book((waiting.domain, waiting.project, waiting.user), self._use(waiting.kernels, left))

    def per_weight(self, key: str) -> float:
        """Return the use divided by the weight, 0 and up; infinite for who has no weight, whatever was used."""
        account = self._accounts.get(key, NOTHING)
        used = max(0.0, account.usage) + self._more.get(key, 0.0)  # a use that is no number, or negative, is none
        return used / account.weight if 0 < account.weight < inf and used < inf else inf

    def _use(self, kernels: tuple[Amounts, ...], left_s: float) -> float:
        if (size := self._sizes.get(kernels)) is None:
            size = self._sizes[kernels] = dominant(tuple(map(sum, zip(*kernels, strict=True))), self._total)
        return size * max(0.0, min(left_s, self._ahead_s))

    def _book(self, names: Path, use: float) -> None:
        for key in path(*names):
            self._more[key] = self._more.get(key, 0.0) + use


def path(domain: str, project: str, user: str) -> Path:
    """Return the keys of the accounts that a session is booked on."""
    return domain, project, f"{project}/{user}"


class _Branch:
    """Somebody whose sessions wait: a domain, a project or a user. below: its neediest first; line: a user's own, in their order."""

    __slots__ = ("below", "key", "line", "place")

    def __init__(self, key: str, place: int) -> None:
        self.key, self.place = key, place
        self.below: list[tuple[float, int, _Branch]] = []
        self.line: Iterator[Waiting] = iter(())


def _fill(sessions: Sequence[Waiting], going: Pass, uses: _Uses) -> Talk:
    """Go down the tree to the neediest user, again after each grant, until nobody is left."""
    root = _grow(sessions, going, uses.per_weight)
    while root.below and not going.over:
        chain = [root]
        while chain[-1].below:
            chain.append(chain[-1].below[0][2])
        placed = yield from first_placed(chain[-1].line, going)
        if placed is not None:
            uses.grant(placed)
        alive = placed is not None
        for above, branch in zip(chain[-2::-1], chain[:0:-1], strict=True):
            if alive or branch.below:
                heapreplace(above.below, (uses.per_weight(branch.key), branch.place, branch))
            else:
                heappop(above.below)


def _grow(sessions: Sequence[Waiting], going: Pass, per_weight: Callable[[str], float]) -> _Branch:
    """Return the tree of those who wait; of equals comes first who waits longest."""
    lines: dict[Path, list[Waiting]] = {}
    for waiting in sessions:
        lines.setdefault((waiting.domain, waiting.project, waiting.user), []).append(waiting)
    root, known = _Branch("", 0), dict[tuple[str, ...], _Branch]()
    for place, (names, line) in enumerate(lines.items()):
        above = root
        for level, key in enumerate(path(*names), 1):
            if (branch := known.get(names[:level])) is None:
                branch = known[names[:level]] = _Branch(key, place)
                above.below.append((per_weight(key), place, branch))
            above = branch
        above.line = going.hopeful(line)
    for branch in (root, *known.values()):
        heapify(branch.below)
    return root
