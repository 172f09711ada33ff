"""A small convolutional network, to copy: Headrace passes what the task knows and what `model.args` says."""

import torch
from blocks import conv_block
from torch import nn


class Net(nn.Module):
    """Two blocks of convolutions, then one linear layer.

    Args:
        num_classes: from the data.
        in_channels: 1 for grey pictures, 3 for colour; from the data.
        width: channels of the first block; from `model.args`.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_block(in_channels, width),
            nn.MaxPool2d(2),
            conv_block(width, 2 * width),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, height, width] to [batch, num_classes] logits."""
        return self.head(self.features(image).flatten(1))
