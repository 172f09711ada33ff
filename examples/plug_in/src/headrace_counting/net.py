"""The network: a density for each pixel, whose sum is the count (Lempitsky & Zisserman 2010, section 2)."""

from __future__ import annotations

import torch
from torch import nn


class DotCounter(nn.Module):
    """Three convolutions and a sum: [batch, in_channels, height, width] to counts [batch]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.density = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        nn.init.zeros_(self.density[-1].weight)  # the first guess is 0 everywhere, whatever the pictures' size

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Counts [batch]."""
        return self.density(image).sum(dim=(1, 2, 3))
