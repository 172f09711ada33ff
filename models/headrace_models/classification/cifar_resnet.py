"""The small residual networks that He et al. made for CIFAR-10: right for pictures of about 8 to 64 pixels."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from headrace_models.layers import build_activation

Shortcut = Literal["A", "B"]


class PadShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the new channels. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in, height, width]` to `[batch, out, height/stride, width/stride]`."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


def _project(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B: a 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: str, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation = build_activation(activation)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            make = PadShortcut if shortcut == "A" else _project
            self.shortcut = make(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in, height, width]` to `[batch, out, height/stride, width/stride]`."""
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        result: Tensor = self.activation(y + self.shortcut(x))
        return result


class CifarResNet(nn.Module):
    """6n + 2 layers: a 3x3 convolution, three stages of n blocks, global mean, one linear layer (section 4.2).

    Input `[batch, in_channels, height, width]` of any size from 4x4; output `[batch, num_classes]`. The first stage
    keeps the size, the other two halve it and double the channels. As the paper has it with `shortcut` A; B is its
    ablation. Convolutions start as in He et al. 2015b (fan out). Parameters at 3 channels and 10 classes: 269,722
    (n = 3), 464,154 (5), 658,586 (7), 853,018 (9).

    To expect: ResNet-8 (n = 1, not in the paper) digits accuracy .98 and more in 8 epochs. Published: CIFAR-10 accuracy
    .9125, .9249, .9283, .9303 for 20, 32, 44 and 56 layers (table 6).
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int,
        in_channels: int,
        width: int = 16,
        activation: str = "relu",
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = build_activation(activation)
        stages = []
        channels = width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(BasicBlock(channels, width << stage, stride, activation, shortcut))
                channels = width << stage
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`."""
        y = self.stages(self.activation(self.norm(self.conv(x))))
        scores: Tensor = self.head(y.mean(dim=(2, 3)))
        return scores


resnet8 = partial(CifarResNet, 1)
resnet20 = partial(CifarResNet, 3)
resnet32 = partial(CifarResNet, 5)
resnet44 = partial(CifarResNet, 7)
resnet56 = partial(CifarResNet, 9)
