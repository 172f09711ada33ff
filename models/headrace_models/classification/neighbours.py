"""Nearest neighbours on features made by hand: what is learned is the training samples themselves.

The quickest model to train, and the slowest to answer: each answer compares the picture with every sample that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headrace.base.errors import InvalidInput
from headrace_models.classification.features import LowLevelFeatures
from headrace_models.layers.counting import Counting, Statistics
from headrace_models.tasks.base import Batch

SMALLEST_VARIANCE = 1e-4  # added before the root: a feature that never varies is left at 0 and not blown up
SPARE = 8  # candidates beyond k whose distance is worked out exactly
ENTRIES = 1 << 24  # of the table of distances, and of the candidates' features, at a time: 64 MiB
COPIES = 5  # of all features in float32: what `maximize` takes while it puts them in order, in float64


class NearestNeighbours(Counting):
    """k-nearest neighbours (Cover & Hart 1967) on low-level features, each scaled to mean 0 and variance 1.

    Input `[batch, in_channels, height, width]`, output `[batch, num_classes]`: the logarithms of the classes' shares of
    the votes, so that their softmax is these shares again. The votes of the k nearest sum to k; SMOOTHING more are
    spread evenly over the classes (Laplace), since a class without a vote would have an infinite loss. Differs from the
    paper: more than one neighbour, as section 1 mentions, and votes that may be weighted (Dudani 1976: by distance).

    One epoch is enough. Its statistics are sums for mean and variance, and the features of every sample, which are put
    into an order of their own: what is learned does not depend on the number of workers. To expect: digits with HOG
    accuracy .98 (features-knn.yaml of examples/zoo).

    Args:
        features, cell: as in `FeatureClassifier`.
        k: how many neighbours vote.
        distance: `euclidean`, or `cosine` (1 - cosine of the angle between scaled features).
        weights: of the votes: `uniform`, or `distance` (1 / distance; where some are at distance 0, they alone vote).
        smoothing: votes that are spread over all classes.
        most_samples: more training samples are refused before the first is read.
    """

    sized_by_data: ClassVar[tuple[str, ...]] = ("bank", "norm", "label")
    mean: Tensor
    std: Tensor
    bank: Tensor
    norm: Tensor
    label: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: Sequence[int],
        features: Sequence[str] = ("hog",),
        cell: int | None = None,
        k: int = 5,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        weights: Literal["uniform", "distance"] = "uniform",
        smoothing: float = 1.0,
        most_samples: int = 50_000,
    ) -> None:
        super().__init__()
        self.num_classes, self.k, self.smoothing, self.most_samples = num_classes, k, smoothing, most_samples
        self.distance, self.weights = distance, weights
        self.features = LowLevelFeatures(in_channels, image_size, features, cell)
        size = self.features.size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("bank", torch.zeros(0, size))  # [samples, features], scaled
        self.register_buffer("norm", torch.zeros(0))  # [samples], squared; else each answer would work them out anew
        self.register_buffer("label", torch.zeros(0, dtype=torch.int64))  # [samples]

    # learning

    def begin(self, samples: int) -> None:
        """Look whether there is room for all.

        Raises:
            InvalidInput: SAMPLES are more than `most_samples` or than this worker's memory holds, or fewer than `k`.
        """
        if samples > self.most_samples:
            megabytes = samples * self.features.size * self.bank.element_size() / 1e6
            raise InvalidInput(
                f"nearest-neighbours would keep {samples:,} training samples ({megabytes:,.0f} MB: "
                f"{self.features.size:,} features each), and model.args.most_samples is {self.most_samples:,}",
                action="raise model.args.most_samples if each replica has the memory, lower data.split.train, or take "
                "low-level-features, whose size does not grow with the data",
            )
        if samples < self.k:
            raise InvalidInput(
                f"model.args.k is {self.k}, and there are {samples} training samples",
                action=f"lower model.args.k to {samples} or less",
            )
        peak, free = COPIES * samples * self.features.size * self.bank.element_size(), free_memory()
        if peak > free:
            raise InvalidInput(
                f"nearest-neighbours takes {peak / 1e9:,.1f} GB on each worker while it learns from {samples:,} "
                f"samples of {self.features.size:,} features; this one has {free / 1e9:,.1f} GB",
                action="lower task.image_size or data.split.train, raise model.args.cell, or give each worker more "
                "memory",
            )

    def accumulate(self, inputs: tuple[Tensor, ...], batch: Batch) -> Statistics:
        """Sums of the features and of their squares, and the features with their labels."""
        vector = self.features(*inputs)
        wide = vector.double()
        return Statistics(
            sums={"count": torch.tensor(len(vector)), "sum": wide.sum(dim=0), "squares": wide.square().sum(dim=0)},
            kept={"features": vector, "label": batch["label"]},
        )

    def maximize(self, statistics: Statistics) -> None:
        """Keep the samples, scaled by the mean and the deviation of all."""
        vector, label = statistics.kept["features"], statistics.kept["label"]
        count = statistics.sums["count"]
        mean = statistics.sums["sum"] / count
        variance = (statistics.sums["squares"] / count - mean.square()).clamp(min=0)
        self.mean, self.std = mean.float(), (variance + SMALLEST_VARIANCE).sqrt().float()
        order = own_order(vector, label)
        self.bank, self.label = self._scaled(vector[order]), label[order]
        self.norm = self.bank.square().sum(dim=1)

    @property
    def settled(self) -> bool:
        """After one epoch."""
        return len(self.bank) > 0

    # answering

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        query = self._scaled(self.features(x))
        at_once = max(1, ENTRIES // max(1, len(self.bank), (self.k + SPARE) * query.shape[1]))
        return torch.cat([self._shares(part).log() for part in torch.split(query, at_once)])

    def _scaled(self, vector: Tensor) -> Tensor:
        scaled = (vector - self.mean) / self.std
        return functional.normalize(scaled, dim=1) if self.distance == "cosine" else scaled

    def nearest(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """(distances, places in the bank) of the k nearest to each scaled QUERY `[batch, features]`, `[batch, k]` each.

        Equally near ones come in the bank's order. Distances of all are by a product of matrices, which is fast and
        rounds; those of the first k and some to spare are then worked out exactly.
        """
        candidates = min(self.k + SPARE, len(self.bank))
        rough = torch.addmm(self.norm, query, self.bank.T, alpha=-2)  # |b|² - 2 q b; |q|² is the same for all
        place = rough.topk(candidates, dim=1, largest=False).indices.sort(dim=1).values
        exact = (query[:, None] - self.bank[place]).square().sum(dim=2)
        exact = exact / 2 if self.distance == "cosine" else exact.sqrt()  # of unit vectors |a - b|² = 2 (1 - cos)
        exact, order = exact.sort(dim=1, stable=True)
        return exact[:, : self.k], place.gather(1, order[:, : self.k])

    def _shares(self, query: Tensor) -> Tensor:
        distance, place = self.nearest(query)
        votes = torch.ones_like(distance)
        if self.weights == "distance":
            same = distance == 0
            votes = torch.where(same.any(dim=1, keepdim=True), same.float(), 1 / distance)
            votes = votes * (self.k / votes.sum(dim=1, keepdim=True))
        spread = torch.full((len(query), self.num_classes), self.smoothing / self.num_classes, device=query.device)
        return spread.scatter_add(1, self.label[place], votes) / (self.k + self.smoothing)


def own_order(vector: Tensor, label: Tensor) -> Tensor:
    """The places of the rows of VECTOR and LABEL in an order that depends on nothing but what stands in them."""
    rows = torch.cat([vector.double(), label[:, None].double()], dim=1).cpu().numpy()
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return torch.from_numpy(np.argsort(keys, kind="stable")).to(vector.device)


def free_memory() -> int:
    """Bytes that this process can still have: of the machine, and of its container where that has a limit."""
    import psutil  # not where models are served

    free = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no container, or "max"
        return int(free)
    return int(min(free, max(0, limit - psutil.Process().memory_info().rss)))
