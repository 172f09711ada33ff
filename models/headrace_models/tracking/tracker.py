"""What trackers have in common: they are given each frame's boxes in turn and tell which of them are whose.

A tracker sees one sequence, from its first frame on. Classes are tracked apart, under numbers that no two tracks share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace_models.tracking.overlap import Floats

Whole = npt.NDArray[np.int64]


class Tracked(NamedTuple):
    """The boxes of one frame that belong to a track."""

    boxes: Floats  # [n, 4], x1, y1, x2, y2 in pixels
    scores: Floats  # [n]: the detector's, of the box that was matched
    labels: Whole  # [n]
    tracks: Whole  # [n]: from 1 on, never used again in the sequence


class Tracker(ABC):
    """Follows the objects of one sequence."""

    @abstractmethod
    def update(self, boxes: Floats, scores: Floats, labels: Whole) -> Tracked:
        """The next frame: BOXES float64 [n, 4] (x1, y1, x2, y2 in pixels), SCORES [n] in 0..1, LABELS [n].

        Frames without a box count: call it with empty arrays.
        """


def usable(boxes: Floats) -> npt.NDArray[np.bool_]:
    """Which of BOXES [n, 4] have a positive, finite size: others cannot be followed and are left out."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def together(parts: list[tuple[Floats, float, int, int]]) -> Tracked:
    """(box, score, label, track) of each box as arrays, by track."""
    parts = sorted(parts, key=lambda part: part[3])
    return Tracked(
        np.array([part[0] for part in parts], np.float64).reshape(-1, 4),
        np.array([part[1] for part in parts], np.float64),
        np.array([part[2] for part in parts], np.int64),
        np.array([part[3] for part in parts], np.int64),
    )
