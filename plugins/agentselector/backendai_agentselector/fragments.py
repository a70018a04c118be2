"""What of an accelerator the typical container cannot use: the measure that the selector ``fragmentation`` goes by.

All of it is arithmetic on integers, so that an agent's score is the same to the last bit whoever is scored beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WHOLE = 1000  # thousandths of one device
ONE = 1 << 20  # what weights add up to
MANY = 1 << 20  # more containers than go on any agent
PLAIN = ((WHOLE // 4, 0.125), (WHOLE // 2, 0.125), (WHOLE, 0.5), (2 * WHOLE, 0.125), (4 * WHOLE, 0.0625), (8 * WHOLE, 0.0625))


@dataclass(frozen=True, slots=True)
class Typical:
    """What typical containers ask of one accelerator slot, and what they need beside it.

    need: int64 [M]. weights: int64 [M], adding up to about ``ONE``. beside: int64 [M, S], what they need of the other slots.
    step: int64 [Q], different amounts that one device has to give. count: int64 [Q], how many devices have to. kind: [M], which of Q.
    """

    need: Ints
    weights: Ints
    beside: Ints
    step: Ints
    count: Ints
    kind: Ints


@dataclass(frozen=True, slots=True)
class Sums:
    """What the devices of some agents are good for. usable, low, pieces: int64 [R, Q]. low: what is free of those that are not usable."""

    usable: Ints
    low: Ints
    pieces: Ints

    def of(self, rows: Ints) -> Sums:
        """Return the sums of some rows."""
        return Sums(self.usable[rows], self.low[rows], self.pieces[rows])

    def swapped(self, old: Sums, new: Sums) -> Sums:
        """Return the sums with one device in the place of another."""
        return Sums(self.usable - old.usable + new.usable, self.low - old.low + new.low, self.pieces - old.pieces + new.pieces)


def accelerators(view: PlacementView) -> Iterator[int]:
    """Yield the slots that are neither processors nor memory."""
    for index, name in enumerate(view.slots):
        if index in view.devices or not (name in ("cpu", "mem") or name.endswith(".mem")):
            yield index


def typical(view: PlacementView, slot: int, most: int) -> Typical:
    """Return what the *most* frequent typical containers ask of *slot*; where nobody is known to ask for it, some plain amounts."""
    if view.mix is not None and view.weights is not None and (asked := np.flatnonzero(view.mix[:, slot] > 0)).size:
        asked = asked[np.argsort(-view.weights[asked], kind="stable")[:most]]
        rows, weights = view.mix[asked], view.weights[asked]
    else:
        rows = np.zeros((len(PLAIN), len(view.slots)), dtype=np.int64)
        rows[:, slot] = [amount for amount, _ in PLAIN]
        weights = np.array([weight for _, weight in PLAIN])
    need, beside = rows[:, slot].copy(), rows.copy()
    beside[:, slot] = 0
    sum_of = float(weights.sum())
    parts = np.rint(weights / sum_of * ONE) if 0 < sum_of < np.inf else np.full(len(need), ONE // len(need))
    amounts, kind = np.unique(need, return_inverse=True)
    single = slot in view.devices  # else nothing is known of single devices, and all of them are a pool
    step = np.minimum(amounts, WHOLE) if single else amounts
    return Typical(need, parts.astype(np.int64), beside, step, -(-amounts // WHOLE) if single else np.ones_like(amounts), kind)


def fitting(free: Ints, of: Typical) -> Ints:
    """Return how many of each typical container fit beside the accelerator, int64 [R, M]."""
    fit = np.full((len(free), len(of.need)), MANY, dtype=np.int64)
    for slot in np.flatnonzero(of.beside.any(axis=0)):
        asked = of.beside[:, slot]
        each = (free[:, slot, None] / np.maximum(asked, 1)).astype(np.int64)  # exact: both are integers below 2^53
        np.minimum(fit, np.where(asked > 0, each, MANY), out=fit)
    return fit


def good_for(values: Ints, of: Typical) -> Sums:
    """Return what single devices are good for. values: int64 [...], what is free of each; the sums have one more axis, of Q."""
    usable = values[..., None] >= of.step
    return Sums(usable.astype(np.int64), np.where(usable, 0, values[..., None]), (values[..., None] / of.step).astype(np.int64))


def summed(devices: Ints, of: Typical) -> Sums:
    """Return what all devices of each agent are good for. devices: int64 [R, D]."""
    each = good_for(devices, of)
    return Sums(each.usable.sum(axis=1), each.low.sum(axis=1), each.pieces.sum(axis=1))


def fragments(sums: Sums, total: Ints, fit: Ints, of: Typical) -> Ints:
    """Return what typical containers leave unused of *total*, int64 [R], in thousandths of a device times ``ONE``.

    It is the mean over them, weighted, of two amounts. First, what the next of its kind could not use: everything where there is no
    room for it, else the devices of which less is free than it asks for. Second, what is over when as many of its kind came as fit.
    """
    enough = (sums.usable >= of.count)[:, of.kind] & (fit > 0)
    following = np.where(enough, sums.low[:, of.kind], total[:, None])
    pieces = (sums.pieces // of.count)[:, of.kind]
    ending = total[:, None] - np.minimum(pieces, fit) * of.need
    left: Ints = (following + ending) @ of.weights
    return left
