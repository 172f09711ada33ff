"""Losses as modules without parameters.

All are means over the batch's samples in float32, whatever autocast does to the outputs. A loss for classes takes
scores `[batch, classes]` and class indices `[batch]`; a loss for values takes predictions and targets of one shape,
`[batch]` or `[batch, values]`, and sums over a sample's values; `Ctc` takes sequences. Class weights multiply
a sample's loss and are not divided out again: with `balanced` their mean over the training samples is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.base.errors import InvalidInput
from headrace_models.catalog.names import listed, nearest

IGNORED = -1  # the class index of a place that does not count
Weights = Literal["balanced"] | Mapping[str, float] | None


class Loss(nn.Module):
    """Base of all losses."""

    takes: Literal["classes", "values", "sequences"] = "values"
    whole_samples = False  # of samples with many places (pixels): whether it wants them whole, or each place apart

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The batch's mean loss, a scalar."""
        raise NotImplementedError


def class_weight_tensor(weights: Weights, classes: Sequence[str], counts: Sequence[int]) -> Tensor | None:
    """The weight of each class `[classes]`, or None for none.

    Raises:
        InvalidInput: WEIGHTS names a class that there is not.
    """
    if weights is None:
        return None
    if weights == "balanced":
        share = sum(counts) / max(1, len(counts))
        return torch.tensor([share / count if count else 0.0 for count in counts])
    for name in weights:
        if name not in classes:
            close = nearest(name, classes)
            raise InvalidInput(
                f"class_weights names {name!r}, which is no class of the data",
                action=f"did you mean {close[0]!r}?" if close else f"classes: {listed(name, classes)}",
            )
    return torch.tensor([float(weights.get(name, 1.0)) for name in classes])


class _ClassLoss(Loss):
    takes = "classes"

    def __init__(self, class_weights: Weights, classes: Sequence[str], class_counts: Sequence[int]) -> None:
        super().__init__()
        self.weights: Tensor | None
        self.register_buffer("weights", class_weight_tensor(class_weights, classes, class_counts), persistent=False)

    def _mean(self, each: Tensor, target: Tensor) -> Tensor:
        if self.weights is None:
            return each.mean()
        return (each * self.weights.to(each.device)[target]).mean()


class CrossEntropy(_ClassLoss):
    """-sum_k q_k log softmax(scores)_k, q being 1 - s + s/K for the true class and s/K for the K - 1 others."""

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Weights = None,
        classes: Sequence[str] = (),
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__(class_weights, classes, class_counts)
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss.forward`."""
        each = functional.cross_entropy(outputs.float(), target, reduction="none", label_smoothing=self.label_smoothing)
        return self._mean(each, target)


class Focal(_ClassLoss):
    """-(1 - p)^gamma log p, p being the true class's softmax probability."""

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: Weights = None,
        classes: Sequence[str] = (),
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__(class_weights, classes, class_counts)
        self.gamma = gamma

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss.forward`."""
        log_p = functional.log_softmax(outputs.float(), dim=1).gather(1, target[:, None]).squeeze(1)
        miss = -torch.expm1(log_p.clamp(max=-1e-7))  # 1 - p, never exactly 0: its power has an infinite slope there
        return self._mean(-(miss**self.gamma) * log_p, target)


class Hinge(_ClassLoss):
    """The mean over wrong classes of max(0, margin - true score + wrong score)^power."""

    def __init__(
        self,
        margin: float = 1.0,
        power: int = 1,
        class_weights: Weights = None,
        classes: Sequence[str] = (),
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__(class_weights, classes, class_counts)
        self.margin, self.power = margin, power

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss.forward`."""
        scores = outputs.float()
        lag = (self.margin - scores.gather(1, target[:, None]) + scores).clamp(min=0) ** self.power
        wrong = torch.ones_like(lag).scatter(1, target[:, None], 0.0)
        return self._mean((lag * wrong).sum(1) / max(1, scores.shape[1] - 1), target)


class Dice(Loss):
    """1 - 2 sum(p q) / (sum(p²) + sum(q²)), q being 1 for the true class of a place and 0 for the others.

    Scores `[batch, classes, ...]` and class indices `[batch, ...]`; sums go over all classes and places of a sample,
    but for places that are IGNORED.
    """

    takes = "classes"
    whole_samples = True

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """See `Loss.forward`."""
        known = (target != IGNORED)[:, None]
        p = outputs.float().softmax(dim=1) * known
        q = torch.zeros_like(p).scatter(1, target.clamp(min=0)[:, None], 1.0) * known
        shared, total = (value.flatten(1).sum(dim=1) for value in (p * q, p.square() + q.square()))
        return (1 - 2 * shared / total.clamp(min=1e-6)).mean()


class Ctc(Loss):
    """-log of the sum over all alignments of the target with the frames, class 0 being the blank.

    Scores `[batch, frames, classes]` and class indices `[batch, length]`, -1 after a target's end. FRAMES `[batch]`
    says how many frames of each sample count; without it all do. A target that needs more frames than there are
    (one for each index, and one for each repetition) has no alignment, and an infinite loss. Unlike PyTorch's, the mean
    is not over a sample's length.
    """

    takes = "sequences"

    def forward(self, outputs: Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """See `Loss.forward`."""
        log_p = functional.log_softmax(outputs.float(), dim=2).transpose(0, 1)
        if frames is None:
            frames = torch.full((outputs.shape[0],), outputs.shape[1], dtype=torch.int64)
        lengths = (target >= 0).sum(dim=1)
        each = functional.ctc_loss(log_p, target.clamp(min=0), frames, lengths, blank=0, reduction="none")
        return each.mean()


class _ValueLoss(Loss):
    def each(self, residual: Tensor) -> Tensor:
        """The loss of each value from prediction minus target."""
        raise NotImplementedError

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        losses = self.each(outputs.float() - target.float())
        return losses.flatten(1).sum(1).mean() if losses.ndim > 1 else losses.mean()


class SquaredError(_ValueLoss):
    """r²."""

    def each(self, residual: Tensor) -> Tensor:
        """See the class."""
        return residual.square()


class HalfSquaredError(_ValueLoss):
    """r²/2."""

    def each(self, residual: Tensor) -> Tensor:
        """See the class."""
        return residual.square() / 2


class AbsoluteError(_ValueLoss):
    """|r|."""

    def each(self, residual: Tensor) -> Tensor:
        """See the class."""
        return residual.abs()


class SmoothL1(_ValueLoss):
    """r²/(2 beta) where |r| < beta, else |r| - beta/2."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def each(self, residual: Tensor) -> Tensor:
        """See the class."""
        size = residual.abs()
        return torch.where(size < self.beta, size.square() / (2 * self.beta), size - self.beta / 2)


class Huber(_ValueLoss):
    """r²/2 where |r| < delta, else delta (|r| - delta/2)."""

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def each(self, residual: Tensor) -> Tensor:
        """See the class."""
        size = residual.abs()
        return torch.where(size < self.delta, size.square() / 2, self.delta * (size - self.delta / 2))
