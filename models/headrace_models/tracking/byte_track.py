"""ByteTrack: associating every detection box (Zhang et al. 2022, algorithm 1).

Detections above `high` are matched to all tracks first, by IoU with the predicted boxes; what is left of the tracks
that were seen in the frame before is then matched to the detections between `low` and `high`, which hold occluded
objects and little noise among what already moves. Unmatched high detections begin tracks, which are told once a second
frame has confirmed them (a sequence's first frame at once); a lost track is kept for `buffer` frames.
"""

from __future__ import annotations

import numpy as np

from headrace_models.tracking.overlap import FORBIDDEN, Floats, Pairs, assign, iou, unpaired
from headrace_models.tracking.tracker import Track, Tracked, Tracker, Whole, usable


class _Track(Track):
    confirmed = False  # by a second frame, or in the sequence's first

    def update(self, box: Floats, score: float) -> None:
        super().update(box, score)
        self.confirmed = True


class ByteTrack(Tracker):
    """See the module.

    Args:
        high: scores from here on are matched first and begin tracks (the paper's tau, 0.6).
        low: scores below are not looked at (0.1).
        iou_threshold: least overlap of a first match (0.2, as published).
        low_iou_threshold: least overlap of a second match (0.5).
        buffer: frames that a lost track is kept (30).
    """

    def __init__(
        self,
        high: float = 0.6,
        low: float = 0.1,
        iou_threshold: float = 0.2,
        low_iou_threshold: float = 0.5,
        buffer: int = 30,
    ) -> None:
        super().__init__()
        self._high, self._low, self._buffer = high, low, buffer
        self._iou_threshold, self._low_iou_threshold = iou_threshold, low_iou_threshold
        self._tracks: list[_Track] = []
        self._frames = 0

    def update(self, boxes: Floats, scores: Floats, labels: Whole) -> Tracked:
        """See `Tracker.update`."""
        self._frames += 1
        keep = usable(boxes) & (scores >= self._low)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        self._predict()
        strong, weak = np.flatnonzero(scores >= self._high), np.flatnonzero(scores < self._high)
        everyone = list(range(len(self._tracks)))
        first = self._matched(everyone, strong, boxes, labels, self._iou_threshold)
        left = [place for place in everyone if place not in {place for _, place in first}]
        seen = [place for place in left if self._tracks[place].missed == 1 and self._tracks[place].confirmed]
        second = self._matched(seen, weak, boxes, labels, self._low_iou_threshold)
        for detection, place in (*first, *second):
            self._tracks[place].update(boxes[detection], float(scores[detection]))
        self._tracks = [
            track for track in self._tracks if track.missed == 0 or (track.confirmed and track.missed <= self._buffer)
        ]
        for detection in unpaired(len(boxes), [detection for detection, _ in first]):
            if scores[detection] >= self._high:
                begun = _Track(boxes[detection], float(scores[detection]), int(labels[detection]))
                begun.confirmed = self._frames == 1
                self._tracks.append(begun)
        return self.told([track for track in self._tracks if track.missed == 0 and track.confirmed])

    def _predict(self) -> None:
        self._tracks = [track for track in self._tracks if np.isfinite(track.predict()).all()]

    def _matched(self, places: list[int], detections: np.ndarray, boxes: Floats, labels: Whole, least: float) -> Pairs:
        """(detection, place in the list of tracks) of those that belong together."""
        predicted = np.array([self._tracks[place].motion.box for place in places], np.float64).reshape(-1, 4)
        overlap = iou(boxes[detections], predicted)
        same = labels[detections][:, None] == np.array([self._tracks[p].label for p in places], np.int64)[None, :]
        pairs = assign(np.where(same & (overlap >= least), 1.0 - overlap, FORBIDDEN))
        return [(int(detections[row]), places[column]) for row, column in pairs]
