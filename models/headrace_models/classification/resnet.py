"""ResNet for pictures of about 224 pixels: torchvision's network, so that its published weights fit."""

from __future__ import annotations

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as torchvision_resnet18

from headrace_models.layers import build_activation


def resnet18(
    num_classes: int, in_channels: int = 3, activation: str = "relu", zero_init_residual: bool = False
) -> ResNet:
    """ResNet-18 (He et al. 2015, table 1): `[batch, in_channels, height, width]` to `[batch, num_classes]`.

    11,689,512 parameters at 3 channels and 1000 classes. Differs from torchvision's only where asked to: another
    number of input channels changes the first convolution, another activation replaces each ReLU.
    """
    network = torchvision_resnet18(weights=None, num_classes=num_classes, zero_init_residual=zero_init_residual)
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if activation != "relu":
        _replace_relu(network, activation)
    return network


def _replace_relu(module: nn.Module, activation: str) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, build_activation(activation))
        else:
            _replace_relu(child, activation)
