"""Who should make room for a more urgent session: as few, as unimportant and as young as will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backendai.sokovan import gang
from backendai.sokovan.ground import Ground
from backendai.sokovan.room import Room
from backendai.sokovan.snapshot import Lease, Request
from backendai.sokovan.table import Table, Want
from backendai.spec.scheduler_v10 import Amounts, Waiting

PRUNED = 256  # victims up to which each is asked whether it is needed


@dataclass(frozen=True, slots=True)
class Victims:
    """Who ends, and the agents that are then to be kept for the session's kernels."""

    ids: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """priority, lost: work in seconds of the whole group's capacity. pieces: what it would give back, by agent."""

    id: str
    priority: int
    lost: float
    ends_by: float | None
    pieces: tuple[tuple[int, Want, tuple[tuple[int, int, int], ...]], ...]
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
        self._moments = (room.snapshot.view.now, *room.ahead.times)

    def candidates(self) -> list[_Candidate]:
        """Return who may be asked to end, the least missed first."""
        shot, allowance, options = self._room.snapshot, self._room.allowance, self._room.snapshot.options.preemption
        own = options.reclaim and allowance.borrows(self.request, self._waiting.kernels) is False
        found = []
        for holding in shot.view.holding:
            lease = shot.leases[holding.id]
            if not lease.preemptible or lease.booking or lease.started_at + options.least_run_s > shot.view.now:
                continue
            if (options.enabled and lease.priority < self.request.priority) or (own and allowance.borrows(lease)):
                found.append(self._candidate(lease, holding.kernels))
        return sorted((one for one in found if one.pieces), key=lambda one: (one.priority, one.lost, one.id))

    def _candidate(self, lease: Lease, kernels: tuple[Amounts, ...]) -> _Candidate:
        shot, rows = self._room.snapshot, self._room.snapshot.rows
        units = lease.units or ({},) * len(kernels)
        pieces = []
        for agent, amounts, devices in zip(lease.agents, kernels, units, strict=True):
            if (row := rows.get(agent)) is not None:
                parts = []
                for slot, some in devices.items():
                    index = shot.view.slots.index(slot)
                    names = shot.device_names[index][row]
                    parts += [(index, names.index(device), amount) for device, amount in some.items() if device in names]
                pieces.append((row, self._room.want(amounts), tuple(parts)))
        total = np.maximum(np.array(shot.view.total, dtype=np.float64), 1.0)
        size = float((np.array(kernels, dtype=np.float64).sum(axis=0) / total).max(initial=0.0))
        return _Candidate(lease.id, lease.priority, (shot.view.now - lease.started_at) * size, lease.ends_by, tuple(pieces), lease, kernels)

    def on_one_agent(self, candidates: Sequence[_Candidate]) -> Victims | None:
        """Choose the agent on which the least must end for one container."""
        by_row: dict[int, list[_Candidate]] = {}
        for one in candidates:
            for row in dict.fromkeys(row for row, _, _ in one.pieces):
                by_row.setdefault(row, []).append(one)
        best: tuple[tuple[int, float, int, int], list[_Candidate]] | None = None
        for row, there in sorted(by_row.items()):
            if best is not None and there[0].priority > best[0][0]:
                continue
            chosen = self._enough(row, there)
            if chosen is not None:
                cost = (max(one.priority for one in chosen), sum(one.lost for one in chosen), len(chosen), row)
                if best is None or cost < best[0]:
                    best = cost, chosen
        if best is None:
            return None
        rows = self._fits(best[1], best[0][3])
        return None if rows is None else Victims(tuple(one.id for one in best[1]), tuple(rows))

    def _enough(self, row: int, there: Sequence[_Candidate]) -> list[_Candidate] | None:
        """Return who must end on one agent, without those who turn out not to be needed."""
        tables, want = (self._room.ahead.now, *self._room.ahead.tables), self._wants[0]
        if not self._room.ground(self.request.wishes).mask[row]:
            return None
        short = [max(amount - int(table.free[row, index]) for table in tables) for index, amount in want.pairs]
        gives = [[sum(piece.amounts[index] for at, piece, _ in one.pieces if at == row) for index, _ in want.pairs] for one in there]
        chosen: list[int] = []
        for i, given in enumerate(gives):
            if all(lack <= 0 for lack in short) and (not want.parts or self._fits([there[k] for k in chosen], row)):
                break
            chosen.append(i)
            short = [lack - g for lack, g in zip(short, given, strict=True)]
        if any(lack > 0 for lack in short):
            return None
        for i in reversed(chosen):
            spared = [lack + g for lack, g in zip(short, gives[i], strict=True)]
            rest = [k for k in chosen if k != i]
            if all(lack <= 0 for lack in spared) and (not want.parts or self._fits([there[k] for k in rest], row)):
                chosen, short = rest, spared
        picked = [there[k] for k in chosen]
        return picked if picked and self._fits(picked, row) is not None else None

    def anywhere(self, candidates: Sequence[_Candidate]) -> Victims | None:
        """Choose who must end for a session of several containers, or for a quota."""
        if self._fits(candidates) is None:
            return None
        low, high = 1, len(candidates)
        while low < high:
            middle = (low + high) // 2
            if self._fits(candidates[:middle]) is not None:
                high = middle
            else:
                low = middle + 1
        chosen = list(candidates[:low])
        for one in list(reversed(chosen))[:PRUNED]:
            rest = [other for other in chosen if other is not one]
            if rest and self._fits(rest) is not None:
                chosen = rest
        rows = self._fits(chosen)
        return None if rows is None else Victims(tuple(one.id for one in chosen), tuple(rows))

    def _fits(self, gone: Sequence[_Candidate], only: int | None = None) -> list[int] | None:
        """Return where the session would be if some were gone, or None."""
        room, wishes = self._room, self.request.wishes
        allowance = room.allowance
        for one in gone:
            allowance.spend(one.kernels, one.lease, -1)
        short = allowance.short(self._waiting.kernels, self.request)
        for one in gone:
            allowance.spend(one.kernels, one.lease)
        if short is not None:
            return None
        ground = room.ground(wishes)
        tables = ground.tables
        self._give(tables, gone, -1)
        try:
            among = None
            if only is not None:
                among = np.zeros(len(ground.mask), dtype=bool)
                among[only] = True
            there = Ground(tables, ground.mask if among is None else ground.mask & among)
            rows = gang.find(there, self._wants, wishes, room.masks.zones(wishes), room.fewest(self._waiting.kernels, wishes))
            there.undo(0)
        finally:
            self._give(tables, gone, 1)
        return rows

    def _give(self, tables: Sequence[Table], gone: Sequence[_Candidate], sign: int) -> None:
        """Let some be gone (sign -1) at every moment at which they would be there, or bring them back."""
        for one in gone:
            for moment, table in zip(self._moments, tables, strict=True):
                if one.ends_by is None or one.ends_by > moment or moment == self._moments[0]:
                    for row, want, parts in one.pieces:
                        table.take(row, want, parts, sign)
