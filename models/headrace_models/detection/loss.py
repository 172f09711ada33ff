"""The loss of detectors: what they lose themselves, each part by a weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headrace.base.errors import InvalidInput
from headrace_models.catalog.names import listed, nearest


class DetectionLoss(nn.Module):
    """The sum of a detector's losses, each times its weight (1 where WEIGHTS does not name it)."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """LOSSES by name, scalars, to one scalar.

        Raises:
            InvalidInput: a weight's name is none of them.
        """
        for name in self.weights:
            if name not in losses:
                close = nearest(name, losses)
                raise InvalidInput(
                    f"train.loss weighs {name!r}, which is no loss of this model",
                    action=f"did you mean {close[0]}?" if close else f"allowed: {listed(name, losses)}",
                )
        return torch.stack([value.float() * self.weights.get(name, 1.0) for name, value in losses.items()]).sum()
