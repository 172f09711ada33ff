"""What every detector takes and gives, so that the task knows none of them.

A detector is called as `forward(image, targets=None, proposals=None) -> DetectorOutput`:

    image      float32 [batch, channels, height, width], normalised
    targets    needed while it trains; in evaluation they make it give its losses beside its detections
    proposals  float32 [batch, P, 4], for detectors that find no regions themselves; rows of zeros are padding

Boxes are (x1, y1, x2, y2) in pixels of the network's input, x2 and y2 exclusive. What a picture has fewer of than
another is padded: the label -1 marks padding. Non-maximum suppression and thresholds are part of a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

PADDING = -1  # the label of a row that is none


class Targets(NamedTuple):
    """The objects of each picture."""

    boxes: Tensor  # float32 [batch, M, 4]
    labels: Tensor  # int64 [batch, M], from 0; -1 is padding
    ignore: Tensor  # bool [batch, M]: neither to be found nor to be called a mistake (difficult, or a crowd)

    @property
    def wanted(self) -> Tensor:
        """bool [batch, M]: the objects that are to be found."""
        return (self.labels != PADDING) & ~self.ignore

    @property
    def ignored(self) -> Tensor:
        """bool [batch, M]: the objects that count for nothing."""
        return (self.labels != PADDING) & self.ignore


class Detections(NamedTuple):
    """What was found in each picture, the best first; N is the detector's `max_detections`."""

    boxes: Tensor  # float32 [batch, N, 4]
    scores: Tensor  # float32 [batch, N], 0 in padding
    labels: Tensor  # int64 [batch, N]; -1 is padding


class DetectorOutput(NamedTuple):
    """Losses are means over the batch's pictures, scalars by name; there are some where targets were given."""

    losses: dict[str, Tensor] | None
    detections: Detections | None  # in evaluation


class Threshold(NamedTuple):
    """What becomes of a detector's candidates."""

    score: float = 0.05  # candidates below are dropped
    overlap: float = 0.5  # of two boxes of a class that overlap more (IoU), the better stays
    candidates: int | None = None  # the best of a picture go into the suppression; None: four a detection, at least 400
    detections: int = 100  # and so many come out


def select(boxes: Tensor, scores: Tensor, threshold: Threshold, size: tuple[int, int]) -> Detections:
    """The detections among each picture's candidates, suppressed class by class.

    Args:
        boxes: [batch, A, 4], one box for all classes of a candidate, or [batch, A, classes, 4].
        scores: [batch, A, classes] from 0 to 1, without a class for the background.
        size: (height, width) that boxes are clipped to.
    """
    classes = scores.shape[2]
    chosen = []
    for all_boxes, all_scores in zip(boxes.float(), scores.float(), strict=True):
        flat = all_scores.flatten()
        best, order = flat.topk(min(threshold.candidates or max(400, 4 * threshold.detections), len(flat)))
        order = order[best > threshold.score]
        candidate, label = order // classes, order % classes
        box = all_boxes[candidate, label] if all_boxes.ndim == 3 else all_boxes[candidate]
        chosen.append(suppress(box, flat[order], label, threshold, size))
    return padded(chosen, threshold.detections)


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: Threshold, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes, scores, labels) of one picture that are left, the best first: clipped to SIZE, none empty."""
    boxes = clip_boxes_to_image(boxes, size)
    solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
    kept = batched_nms(boxes, scores, labels, threshold.overlap)[: threshold.detections]
    return boxes[kept], scores[kept], labels[kept]


def padded(found: Sequence[tuple[Tensor, Tensor, Tensor]], count: int) -> Detections:
    """(boxes [n, 4], scores [n], labels [n]) of each picture as rows of COUNT."""
    first = found[0][0]
    boxes = first.new_zeros((len(found), count, 4))
    scores = first.new_zeros((len(found), count))
    labels = torch.full((len(found), count), PADDING, dtype=torch.int64, device=first.device)
    for row, (some, their_scores, their_labels) in enumerate(found):
        boxes[row, : len(some)] = some
        scores[row, : len(some)] = their_scores
        labels[row, : len(some)] = their_labels
    return Detections(boxes, scores, labels)
