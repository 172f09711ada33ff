"""The parts that the small detectors are made of."""

from __future__ import annotations

from torch import Tensor, nn

from headrace_models.layers import build_activation


class Convolution(nn.Sequential):
    """Convolution without a bias, batch normalisation, activation; the size is divided by STRIDE, rounded up."""

    def __init__(self, inside: int, outside: int, kernel: int = 3, stride: int = 1, activation: str = "relu") -> None:
        convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(outside), build_activation(activation))


class Bottleneck(nn.Module):
    """x + 3x3(1x1(x)), half the channels in between (Redmon & Farhadi 2018, table 1)."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.layers = nn.Sequential(
            Convolution(channels, half, 1, activation=activation), Convolution(half, channels, 3, activation=activation)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The shape stays."""
        added: Tensor = x + self.layers(x)
        return added


class Stage(nn.Sequential):
    """Half the size by a 3x3 convolution, then DEPTH bottlenecks."""

    def __init__(self, inside: int, outside: int, depth: int, activation: str) -> None:
        super().__init__(
            Convolution(inside, outside, stride=2, activation=activation),
            *(Bottleneck(outside, activation) for _ in range(depth)),
        )
