"""What of an accelerator the typical container cannot use: the measure that the selector ``fragmentation`` goes by.

Every number is an integer below 2^53 in a float64, so that sums and products are exact in whatever order they are made, and an agent's
score is the same to the last bit whoever is scored beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WHOLE = 1000  # thousandths of one device
ONE = 1 << 20  # what weights add up to
MANY = float(1 << 20)  # more containers than go on any agent
PLAIN = ((WHOLE // 4, 0.125), (WHOLE // 2, 0.125), (WHOLE, 0.5), (2 * WHOLE, 0.125), (4 * WHOLE, 0.0625), (8 * WHOLE, 0.0625))


@dataclass(frozen=True, slots=True)
class Typical:
    """What typical containers ask of one accelerator slot, and what they need beside it.

    They are in the order of what they ask for. beside: [S, M], what they need of the other slots. weights: [M], adding up to about
    ``ONE``. value: [M], weights times what is asked for. kind: [M], which of Q. first: [Q], the first of each kind.
    step: [Q], different amounts that one device has to give. count: [Q], how many devices have to.
    """

    beside: Floats
    weights: Floats
    value: Floats
    kind: NDArray[np.intp]
    first: NDArray[np.intp]
    step: Floats
    count: Floats


@dataclass(frozen=True, slots=True)
class Sums:
    """What the devices of some agents are good for, each [R, Q].

    usable: how many give what is asked. free: what is free of these. pieces: how often that is given.
    """

    usable: Floats
    free: Floats
    pieces: Floats

    def of(self, rows: NDArray[np.intp]) -> Sums:
        """Return the sums of some rows."""
        return Sums(self.usable[rows], self.free[rows], self.pieces[rows])

    def without(self, other: Sums, times: int = 1) -> Sums:
        """Return the sums without some devices."""
        return Sums(self.usable - times * other.usable, self.free - times * other.free, self.pieces - times * other.pieces)


def accelerators(view: PlacementView) -> Iterator[int]:
    """Yield the slots that are neither processors nor memory."""
    for index, name in enumerate(view.slots):
        if index in view.devices or not (name in ("cpu", "mem") or name.endswith(".mem")):
            yield index


def typical(view: PlacementView, slot: int, most: int) -> Typical:
    """Return what the *most* frequent typical containers ask of *slot*; where nobody is known to ask for it, some plain amounts."""
    if view.mix is not None and view.weights is not None and (asked := np.flatnonzero(view.mix[:, slot] > 0)).size:
        asked = asked[np.argsort(-view.weights[asked], kind="stable")[:most]]
        asked = asked[np.argsort(view.mix[asked, slot], kind="stable")]
        rows, weights = view.mix[asked].astype(np.float64), view.weights[asked]
    else:
        rows = np.zeros((len(PLAIN), len(view.slots)))
        rows[:, slot] = [amount for amount, _ in PLAIN]
        weights = np.array([weight for _, weight in PLAIN])
    need, beside = rows[:, slot].copy(), rows.T.copy()
    beside[slot] = 0
    total = float(weights.sum())
    parts = np.rint(weights / total * ONE) if 0 < total < np.inf else np.full(len(need), float(ONE // len(need)))
    amounts, first, kind = np.unique(need, return_index=True, return_inverse=True)
    single = slot in view.devices  # else nothing is known of single devices, and all of them are a pool
    return Typical(beside, parts, parts * need, kind, first, np.minimum(amounts, WHOLE) if single else amounts,
                   np.ceil(amounts / WHOLE) if single else np.ones_like(amounts))


def fitting(free: NDArray[np.int64], of: Typical) -> Floats:
    """Return how many of each typical container fit beside the accelerator, [R, M]."""
    fit: Floats = np.full((len(free), len(of.kind)), MANY)
    for slot in np.flatnonzero(of.beside.any(axis=1)).tolist():
        asked = of.beside[slot]
        with np.errstate(divide="ignore", invalid="ignore"):
            each = free[:, slot, None] / asked
        if not asked.all():
            each[:, asked == 0] = MANY
        np.minimum(fit, each, out=fit)
    np.floor(fit, out=fit)  # exact: a quotient of integers below 2^53 is never rounded up to the next integer
    return fit


def good_for(values: Floats, of: Typical) -> Sums:
    """Return what single devices are good for. values: what is free of each; the sums have one more axis, of Q."""
    pieces = np.floor(values[..., None] / of.step)
    usable = np.minimum(pieces, 1)
    return Sums(usable, usable * values[..., None], pieces)


def summed(devices: Floats, of: Typical) -> Sums:
    """Return what all devices of each agent are good for. devices: [R, D]."""
    each = good_for(devices, of)
    return Sums(each.usable.sum(axis=1), each.free.sum(axis=1), each.pieces.sum(axis=1))


def fragments(sums: Sums, total: Floats, fit: Floats, of: Typical) -> Floats:
    """Return what typical containers leave unused of *total*, [R], in thousandths of a device times ``ONE``.

    It is the mean over them, weighted, of two amounts. First, what the next of its kind could not use: everything where there is no
    room for it, else the devices of which less is free than it asks for. Second, what is over when as many of its kind came as fit.
    """
    fits_next = np.add.reduceat(np.where(fit > 0, of.weights, 0.0), of.first, axis=1)  # a product of matrices would wake threads
    used_next = np.einsum("rq,rq->r", np.where(sums.usable >= of.count, sums.free, 0.0), fits_next)
    pieces = np.floor(sums.pieces / of.count)[:, of.kind]
    used_in_the_end = np.einsum("rm,m->r", np.minimum(pieces, fit), of.value)
    left: Floats = 2 * of.weights.sum() * total - used_next - used_in_the_end
    return left
