"""Fragmentation: how much of what is free the jobs that come cannot use, after Weng et al., USENIX ATC 2023, section 3."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import SCALE, Slots
from backendai.sokovan.snapshot import Snapshot
from backendai.testing.simulate.scene import Scene

SHAPES = 24  # the commonest kinds of containers stand for all


class Fragments:
    """The mix of a scene: its commonest containers that ask for the unit, each with its weight."""

    def __init__(self, scene: Scene) -> None:
        counts: Counter[tuple[tuple[str, int], ...]] = Counter()
        for task in scene.tasks:
            for kernel in task.request.kernels[:1]:
                if kernel.get(scene.unit):
                    counts[tuple(sorted(kernel.items()))] += 1
        self._unit = scene.unit
        self._mix: list[tuple[Slots, int]] = [(dict(shape), count) for shape, count in counts.most_common(SHAPES)]

    def share(self, snapshot: Snapshot) -> float | None:
        """Return the share of the free unit that the mix cannot use, 0 to 1; None where nothing is free.

        A container that a node has no room for can use nothing of it; one that asks for a part of a device can use no device with less.
        """
        slots = snapshot.view.slots
        if self._unit not in slots or not self._mix:
            return None
        unit = slots.index(self._unit)
        free = snapshot.free
        total = float(free[:, unit].sum())
        if total <= 0:
            return None
        lost = sum(weight * self._unusable(snapshot, shape, unit) for shape, weight in self._mix)
        return float(lost) / sum(weight for _, weight in self._mix) / total

    def _unusable(self, snapshot: Snapshot, shape: Slots, unit: int) -> float:
        wants: NDArray[np.int64] = np.array([shape.get(slot, 0) for slot in snapshot.view.slots], dtype=np.int64)
        fits = (snapshot.free >= wants).all(axis=1)
        devices = snapshot.devices.get(unit)
        if devices is None:
            return float(snapshot.free[~fits, unit].sum())
        part = int(wants[unit])
        enough = devices >= min(part, SCALE)
        fits &= enough.sum(axis=1) >= max(1, part // SCALE)
        left_over = np.where(~enough & (devices > 0), devices, 0).sum(axis=1)  # of devices that are too full for it
        return float(np.where(fits, left_over, snapshot.free[:, unit]).sum())
