"""A mixture of Gaussians for each class (Hastie & Tibshirani 1996), learned by expectation and maximisation.

What any model that learns from statistics has: `accumulate` counts a batch under the model as it is, `maximize` sets
the model from what all batches of all workers counted, and `forward` answers. All that is learned lies in buffers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from headrace_models.layers.counting import Counting, Statistics


class Mixtures(Counting):
    """Input `[batch, ...]`, flattened; output `[batch, num_classes]`: log p(x, class).

    Args:
        components: Gaussians of each class, with a variance for each input.
        floor: the smallest variance; without one, a component on a single sample would have none.
        tolerance: training ends once the mean loss falls by less in an epoch.
    """

    def __init__(
        self, num_classes: int, in_features: int, components: int = 3, floor: float = 0.05, tolerance: float = 1e-3
    ) -> None:
        super().__init__()
        self.floor, self.tolerance = floor, tolerance
        # Every worker draws the same: Headrace seeds them alike before the model is built.
        self.register_buffer("mean", 0.5 * torch.randn(num_classes, components, in_features))
        self.register_buffer("variance", torch.ones(num_classes, components, in_features))
        self.register_buffer("share", torch.full((num_classes, components), 1 / (num_classes * components)))
        self.register_buffer("losses", torch.full((2,), math.inf, dtype=torch.float64))  # the last epoch's, this one's

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, class, component), `[batch, num_classes, components]`."""
        away = x.flatten(1)[:, None, None, :] - self.mean
        density = -0.5 * (away.square() / self.variance + self.variance.log() + math.log(2 * math.pi)).sum(dim=-1)
        return density + self.share.log()

    def accumulate(self, inputs: tuple[Tensor, ...], batch: Any) -> Statistics:
        """How much of the batch each component of the true class explains, with first and second moments."""
        x = inputs[0].flatten(1)
        joint = self.log_joint(x)
        own = torch.nn.functional.one_hot(batch["label"], joint.shape[1]).bool()[:, :, None]
        joint = joint.masked_fill(~own, -math.inf)
        evidence = joint.logsumexp(dim=(1, 2))
        resp = (joint - evidence[:, None, None]).exp()
        return Statistics(
            sums={
                "count": resp.sum(dim=0),
                "first": torch.einsum("bck,bd->ckd", resp, x),
                "second": torch.einsum("bck,bd->ckd", resp, x.square()),
            },
            loss=-evidence.sum(),
        )

    def maximize(self, statistics: Statistics) -> None:
        """The means, variances and shares that explain these counts best."""
        count, first, second = (statistics.sums[name] for name in ("count", "first", "second"))
        size = count.clamp(min=1e-8)[:, :, None]  # a component that explains nothing is divided by something
        mean = first / size
        self.mean = mean.float()
        self.variance = (second / size - mean.square()).clamp(min=self.floor).float()
        self.share = (count.clamp(min=1e-8) / count.sum()).float()
        assert statistics.loss is not None
        self.losses = torch.stack([self.losses[1], statistics.loss / count.sum()])

    @property
    def settled(self) -> bool:
        """Whether the loss has all but stopped to fall."""
        before, now = self.losses.tolist()
        return bool(before - now < self.tolerance) if math.isfinite(before) else False

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.log_joint(x).logsumexp(dim=2)
