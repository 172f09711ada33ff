"""Average precision of detectors as COCO defines it, mergeable over workers.

For each class and each threshold of overlap (IoU .50, .55, ... .95) the detections of a picture, best score first, are
matched to its objects: each takes the free object of the largest overlap, if that reaches the threshold. Over all
pictures, sorted by score, precision is made falling and read at the recalls 0, .01, ... 1; the mean is the class's
average precision (AP). Classes without a single object count for nothing. See cocodataset.org/#detection-eval; tests
hold this to pycocotools.

What does not count: crowds (COCO) overlap with what lies inside them and take any number of detections, which are then
neither right nor wrong; difficult objects (VOC) likewise, with the plain overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace_models.detection.outputs import PADDING, DetectorOutput
from headrace_models.tasks.base import Batch, Metrics
from headrace_models.tracking.overlap import iou

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100  # detections of a class and picture that are judged
WRONG, RIGHT, IGNORED = 0, 1, 2  # outcomes of a detection at one threshold


class Objects(NamedTuple):
    """The objects of one class in one picture, or all of a picture's."""

    boxes: np.ndarray  # [objects, 4]
    ignore: np.ndarray  # bool [objects]
    crowd: np.ndarray  # bool [objects]


def outcomes(boxes: np.ndarray, objects: Objects, thresholds: np.ndarray = OVERLAPS) -> np.ndarray:
    """WRONG, RIGHT or IGNORED, uint8 `[n, thresholds]`, of detections with BOXES `[n, 4]`, best score first."""
    result = np.full((len(boxes), len(thresholds)), WRONG, dtype=np.uint8)
    if not len(objects.boxes) or not len(boxes):
        return result
    shared = iou(boxes, objects.boxes, objects.crowd)
    taken = np.zeros((len(thresholds), len(objects.boxes)), dtype=bool)
    places = np.arange(len(thresholds))
    for row, overlap in enumerate(shared):
        near = (overlap[None] >= thresholds[:, None] - 1e-10) & ~taken
        for kind, outcome in ((~objects.ignore, RIGHT), (objects.ignore, IGNORED)):
            able = near & kind & (result[row] == WRONG)[:, None]
            best = _last_largest(np.where(able, overlap, -1.0))
            hit = able[places, best]
            result[row, hit] = outcome
            if outcome == RIGHT:
                taken[places[hit], best[hit]] = True
    return result


def _last_largest(values: np.ndarray) -> np.ndarray:
    """The column of the largest of each row's VALUES; of equal ones the last, as COCO's reference has it."""
    columns: np.ndarray = values.shape[1] - 1 - values[:, ::-1].argmax(axis=1)
    return columns


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """The mean over RECALLS of the best precision at that recall or a higher one."""
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(at, len(falling))].mean())


class DetectionMetrics(Metrics):
    """Outputs are `DetectorOutput`s; a batch has `boxes`, `labels`, `ignore`, `crowd`. All in pixels of the input."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.wanted = np.zeros(classes, dtype=np.int64)  # objects that are to be found
        self.pictures = 0
        self._scores: list[list[np.ndarray]] = [[] for _ in range(classes)]
        self._outcomes: list[list[np.ndarray]] = [[] for _ in range(classes)]

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        assert isinstance(outputs, DetectorOutput)
        assert outputs.detections is not None
        found = [part.detach().cpu().numpy() for part in outputs.detections]
        true = [batch[name].cpu().numpy() for name in ("boxes", "labels", "ignore", "crowd")]
        for row in range(len(true[0])):
            self.add(*(part[row] for part in found), *(part[row] for part in true))

    def add(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        true_boxes: np.ndarray,
        true_labels: np.ndarray,
        ignore: np.ndarray,
        crowd: np.ndarray,
    ) -> None:
        """Take in one picture: what was found, and what there is. The label -1 is padding."""
        self.pictures += 1
        for label in np.union1d(labels[labels != PADDING], true_labels[true_labels != PADDING]).tolist():
            mine = np.flatnonzero(labels == label)
            mine = mine[np.argsort(-scores[mine], kind="stable")][:MOST]
            theirs = true_labels == label
            objects = Objects(
                true_boxes[theirs].astype(np.float64), ignore[theirs] | crowd[theirs], crowd[theirs].astype(bool)
            )
            self.wanted[label] += int((~objects.ignore).sum())
            self._scores[label].append(scores[mine].astype(np.float64))
            self._outcomes[label].append(outcomes(boxes[mine].astype(np.float64), objects))

    def state(self) -> Any:
        """See `Metrics.state`."""
        return {
            "wanted": self.wanted,
            "pictures": self.pictures,
            "scores": [self.scores(label) for label in range(self.classes)],
            "outcomes": [self._outcomes_of(label) for label in range(self.classes)],
        }

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        self.wanted = np.sum([state["wanted"] for state in states], axis=0)
        self.pictures = sum(state["pictures"] for state in states)
        self._scores = [[state["scores"][label] for state in states] for label in range(self.classes)]
        self._outcomes = [[state["outcomes"][label] for state in states] for label in range(self.classes)]

    def scores(self, label: int) -> np.ndarray:
        """The scores `[n]` of all detections of a class, in the order of pictures."""
        return np.concatenate([np.zeros(0), *self._scores[label]])

    def _outcomes_of(self, label: int) -> np.ndarray:
        return np.concatenate([np.zeros((0, len(OVERLAPS)), dtype=np.uint8), *self._outcomes[label]])

    def curve(self, label: int, threshold: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(recall, precision, score) of a class as the score falls, at `OVERLAPS[threshold]`."""
        scores, outcome = self.scores(label), self._outcomes_of(label)[:, threshold]
        order = np.argsort(-scores, kind="stable")
        scores, outcome = scores[order], outcome[order]
        right, wrong = np.cumsum(outcome == RIGHT), np.cumsum(outcome == WRONG)
        judged = np.maximum(right + wrong, 1)
        return right / max(1, int(self.wanted[label])), right / judged, scores

    def average_precisions(self) -> np.ndarray:
        """AP of each class at each of OVERLAPS, `[classes, thresholds]`; NaN for classes without objects."""
        result = np.full((self.classes, len(OVERLAPS)), np.nan)
        for label in np.flatnonzero(self.wanted).tolist():
            for threshold in range(len(OVERLAPS)):
                recall, precision, _ = self.curve(label, threshold)
                result[label, threshold] = average_precision(precision, recall)
        return result

    def compute(self) -> dict[str, float]:
        """`map50`, `map` (the mean over all thresholds), `map75`; 0 where there is no object at all."""
        present = self.average_precisions()[self.wanted > 0]
        if not len(present):
            return {"map50": 0.0, "map": 0.0, "map75": 0.0}
        return {
            "map50": float(present[:, 0].mean()),
            "map": float(present.mean()),
            "map75": float(present[:, 5].mean()),
        }
