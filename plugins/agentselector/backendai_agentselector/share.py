"""How full an agent would be: the measure that both selectors go by."""

from __future__ import annotations

import numpy as np
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray


def free_after(view: PlacementView) -> NDArray[np.float64]:
    """Return for each agent the share that stays free with the container on it, 0 to 1: the mean over the slots that it asks for.

    A slot that is not asked for does not count, so that idle accelerators do not make a node look empty to those who need none.
    """
    asked = view.request > 0
    if not asked.any():
        asked = np.ones_like(asked)
    capacity = np.maximum(view.capacity[:, asked], 1)
    left: NDArray[np.float64] = ((view.free[:, asked] - view.request[asked]) / capacity).sum(axis=1)
    return left / max(1, int(asked.sum()))  # there may be no slots at all


def idle_kinds(view: PlacementView) -> NDArray[np.float64]:
    """Return for each agent how many kinds of slots it has that the container does not ask for."""
    count: NDArray[np.float64] = (view.capacity[:, view.request == 0] > 0).sum(axis=1).astype(np.float64)
    return count
