"""What trackers have in common: they are given each frame's boxes in turn and tell which of them are whose.

A tracker sees one sequence, from its first frame on. Classes are tracked apart, under numbers that no two tracks share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace_models.tracking.motion import BoxMotion
from headrace_models.tracking.overlap import Floats

Whole = npt.NDArray[np.int64]


class Tracked(NamedTuple):
    """The boxes of one frame that belong to a track."""

    boxes: Floats  # [n, 4], x1, y1, x2, y2 in pixels
    scores: Floats  # [n]: the detector's, of the box that was matched
    labels: Whole  # [n]
    tracks: Whole  # [n]: from 1 on, never used again in the sequence


class Track:
    """One object: how it moves, what it is, and when it was seen."""

    def __init__(self, box: Floats, score: float, label: int) -> None:
        self.motion = BoxMotion(box)
        self.score, self.label = score, label
        self.number = 0  # its own once it is told of: numbers have no gaps
        self.missed = 0  # frames since its last detection

    def predict(self) -> Floats:
        """Go on to the next frame; the box expected there."""
        self.missed += 1
        return self.motion.predict()

    def update(self, box: Floats, score: float) -> None:
        """Take in the detection of this frame."""
        self.motion.update(box)
        self.score, self.missed = score, 0


class Tracker(ABC):
    """Follows the objects of one sequence."""

    def __init__(self) -> None:
        self._numbers = count(1)

    @abstractmethod
    def update(self, boxes: Floats, scores: Floats, labels: Whole) -> Tracked:
        """The next frame: BOXES float64 [n, 4] (x1, y1, x2, y2 in pixels), SCORES [n] in 0..1, LABELS [n].

        Frames without a box count: call it with empty arrays. Told are the boxes that the filter believes.
        """

    def told(self, tracks: Sequence[Track]) -> Tracked:
        """TRACKS as they are told, by number; those that are told of for the first time get theirs."""
        for track in tracks:
            track.number = track.number or next(self._numbers)
        tracks = sorted(tracks, key=lambda track: track.number)
        return Tracked(
            np.array([track.motion.box for track in tracks], np.float64).reshape(-1, 4),
            np.array([track.score for track in tracks], np.float64),
            np.array([track.label for track in tracks], np.int64),
            np.array([track.number for track in tracks], np.int64),
        )


def usable(boxes: Floats) -> npt.NDArray[np.bool_]:
    """Which of BOXES [n, 4] have a positive, finite size: others cannot be followed and are left out."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
