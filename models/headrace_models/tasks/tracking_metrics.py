"""How well a detector and a tracker together follow the objects of videos, mergeable over workers.

Workers hold frames of all videos; what each found is gathered, and the tracker goes through every video in its order
when the measures are asked for. Classes are judged apart and summed. Objects that do not count (difficult) and what
is matched to them are taken out of the frame first, as MOTChallenge does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace_models.detection.outputs import PADDING, DetectorOutput
from headrace_models.tasks.base import Batch, Metrics
from headrace_models.tasks.detection_metrics import DetectionMetrics
from headrace_models.tracking.measures import LEAST_OVERLAP, Counts, Frame, judge_sequence
from headrace_models.tracking.overlap import FORBIDDEN, assign, iou
from headrace_models.tracking.tracker import Tracked, Tracker

LONGEST_GAP = 1000  # missing frames in a row that are gone through: by then every track has ended
Place = tuple[int, int]  # (video, frame)


class Seen(NamedTuple):
    """One frame: what was found, and what there is. Boxes in pixels of the network's input."""

    boxes: np.ndarray  # float32 [n, 4]
    scores: np.ndarray  # float32 [n]
    labels: np.ndarray  # int64 [n]
    true_boxes: np.ndarray  # float32 [m, 4]
    true_labels: np.ndarray  # int64 [m]
    tracks: np.ndarray  # int64 [m]
    ignore: np.ndarray  # bool [m]


class TrackingMetrics(Metrics):
    """Batches have `video`, `frame` and `tracks` beside what `DetectionMetrics` needs.

    Args:
        classes: how many there are.
        tracker: makes one, for each video anew.
    """

    def __init__(self, classes: int, tracker: Callable[[], Tracker]) -> None:
        self.detection = DetectionMetrics(classes)
        self._classes, self._tracker = classes, tracker
        self._frames: dict[Place, Seen] = {}

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        self.detection.update(outputs, batch)
        assert isinstance(outputs, DetectorOutput)
        assert outputs.detections is not None
        found = [part.detach().cpu().numpy() for part in outputs.detections]
        true = [batch[name].cpu().numpy() for name in ("boxes", "labels", "tracks", "ignore")]
        for row, place in enumerate(zip(batch["video"].tolist(), batch["frame"].tolist(), strict=True)):
            real, there = found[2][row] != PADDING, true[1][row] != PADDING
            self._frames[place] = Seen(*(part[row][real] for part in found), *(part[row][there] for part in true))

    def state(self) -> Any:
        """See `Metrics.state`."""
        return {"detection": self.detection.state(), "frames": {k: tuple(v) for k, v in self._frames.items()}}

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        self.detection.merge([state["detection"] for state in states])
        self._frames = {place: Seen(*seen) for state in states for place, seen in state["frames"].items()}

    def compute(self) -> dict[str, float]:
        """The measures of tracking, and the detector's."""
        total = Counts()
        for frames in self.tracked().values():
            for label in range(self._classes):
                total += judge_sequence(_of_class(seen, told, label) for seen, told in frames)
        return {**total.measures(), **self.detection.compute()}

    def tracked(self) -> dict[int, list[tuple[Seen, Tracked]]]:
        """The frames of each video in their order, with what its tracker told."""
        return {video: list(self._followed(frames)) for video, frames in self._videos().items()}

    def _videos(self) -> Mapping[int, list[tuple[int, Seen]]]:
        videos: dict[int, list[tuple[int, Seen]]] = {}
        for (video, frame), seen in sorted(self._frames.items(), key=lambda item: item[0]):
            videos.setdefault(video, []).append((frame, seen))
        return videos

    def _followed(self, frames: Sequence[tuple[int, Seen]]) -> Iterator[tuple[Seen, Tracked]]:
        tracker, last = self._tracker(), None
        for frame, seen in frames:
            for _ in range(min(frame - last - 1, LONGEST_GAP) if last is not None else 0):
                tracker.update(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))  # a frame that was left out
            last = frame
            yield seen, tracker.update(seen.boxes.astype(float), seen.scores.astype(float), seen.labels)


def _of_class(seen: Seen, told: Tracked, label: int) -> Frame:
    """The objects and tracks of one class in a frame, without those that do not count."""
    there, mine = seen.true_labels == label, told.labels == label
    true, ignore, boxes = seen.true_boxes[there].astype(float), seen.ignore[there], told.boxes[mine]
    kept = np.ones(len(boxes), bool)
    if ignore.any():
        overlap = iou(true, boxes)
        pairs = assign(np.where(overlap >= LEAST_OVERLAP, 1 - overlap, FORBIDDEN))
        kept[[column for row, column in pairs if ignore[row]]] = False
    return Frame(true[~ignore], seen.tracks[there][~ignore], boxes[kept], told.tracks[mine][kept])
