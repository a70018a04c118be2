"""Keep accelerators usable: put each container where it makes the least of them useless to the typical container.

Source: Q. Weng, L. Yang, Y. Yu, W. Wang, X. Tang, G. Yang, L. Zhang, Beware of Fragmentation: Scheduling GPU-Sharing Workloads with
Fragmentation Gradient Descent, USENIX ATC 2023. There an agent's fragmentation is what the *next* typical container cannot use of
its free accelerators; here what would be over when as many of a kind came *as fit* is added, which packs closer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

from backendai_agentselector.fragments import ONE, WHOLE, Floats, Sums, Typical, accelerators, fitting, fragments, good_for, summed, typical
from backendai_agentselector.share import free_after, idle_kinds

NUDGE = 1e-7  # thousandths: smaller than any difference of fragments that matters, so that it decides between equals only
KEEP = 1e6  # thousandths: larger than any fragment, so that it decides first
BLOCK = 256  # agents scored at a time, so that the arrays stay small


class Fragmentation:
    """The selector ``fragmentation``."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """typical: how many kinds of typical containers are looked at, the most frequent first."""

        typical: int = 64

        def __post_init__(self) -> None:
            if self.typical < 1:
                raise ValueError("typical is a number of kinds of containers, 1 or more")

    def __init__(self, config: Config | None = None) -> None:
        self._most = (config or self.Config()).typical
        self._memo: tuple[PlacementView, int, Typical] | None = None  # a mix is read once, and not for each container

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Prefer agents without slots that the container has no use for, then the least increase of fragments, then the fullest."""
        worse = np.zeros(len(view.agents))
        for slot in accelerators(view):
            of = self._typical(view, slot)
            devices = _devices(view, slot)
            for begin in range(0, len(worse), BLOCK):
                some = slice(begin, begin + BLOCK)
                used = max(1, int((devices[some] > 0).any(axis=0).sum()))
                worse[some] += _increase(view, slot, view.free[some], devices[some, :used], of)
        scores: NDArray[np.float64] = -KEEP * idle_kinds(view) - worse / ONE - NUDGE * free_after(view)
        return scores

    @hookimpl
    def rowwise(self) -> bool:
        """Tell that an agent's score is its own."""
        return True

    @hookimpl
    def pick_device(self, request: int, free: NDArray[np.int64], view: PlacementView) -> int:
        """Return the device that leaves the least fragments; of equals the fullest, and of these the first."""
        slot = next((at for at, table in view.devices.items() if table.shape[1:] == free.shape and (table[0] == free).all()), None)
        able = np.flatnonzero(free >= request)
        if slot is None or not len(able):
            return int(np.where(free >= request, free, np.inf).argmin())
        of = self._typical(view, slot)
        devices, alone = np.maximum(free, 0.0)[None, :], np.zeros_like(able)
        fit = fitting(np.maximum(view.free - view.request, 0), of)
        after = _with_part(summed(devices, of).of(alone), devices.sum(axis=1)[alone], devices[0, able], request, fit[alone], of)
        return int(able[np.lexsort((able, free[able], after))[0]])

    def _typical(self, view: PlacementView, slot: int) -> Typical:
        memo = self._memo
        if memo is not None and memo[1] == slot and _same_mix(memo[0], view):
            return memo[2]
        of = typical(view, slot, self._most)
        if view.mix is not None and not view.mix.flags.writeable:
            self._memo = (view, slot, of)
        return of


def _same_mix(one: PlacementView, other: PlacementView) -> bool:
    """Tell whether two views have the very same mix, by identity: arrays that nobody can write to stay as they are."""
    return one.mix is other.mix and one.weights is other.weights and one.devices.keys() == other.devices.keys()


def _devices(view: PlacementView, slot: int) -> Floats:
    """Return what is free of each device, [A, D], the freest first; where single devices are not known, all of them as one."""
    table = view.devices.get(slot)
    free: Floats = np.maximum(view.free[:, slot, None] if table is None else table, 0.0)
    return -np.sort(-free, axis=1)


def _increase(view: PlacementView, slot: int, free: NDArray[np.int64], devices: Floats, of: Typical) -> Floats:
    """Return how much more of *slot* each agent has that is useless, with the container on it, [R]."""
    asked = int(view.request[slot])
    sums, total = summed(devices, of), devices.sum(axis=1)
    before = fragments(sums, total, fitting(free, of), of)
    fit = fitting(np.maximum(free - view.request, 0), of)
    if slot not in view.devices:
        left = np.maximum(devices - asked, 0)
        return fragments(summed(left, of), left.sum(axis=1), fit, of) - before
    if asked == 0 or asked >= WHOLE:
        count = -(-asked // WHOLE)
        return fragments(sums.without(good_for(np.array([float(WHOLE)]), of), count), total - WHOLE * count, fit, of) - before
    rows, values = _able(devices, asked)
    best = np.full(len(devices), np.inf)
    np.minimum.at(best, rows, _with_part(sums.of(rows), total[rows], values, asked, fit[rows], of))
    return np.where(np.isinf(best), 0, best - before)  # where no device has that much the platform does not ask


def _able(devices: Floats, asked: int) -> tuple[NDArray[np.intp], Floats]:
    """Return agents and what is free of each of their devices that can give a part; of an agent's devices alike one is enough."""
    able = devices >= asked
    able[:, 1:] &= devices[:, 1:] != devices[:, :-1]
    rows, columns = np.nonzero(able)
    return rows, devices[rows, columns]


def _with_part(sums: Sums, total: Floats, values: Floats, asked: int, fit: Floats, of: Typical) -> Floats:
    """Return the fragments of agents, [N], when the device of which *values* is free gives a part."""
    after = sums.without(good_for(values, of)).without(good_for(values - asked, of), -1)
    return fragments(after, total - asked, fit, of)
