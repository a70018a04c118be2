"""How full an agent would be: the measure that the selectors go by."""

from __future__ import annotations

import numpy as np
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray


def free_after(view: PlacementView) -> NDArray[np.float64]:
    """Return for each agent the share that stays free with the container on it, 0 to 1: the mean over the slots that it asks for.

    A slot that is not asked for does not count, so that idle accelerators do not make a node look empty to those who need none.
    """
    asked = np.flatnonzero(view.request > 0).tolist() or range(len(view.slots))
    left = np.zeros(len(view.agents))
    for slot in asked:  # one after the other: the order of a sum is part of its result
        left += (view.free[:, slot] - view.request[slot]) / np.maximum(view.capacity[:, slot], 1)
    return left / max(1, len(asked))  # there may be no slots at all


def idle_kinds(view: PlacementView) -> NDArray[np.float64]:
    """Return for each agent how many kinds of slots it has that the container does not ask for."""
    count = np.zeros(len(view.agents))
    for slot in np.flatnonzero(view.request == 0).tolist():
        count += view.capacity[:, slot] > 0
    return count
