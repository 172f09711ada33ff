"""One backbone with a head for each task (Caruana 1997: hard parameter sharing).

The backbone is the contracting side of a U-Net. A classification reads its coarsest map (mean over places, one linear
layer), a segmentation has the expanding side. Input float32 `[batch, in_channels, height, width]`; output
`MultiTaskOutput`: the scores of each task as its own networks give them.

Loss weights may be learned by homoscedastic uncertainty (Kendall, Gal & Cipolla 2018, eq. 10): each task has a
parameter s = log(variance), and its loss counts as exp(-s) loss + s / 2. They are parameters of the network, so that
workers share them and a package keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headrace.base.errors import InvalidInput
from headrace_models.segmentation.unet import Contracting, Expanding
from headrace_models.tasks.base import MultiTaskOutput

CLASSIFICATION, SEGMENTATION = "image-classification", "semantic-segmentation"


class MultiTaskNet(nn.Module):
    """See the module.

    Args:
        tasks: the facts of each task by its name.
        loss_weights: `fixed` (those of `train.losses` alone) or `learned`.
    """

    def __init__(
        self,
        tasks: Mapping[str, Mapping[str, Any]],
        in_channels: int,
        width: int = 64,
        depth: int = 4,
        activation: str = "relu",
        dropout: float = 0.0,
        loss_weights: str = "fixed",
    ) -> None:
        super().__init__()
        self.backbone = Contracting(in_channels, width, depth, activation)
        channels = self.backbone.channels
        heads: dict[str, nn.Module] = {}
        for name, facts in tasks.items():
            if name == CLASSIFICATION:
                heads[name] = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels[-1], int(facts["num_classes"])))
            elif name == SEGMENTATION:
                heads[name] = Expanding(channels, int(facts["num_classes"]), activation)
            else:
                raise InvalidInput(
                    f"there is no head for {name}", action=f"the tasks are {CLASSIFICATION} and {SEGMENTATION}"
                )
        self.heads = nn.ModuleDict(heads)
        learned = sorted(heads) if loss_weights == "learned" else []
        self.log_variances = nn.ParameterDict({name: torch.zeros(1) for name in learned})

    def forward(self, image: Tensor) -> MultiTaskOutput:
        """See the module."""
        maps = self.backbone(image)
        pooled = maps[-1].mean(dim=(2, 3))
        outputs = {name: head(pooled if name == CLASSIFICATION else maps) for name, head in self.heads.items()}
        return MultiTaskOutput(outputs, dict(self.log_variances.items()))
