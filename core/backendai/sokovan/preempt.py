"""Who should make room for a more urgent session: as few, as unimportant and as young as will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.sokovan import gang
from backendai.sokovan.ground import Ground
from backendai.sokovan.masks import must
from backendai.sokovan.room import Room
from backendai.sokovan.snapshot import Lease, Request
from backendai.sokovan.table import Parts, Table, Want
from backendai.spec.scheduler_v10 import Amounts, Waiting

PRUNED = 256  # victims up to which each is asked whether it is needed, where adding up does not tell
Piece = tuple[int, Want, Parts]


@dataclass(frozen=True, slots=True)
class Victims:
    """Who ends, and the agents that are then to be kept for the session's kernels."""

    ids: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """priority, lost: work in seconds of the whole group's capacity. pieces: what it would give back, by agent."""

    id: str
    priority: int
    lost: float
    pieces: tuple[Piece, ...]
    lease: Lease
    kernels: tuple[Amounts, ...]


def victims(room: Room, waiting: Waiting) -> Victims | None:
    """Choose who must end so that a session certainly fits: lowest priority first, then least work lost, then fewest.

    None where nobody may be asked to, or it would not help. The room is left as it was.
    """
    search = _Search(room, waiting)
    candidates = search.candidates()
    if not candidates:
        return None
    if len(waiting.kernels) == 1 and room.allowance.short(waiting.kernels, search.request) is None:
        return search.on_one_agent(candidates)
    return search.anywhere(candidates)


