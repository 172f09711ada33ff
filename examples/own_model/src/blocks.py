"""A second file, to show that the folder's own modules are imported as usual."""

from torch import nn


def conv_block(inputs: int, outputs: int) -> nn.Module:
    """[batch, inputs, height, width] to [batch, outputs, height, width]."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
