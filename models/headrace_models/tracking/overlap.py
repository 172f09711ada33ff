"""How much boxes overlap, and which pairs of them belong together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float64]
Pairs = list[tuple[int, int]]

FORBIDDEN = 1e9  # the cost of a pair that must not be


def iou(first: Floats, second: Floats, crowd: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Intersection over union, float64 `[n, m]`, of boxes `[n, 4]` and `[m, 4]` (x1, y1, x2, y2); 0 for no area.

    CROWD `[m]` marks boxes of the second that stand for many objects: with these it is the first box's share in them.
    """
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    other = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(other - corner, 0, None), axis=2)
    area = _area(first)[:, None]
    whole = area + _area(second)[None, :] - shared
    if crowd is not None:
        whole = np.where(crowd[None], area, whole)
    found: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return found


def _area(boxes: Floats) -> Floats:
    area: Floats = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    return area


def assign(cost: Floats) -> Pairs:
    """The (row, column) pairs of least total COST `[n, m]` (Kuhn 1955); no pair of `FORBIDDEN` cost or more."""
    if not cost.size:
        return []
    rows, columns = linear_sum_assignment(np.minimum(cost, FORBIDDEN))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < FORBIDDEN]


def unpaired(count: int, taken: list[int]) -> list[int]:
    """The numbers below COUNT that are not TAKEN, in order."""
    held = set(taken)
    return [number for number in range(count) if number not in held]
