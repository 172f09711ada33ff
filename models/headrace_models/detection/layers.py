"""The parts that the small detectors are made of."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

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


class Pyramid(nn.Module):
    """Feature maps of strides 4, 8, 16, ... by halving; a top-down path adds the coarse ones to the fine ones (Lin et
    al. 2017, figure 3), without which the fine map of a backbone this shallow knows too little.

    Args:
        width: channels of the first convolution; the maps have four times as many.
        levels: maps that are made; the coarse ones help the finer ones.
        used: the levels that come out, from 0 (stride 4) on.
    """

    def __init__(self, in_channels: int, width: int, levels: int, used: Sequence[int], activation: str) -> None:
        super().__init__()
        self.used = list(used)
        a, w = activation, width
        self.stem = Convolution(in_channels, w, stride=2, activation=a)
        outside = [2 * w, 4 * w, *[8 * w] * levels][:levels]
        inside = [w, *outside[:-1]]
        self.stages = nn.ModuleList(Stage(i, o, 1, a) for i, o in zip(inside, outside, strict=True))
        self.reduce = nn.ModuleList(Convolution(o, 4 * w, 1, activation=a) for o in outside[self.used[0] :])
        self.smooth = nn.ModuleList(Convolution(4 * w, 4 * w, activation=a) for _ in self.used)

    def forward(self, image: Tensor) -> list[Tensor]:
        """`[batch, in_channels, height, width]` to `[batch, 4 * width, rows, columns]` each, the finest first."""
        first = self.used[0]  # finer ones are on the way only
        x, found = self.stem(image), list[Tensor]()
        for level, stage in enumerate(self.stages):
            x = stage(x)
            if level >= first:
                found.append(self.reduce[level - first](x))
        for place in range(len(found) - 1, 0, -1):
            finer = found[place - 1]
            found[place - 1] = finer + functional.interpolate(found[place], size=finer.shape[2:], mode="nearest")
        return [smooth(found[level - first]) for smooth, level in zip(self.smooth, self.used, strict=True)]
