"""U-Net (Ronneberger, Fischer & Brox 2015, figure 1): a contracting path, an expanding one, and skips between them.

Input float32 `[batch, in_channels, height, width]`; output scores `[batch, num_classes, height, width]`.

Differs from the paper: convolutions keep the size and are followed by batch norm (the paper has neither), so the output
is as large as the input and it trains from scratch in few steps; sizes that halve to a fraction are rounded up and the
skip's size is taken on the way back. The published width is 64 and its depth 4.

On `builtin:digit-scenes` (32 x 32, 11 classes) the small one reaches the figures of docs/models/segmentation.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headrace_models.layers import build_activation


def block(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised and activated."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            build_activation(activation),
        ]
    return nn.Sequential(*layers)


class Contracting(nn.Module):
    """The left side: what there is at each scale, from the input's to 1 / 2^depth of it."""

    def __init__(self, in_channels: int, width: int, depth: int, activation: str) -> None:
        super().__init__()
        self.channels = [width * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *self.channels[:-1]]
        self.blocks = nn.ModuleList(block(i, o, activation) for i, o in zip(inputs, self.channels, strict=True))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps, the finest first."""
        maps: list[Tensor] = []
        for level, layer in enumerate(self.blocks):
            image = layer(self.pool(image) if level else image)
            maps.append(image)
        return maps


class Expanding(nn.Module):
    """The right side, and the scores of every pixel."""

    def __init__(self, channels: Sequence[int], num_classes: int, activation: str) -> None:
        super().__init__()
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, stride=2) for deep, fine in pairs)
        self.blocks = nn.ModuleList(block(2 * fine, fine, activation) for _, fine in pairs)
        self.scores = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Scores `[batch, num_classes, height, width]` from the MAPS of the left side."""
        now = maps[-1]
        for up, layer, skip in zip(self.ups, self.blocks, maps[-2::-1], strict=True):
            raised = up(now)[:, :, : skip.shape[2], : skip.shape[3]]
            now = layer(torch.cat([skip, raised], dim=1))
        scores: Tensor = self.scores(now)
        return scores


class UNet(nn.Module):
    """See the module."""

    def __init__(
        self, in_channels: int, num_classes: int, width: int = 64, depth: int = 4, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.contracting = Contracting(in_channels, width, depth, activation)
        self.expanding = Expanding(self.contracting.channels, num_classes, activation)

    def forward(self, image: Tensor) -> Tensor:
        """See the module."""
        scores: Tensor = self.expanding(self.contracting(image))
        return scores
