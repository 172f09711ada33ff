"""Metrics that workers accumulate apart and then add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from headrace_models.tasks.base import Batch, Metrics

BINS = 200  # of the scores, for precision-recall curves: a resolution of half a percent
SMALLEST = 1e-15  # probabilities are clipped here, so that one confident mistake costs 34.5 and not infinity
KEPT = 1000  # points that each worker keeps for the picture of a regression


class ClassMeasures(NamedTuple):
    """Of each class, `[classes]`; a ratio of nothing is 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray  # samples of the class
    predicted: np.ndarray  # samples that were taken for it


class ClassificationMetrics(Metrics):
    """Metrics of scores `[batch, classes]` against `batch["label"]` `[batch]`.

    Macro averages go over the classes that occur in labels or predictions, a ratio of nothing being 0 (scikit-learn's
    convention). log_loss is the mean of -log of the true class's probability.

    Args:
        top: with 5, `top5_accuracy` is measured as well: how often the true class is among the 5 likeliest
            (Russakovsky et al. 2015, section 4.1). It is 1 where there are no more classes.
    """

    def __init__(self, classes: int, top: int | None = None) -> None:
        self.top = top
        self.top_hits = 0
        self.confusion = np.zeros((classes, classes), dtype=np.int64)  # [true, predicted]
        self.scores = np.zeros((2, classes, BINS), dtype=np.int64)  # [not this class / this class, class, bin]
        self.log_loss = 0.0

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        classes = len(self.confusion)
        label = batch["label"].cpu().numpy()
        log_p = torch.log_softmax(outputs.detach().double(), dim=1).cpu().numpy()
        log_p = np.nan_to_num(log_p, nan=np.log(SMALLEST)).clip(min=np.log(SMALLEST))
        predicted = log_p.argmax(axis=1)
        self.confusion += np.bincount(label * classes + predicted, minlength=classes**2).reshape(classes, classes)
        self.log_loss -= float(log_p[np.arange(len(label)), label].sum())
        if self.top is not None:
            own, classes_before = log_p[np.arange(len(label)), label][:, None], np.arange(classes) < label[:, None]
            likelier = ((log_p > own) | ((log_p == own) & classes_before)).sum(axis=1)  # of equals the first, as argmax
            self.top_hits += int((likelier < self.top).sum())
        bins = np.minimum((np.exp(log_p) * BINS).astype(np.int64), BINS - 1)
        hit = np.zeros((len(label), classes), dtype=np.int64)
        hit[np.arange(len(label)), label] = 1
        places = (hit * classes + np.arange(classes)) * BINS + bins
        self.scores += np.bincount(places.ravel(), minlength=self.scores.size).reshape(self.scores.shape)

    def state(self) -> Any:
        """See `Metrics.state`."""
        return self.confusion, self.scores, self.log_loss, self.top_hits

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        self.confusion = np.sum([state[0] for state in states], axis=0)
        self.scores = np.sum([state[1] for state in states], axis=0)
        self.log_loss = float(sum(state[2] for state in states))
        self.top_hits = sum(state[3] for state in states)

    def compute(self) -> dict[str, float]:
        """See `Metrics.compute`; nothing at all where there was no sample."""
        count = int(self.confusion.sum())
        if count == 0:
            return {}
        each = self.of_classes()
        seen = (each.support + each.predicted) > 0
        found = {
            "accuracy": float(np.trace(self.confusion) / count),
            "macro_f1": float(each.f1[seen].mean()),
            "macro_precision": float(each.precision[seen].mean()),
            "macro_recall": float(each.recall[seen].mean()),
            "log_loss": self.log_loss / count,
        }
        return found if self.top is None else {**found, f"top{self.top}_accuracy": self.top_hits / count}

    def of_classes(self) -> ClassMeasures:
        """What `compute` averages, of each class."""
        hits = np.diag(self.confusion).astype(np.float64)
        support, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return ClassMeasures(
            hits / np.maximum(predicted, 1),
            hits / np.maximum(support, 1),
            2 * hits / np.maximum(support + predicted, 1),
            support,
            predicted,
        )

    def curve(self, chosen: slice) -> tuple[np.ndarray, np.ndarray]:
        """(recall, precision) as the threshold falls, all of the CHOSEN classes taken together."""
        others, own = self.scores[:, chosen].sum(axis=1)[:, ::-1].cumsum(axis=1)
        told = np.maximum(others + own, 1)
        recall, precision = own / max(1, own[-1]), np.where(others + own > 0, own / told, 1.0)
        return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


class RegressionMetrics(Metrics):
    """Metrics of standardised predictions `[batch]` or `[batch, 1]` against `batch["target"]`, in the target's unit.

    Args:
        mean, scale: of the target: value = standardised * scale + mean.
    """

    def __init__(self, mean: float, scale: float) -> None:
        self.mean, self.scale = mean, scale
        self.sums = np.zeros(5)  # samples, sum and squares of the target, squared and absolute errors; standardised
        self.points: list[tuple[float, float]] = []  # (true, predicted)

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        true = batch["target"].detach().double().cpu().numpy().ravel()
        predicted = outputs.detach().double().cpu().numpy().ravel()
        predicted = np.nan_to_num(predicted, nan=1e9, posinf=1e9, neginf=-1e9)
        error = predicted - true
        self.sums += [len(true), true.sum(), (true**2).sum(), (error**2).sum(), np.abs(error).sum()]
        room = KEPT - len(self.points)
        pairs = np.stack([true, predicted], axis=1)[: max(0, room)] * self.scale + self.mean
        self.points += [(float(t), float(p)) for t, p in pairs]

    def state(self) -> Any:
        """See `Metrics.state`."""
        return self.sums, self.points

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        self.sums = np.sum([state[0] for state in states], axis=0)
        self.points = [point for state in states for point in state[1]]

    def compute(self) -> dict[str, float]:
        """See `Metrics.compute`; nothing at all where there was no sample.

        r2 of a constant target is 1 for a perfect prediction and 0 for any other.
        """
        count, total, squares, squared_errors, absolute_errors = self.sums.tolist()
        if not count:
            return {}
        spread = squares - total**2 / count
        if spread > 1e-12 * max(1.0, squares):
            r2 = 1.0 - squared_errors / spread
        else:
            r2 = 1.0 if squared_errors == 0 else 0.0
        return {
            "rmse": float(np.sqrt(squared_errors / count) * self.scale),
            "mae": absolute_errors / count * self.scale,
            "r2": r2,
        }
