"""How well pixels are told apart, mergeable over workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace_models.layers.losses import IGNORED
from headrace_models.tasks.base import Batch, Metrics


class SegmentationMetrics(Metrics):
    """Of scores `[batch, classes, height, width]` against `batch["mask"]` `[batch, height, width]`.

    `iou` is the mean over the classes that occur in masks or predictions of intersection / union, over all pixels of
    the split (Everingham et al. 2010, section 4.2); `pixel_accuracy` the share of pixels that are right.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), dtype=np.int64)  # [true, predicted]

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        classes = len(self.confusion)
        known = batch["mask"] != IGNORED
        true = batch["mask"][known].cpu().numpy()
        said = outputs.detach().argmax(dim=1)[known].cpu().numpy()
        self.confusion += np.bincount(true * classes + said, minlength=classes**2).reshape(classes, classes)

    def state(self) -> Any:
        """See `Metrics.state`."""
        return self.confusion

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        self.confusion = np.sum(states, axis=0)

    def ious(self) -> np.ndarray:
        """That of each class; NaN for one that is neither there nor predicted."""
        shared = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - shared
        found: np.ndarray = np.divide(shared, union, out=np.full(len(shared), np.nan), where=union > 0)
        return found

    def compute(self) -> dict[str, float]:
        """See `Metrics.compute`; nothing at all where there was no pixel."""
        count = int(self.confusion.sum())
        if not count:
            return {}
        return {
            "iou": float(np.nanmean(self.ious())),
            "pixel_accuracy": float(np.diag(self.confusion).sum() / count),
        }
