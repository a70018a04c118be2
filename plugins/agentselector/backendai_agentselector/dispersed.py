"""Spread over the agents, so that sessions disturb each other least and one agent's end takes few along."""

from __future__ import annotations

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

from backendai_agentselector.share import free_after, idle_kinds

# What a score is made of, as bits of one float: the share in 65,536 steps, up to 255 containers, and the last 33 million placements.
SHARE, KERNELS, TURNS = 16, 8, 25


class Dispersed:
    """The selector ``dispersed``."""

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Prefer agents without slots that the container has no use for, then the emptiest, of equals the one with the fewest containers.

        Then it is whoever waited longest for one.
        """
        share = np.floor(free_after(view) * 2.0 ** SHARE)
        kernels = np.minimum(view.kernels, 2 ** KERNELS - 1) / 2.0 ** KERNELS
        turn = (view.last_used & (2 ** TURNS - 1)) / 2.0 ** (KERNELS + TURNS)
        scores: NDArray[np.float64] = (share - kernels - turn) / 2.0 ** (SHARE + 1) - idle_kinds(view)
        return scores

    @hookimpl
    def rowwise(self) -> bool:
        """Tell that an agent's score is its own."""
        return True
