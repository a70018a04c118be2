"""Which agent takes a container.

Agents that cannot take it are ruled out before the selector is asked; it only says which of the rest is best. It is a pure function
on arrays: no input or output, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    devices: for each slot of the kind ``fraction``, by its index: int64 [A, D], what is free of each device, 1000 for a whole one;
    rows are padded with -1. A request below 1000 takes a part of one device, any other takes whole devices.
    mix: int64 [M, S], what containers of this group typically ask for. weights: float64 [M], how often, adding up to 1. Both are
    None where nothing is known.
    """

    slots: tuple[str, ...]
    agents: tuple[str, ...]
    request: NDArray[np.int64]
    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    kernels: NDArray[np.int64]
    last_used: NDArray[np.int64]
    devices: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    mix: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None


class AgentSelector:
    """A preference among agents."""

    @hook(first=True, deadline_s=1.0)
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Return one finite score for each agent, float64 [A]. The highest that fits wins; among equals the first agent."""
        raise NotImplementedError

    @hook(first=True, deadline_s=1.0, optional=True)
    def rowwise(self) -> bool:
        """Tell whether an agent's score depends on nothing but its own row, the request and the mix.

        Then only agents that have changed are scored again, which makes large clusters quick. Left out, it means no.
        """
        raise NotImplementedError

    @hook(first=True, deadline_s=1.0, optional=True)
    def pick_device(self, request: int, free: NDArray[np.int64], view: PlacementView) -> int:
        """Return the index of the device, of those in *free* (int64 [D]), that gives *request* thousandths of itself.

        view: of the chosen agent alone, before it gives anything, with all that the container asks for.
        Left out, the fullest device that suffices is taken.
        """
        raise NotImplementedError


SPEC = Spec("agentselector", 10, AgentSelector, Arity.ONE)
