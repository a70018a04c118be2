"""Spread over the agents, so that sessions disturb each other least and one agent's end takes few along."""

from __future__ import annotations

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

from backendai_agentselector.share import free_after

NUDGE = 1e-9  # smaller than any difference of shares that matters: it decides between equals only


class Dispersed:
    """The selector ``dispersed``."""

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Prefer the emptiest agent; of equals the one with the fewest containers, then the one that waited longest for one."""
        age = view.last_used.argsort(kind="stable").argsort(kind="stable") / (len(view.agents) + 1)
        return free_after(view) - NUDGE * (view.kernels + age)
