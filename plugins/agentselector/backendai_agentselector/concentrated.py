"""Fill one agent before the next, so that whole agents stay free for large sessions."""

from __future__ import annotations

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

from backendai_agentselector.share import free_after, idle_kinds


class Concentrated:
    """The selector ``concentrated``."""

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Prefer agents without slots that the container has no use for (a CPU job stays off GPUs), then the fullest."""
        return -idle_kinds(view) - free_after(view)

    @hookimpl
    def rowwise(self) -> bool:
        """Tell that an agent's score is its own."""
        return True
