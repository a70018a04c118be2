"""Which agent takes a container.

Agents that cannot take it are ruled out before the selector is asked; it only says which of the rest is best. It is a pure function
on arrays: no input or output, no clock, no randomness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backendai.spec import Arity, Spec, hook

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PlacementView:
    """One container and the agents, as arrays that the selector must not write to.

    slots: S names. agents: A ids. request: int64 [S]. capacity, free: int64 [A, S], in internal units.
    kernels: int64 [A], how many containers each agent holds. last_used: int64 [A], the number of the placement that an agent
    received last, 0 for never; a later placement has a higher number.
    """

    slots: tuple[str, ...]
    agents: tuple[str, ...]
    request: NDArray[np.int64]
    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    kernels: NDArray[np.int64]
    last_used: NDArray[np.int64]


class AgentSelector:
    """A preference among agents."""

    @hook(first=True, deadline_s=1.0)
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Return one finite score for each agent, float64 [A]. The highest that fits wins; among equals the first agent."""
        raise NotImplementedError


SPEC = Spec("agentselector", 10, AgentSelector, Arity.ONE)
