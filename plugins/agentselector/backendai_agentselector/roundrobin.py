"""Take turns: who received a container longest ago gets the next."""

from __future__ import annotations

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

from backendai_agentselector.share import idle_kinds

KEEP = 2.0 ** 48  # more placements than will ever be made


class RoundRobin:
    """The selector ``roundrobin``."""

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Prefer agents without slots that the container has no use for, then whoever received one longest ago."""
        return -KEEP * idle_kinds(view) - view.last_used

    @hookimpl
    def rowwise(self) -> bool:
        """Tell that an agent's score is its own."""
        return True
