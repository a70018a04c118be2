"""Which agents a session's wishes leave it, whatever is free."""

from __future__ import annotations

import numpy as np

from backendai.model.session import Wishes
from backendai.sokovan.queue import wish_key
from backendai.sokovan.snapshot import Array, Snapshot
from backendai.sokovan.table import Bools

ZONE = "zone"  # the label


def must(wishes: Wishes) -> Wishes:
    """Return what of some wishes is a must."""
    return wishes if wishes.strict else Wishes(one_agent=wishes.one_agent)


class Masks:
    """For each set of wishes the agents that satisfy them, worked out once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.everyone: Bools = np.ones(len(snapshot.rows), dtype=bool)
        self._names, self._labels = snapshot.names, snapshot.labels
        self._known: dict[object, Bools] = {} if snapshot.memory is None else snapshot.memory.masks
        self._zones: Array | None = None

    def of(self, wishes: Wishes) -> Bools:
        """Return the agents that have the labels, are named where some are, and are not to be avoided."""
        if not (wishes.agents or wishes.avoid or wishes.labels):
            return self.everyone
        key = wish_key(wishes)
        if (known := self._known.get(key)) is None:
            among, avoid, labels = frozenset(wishes.agents), frozenset(wishes.avoid), tuple(wishes.labels.items())
            known = self._known[key] = np.array(
                [(not among or name in among) and name not in avoid and all(has.get(label) == value for label, value in labels)
                 for name, has in zip(self._names, self._labels, strict=True)], dtype=bool)
        return known

    def zones(self, wishes: Wishes) -> Array | None:
        """Return each agent's failure domain as a number, -1 for those without; None where the wishes do not ask."""
        if wishes.zone is None:
            return None
        if self._zones is None:
            names = sorted({zone for has in self._labels if (zone := has.get(ZONE))})
            numbers = {name: number for number, name in enumerate(names)}
            self._zones = np.array([numbers.get(has.get(ZONE, ""), -1) for has in self._labels], dtype=np.int64)
        return self._zones
