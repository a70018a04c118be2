"""Two measures of fairness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def jain(users: Sequence[str], speeds: NDArray[np.float64]) -> float:
    """Return Jain's index of the users' mean speeds, 1/users to 1 (Jain, Chiu and Hawe, 1984): (sum x)^2 / (n * sum x^2).

    speeds: of each job, its duration by its completion, 1 for one that did not wait.
    """
    sums: dict[str, list[float]] = {}
    for user, speed in zip(users, speeds.tolist(), strict=True):
        have = sums.setdefault(user, [0.0, 0.0])
        have[0] += speed
        have[1] += 1
    means = np.array([total / count for total, count in sums.values()])
    squares = float((means**2).sum())
    return float(means.sum()) ** 2 / (len(means) * squares) if squares else 1.0


def deviation(users: Mapping[str, tuple[int, int]], capacity: int) -> float:
    """Return the share of the capacity that some user lacks of its max-min fair share. users: what each has, and wants besides."""
    if not users:
        return 0.0
    fair = max_min([has + wants for has, wants in users.values()], capacity)
    return sum(max(0.0, due - has) for (has, _), due in zip(users.values(), fair, strict=True)) / capacity


def max_min(demands: Sequence[int], capacity: int) -> list[float]:
    """Return the max-min fair shares: nobody gets more than it demands, and what they leave is shared equally by the others."""
    shares, left, count = [0.0] * len(demands), float(capacity), len(demands)
    for i in sorted(range(len(demands)), key=lambda i: demands[i]):
        shares[i] = min(float(demands[i]), left / count)
        left -= shares[i]
        count -= 1
    return shares