class _Search:
    def __init__(self, room: Room, waiting: Waiting) -> None:
        self._room, self._waiting = room, waiting
        self.request: Request = room.snapshot.requests[waiting.id]
        self._wants = [room.want(amounts) for amounts in waiting.kernels]
        self._asked = sorted({index for want in self._wants for index, _ in want.pairs})
        self._tables = (room.ahead.now, *room.ahead.tables)
        self._moments = (room.snapshot.view.now, *room.ahead.times)
        self._wishes = must(self.request.wishes)
        self._mask = room.masks.of(self._wishes)

    def candidates(self) -> list[_Candidate]:
        """Return who may be asked to end, the least missed first."""
        shot, allowance, options = self._room.snapshot, self._room.allowance, self._room.snapshot.options.preemption
        own = options.reclaim and allowance.borrows(self.request, self._waiting.kernels) is False
        below = self.request.priority if options.enabled else -1
        latest = shot.view.now - options.least_run_s
        sizes: dict[tuple[Amounts, ...], float] = {}
        found = []
        for holding in shot.view.holding:
            lease = shot.leases[holding.id]
            if not lease.preemptible or lease.booking or lease.started_at > latest:
                continue
            if lease.priority < below or (own and allowance.borrows(lease)):
                pieces = self._pieces(lease, holding.kernels)
                if pieces:
                    if (size := sizes.get(holding.kernels)) is None:
                        size = sizes[holding.kernels] = self._size(holding.kernels)
                    lost = (shot.view.now - lease.started_at) * size
                    found.append(_Candidate(lease.id, lease.priority, lost, pieces, lease, holding.kernels))
        return sorted(found, key=lambda one: (one.priority, one.lost, one.id))

    def _size(self, kernels: tuple[Amounts, ...]) -> float:
        """Return the largest share of the whole group's capacity that a session has of any slot."""
        return max((sum(amounts) / total for *amounts, total in zip(*kernels, self._room.snapshot.view.total, strict=True) if total),
                   default=0.0)

    def _pieces(self, lease: Lease, kernels: tuple[Amounts, ...]) -> tuple[Piece, ...]:
        shot, want = self._room.snapshot, self._room.want
        if not lease.units:
            return tuple([(shot.rows[agent], want(amounts), ()) for agent, amounts in zip(lease.agents, kernels, strict=True)
                          if agent in shot.rows])
        pieces = []
        for agent, amounts, units in zip(lease.agents, kernels, lease.units, strict=True):
            if (row := shot.rows.get(agent)) is not None:
                parts = []
                for slot, some in units.items():
                    index = shot.view.slots.index(slot)
                    names = shot.device_names[index][row] if index in shot.device_names else ()
                    parts += [(index, names.index(device), amount) for device, amount in some.items() if device in names]
                pieces.append((row, want(amounts), tuple(parts)))
        return tuple(pieces)

    def on_one_agent(self, candidates: Sequence[_Candidate]) -> Victims | None:
        """Choose the agent on which the least must end for one container."""
        by_row: dict[int, list[_Candidate]] = {}
        for one in candidates:
            for row in dict.fromkeys([row for row, _, _ in one.pieces]):
                by_row.setdefault(row, []).append(one)
        chosen: dict[int, dict[int, list[_Candidate]]] = {}  # by the highest priority among them, which nobody can be spared to lower
        for row, there in by_row.items():
            if self._mask[row] and (some := self._enough(row, there)):
                chosen.setdefault(some[-1].priority, {})[row] = some
        for _, alike in sorted(chosen.items()):
            ways = []
            for row, enough in alike.items():
                some = self._pruned(enough, [row])
                ways.append((sum([one.lost for one in some]), len(some), row, some))
            for _, _, row, some in sorted(ways, key=lambda way: way[:3]):
                if self._fits(some, [row]) is not None:
                    return Victims(tuple([one.id for one in some]), (row,))
        return None

    def _enough(self, row: int, there: Sequence[_Candidate]) -> list[_Candidate] | None:
        """Return who must end on one agent, by adding up; those whose devices are named are looked at more closely later."""
        if self._wants[0].parts:
            return self._first(there, [row])
        short = self._lacks([row])
        chosen: list[_Candidate] = []
        for one in there:
            if all(lack <= 0 for lack in short.values()):
                break
            chosen.append(one)
            for key, amount in self._gives(one):
                if key in short:
                    short[key] -= amount
        return chosen if all(lack <= 0 for lack in short.values()) else None

    def anywhere(self, candidates: Sequence[_Candidate]) -> Victims | None:
        """Choose who must end for a session of several containers, or for a quota."""
        some = self._first(candidates, None)
        if some is None:
            return None
        missed = np.zeros(len(self._mask))
        for one in some:
            for row, _, _ in one.pieces:
                missed[row] -= one.lost + 1e-9
        rows = self._fits(some, None, missed)
        if rows is None:
            return None
        there = set(rows)
        chosen = [one for one in some if any(row in there for row, _, _ in one.pieces)]
        for one in some:  # a quota may need more than the agents do
            if not self._short(chosen):
                break
            if one not in chosen:
                chosen.append(one)
        chosen = self._pruned(sorted(chosen, key=lambda one: (one.priority, one.lost, one.id)), rows)
        final = self._fits(chosen, rows)
        return None if final is None else Victims(tuple(one.id for one in chosen), tuple(final))

    def _first(self, candidates: Sequence[_Candidate], only: Sequence[int] | None) -> list[_Candidate] | None:
        """Return the shortest beginning of a list that is enough, None where all of it is not."""
        if self._fits(candidates, only) is None:
            return None
        low, high = 1, len(candidates)
        while low < high:
            middle = (low + high) // 2
            if self._fits(candidates[:middle], only) is not None:
                high = middle
            else:
                low = middle + 1
        return list(candidates[:low])

    def _pruned(self, chosen: list[_Candidate], rows: Sequence[int]) -> list[_Candidate]:
        """Spare whom the session does not need on the agents that it is to have, the most missed first."""
        if any(want.parts for want in self._wants) or self._short([]):
            for one in list(reversed(chosen))[:PRUNED]:
                rest = [other for other in chosen if other is not one]
                if self._fits(rest, rows) is not None:
                    chosen = rest
            return chosen
        over = {key: -lack for key, lack in self._lacks(rows).items()}
        for one in chosen:
            for key, amount in self._gives(one):
                over[key] = over.get(key, 0) + amount
        kept = []
        for one in reversed(chosen):
            gives: dict[tuple[int, int], int] = {}
            for key, amount in self._gives(one):
                gives[key] = gives.get(key, 0) + amount
            if all(over[key] >= amount for key, amount in gives.items() if key[0] in rows):
                for key, amount in gives.items():
                    over[key] -= amount
            else:
                kept.append(one)
        return kept[::-1]

    def _lacks(self, rows: Sequence[int]) -> dict[tuple[int, int], int]:
        """Return what each agent lacks of each slot for the kernels that it is to have."""
        needs: dict[tuple[int, int], int] = {}
        for row, want in zip(rows, self._wants, strict=True):
            for index, amount in want.pairs:
                needs[row, index] = needs.get((row, index), 0) + amount
        return {(row, index): need - min(int(table.free[row, index]) for table in self._tables) for (row, index), need in needs.items()}

    def _gives(self, one: _Candidate) -> list[tuple[tuple[int, int], int]]:
        return [((row, index), want.amounts[index]) for row, want, _ in one.pieces for index in self._asked if want.amounts[index]]

    def _short(self, gone: Sequence[_Candidate]) -> bool:
        """Tell whether a quota would still be exceeded if some were gone."""
        allowance = self._room.allowance
        for one in gone:
            allowance.spend(one.kernels, one.lease, -1)
        short = allowance.short(self._waiting.kernels, self.request)
        for one in gone:
            allowance.spend(one.kernels, one.lease)
        return short is not None

    def _fits(self, gone: Sequence[_Candidate], only: Sequence[int] | None, rank: NDArray[np.float64] | None = None) -> list[int] | None:
        """Return where the session would be if some were gone, or None. only: the agents that it may use. rank: which it should."""
        if self._short(gone):
            return None
        room, wishes, mask = self._room, self._wishes, self._mask
        if only is not None:
            mask = np.zeros(len(mask), dtype=bool)
            mask[list(only)] = True
            mask &= self._mask
        self._give(self._tables, gone, -1)
        try:
            ground = Ground(self._tables, mask, rank)
            rows = gang.find(ground, self._wants, wishes, room.masks.zones(wishes), room.fewest(self._waiting.kernels, wishes))
            ground.undo(0)
        finally:
            self._give(self._tables, gone, 1)
        return rows

    def _give(self, tables: Sequence[Table], gone: Sequence[_Candidate], sign: int) -> None:
        """Let some be gone (sign -1) at every moment at which they would be there, or bring them back."""
        for one in gone:
            for moment, table in zip(self._moments, tables, strict=True):
                if one.lease.ends_by is None or one.lease.ends_by > moment or moment == self._moments[0]:
                    for row, want, parts in one.pieces:
                        table.take(row, want, parts, sign)
