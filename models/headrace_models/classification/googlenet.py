"""GoogLeNet: inception modules, a ninth of AlexNet's weights, and classifiers in mid-network that help it learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace_models.classification.sizes import FULL_SIZE, halvings, is_small, pool_or_nothing, scaled
from headrace_models.layers import build_activation
from headrace_models.tasks.base import WithAuxiliary

AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss (section 5)
POOLS = 4  # beside the first convolution's stride

# Table 1: channels of 1x1; of 1x1 before 3x3, and 3x3; of 1x1 before 5x5, and 5x5; of 1x1 after the pool.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, activation: str, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)
        self.activation = build_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, height, width]` to `[batch, outputs, height/stride, width/stride]`."""
        result: Tensor = self.activation(self.bn(self.conv(x)))
        return result


class Inception(nn.Module):
    """Four branches side by side, their channels joined (figure 2b)."""

    def __init__(self, inputs: int, channels: Sequence[int], activation: str) -> None:
        super().__init__()
        one, before3, three, before5, five, after = channels

        def conv(given: int, made: int, kernel: int) -> Convolution:
            return Convolution(given, made, kernel, activation)

        self.branch1 = conv(inputs, one, 1)
        self.branch2 = nn.Sequential(conv(inputs, before3, 1), conv(before3, three, 3))
        self.branch3 = nn.Sequential(conv(inputs, before5, 1), conv(before5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(inputs, after, 1))
        self.outputs = one + three + five + after

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, height, width]` to `[batch, self.outputs, height, width]`."""
        return torch.cat([branch(x) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], dim=1)


class AuxiliaryHead(nn.Module):
    """A small classifier on a feature map in mid-network (section 5)."""

    def __init__(self, inputs: int, num_classes: int, width: float, activation: str) -> None:
        super().__init__()
        self.conv = Convolution(inputs, scaled(128, width), 1, activation)
        self.fc1 = nn.Linear(scaled(128, width) * 4 * 4, scaled(1024, width))
        self.activation = build_activation(activation)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(scaled(1024, width), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, height, width]` to `[batch, num_classes]`."""
        y = self.conv(functional.adaptive_avg_pool2d(x, (4, 4)))
        scores: Tensor = self.fc2(self.dropout(self.activation(self.fc1(y.flatten(1)))))
        return scores


class GoogLeNet(nn.Module):
    """22 layers deep: three convolutions, nine inception modules, one linear layer (Szegedy et al. 2014, table 1).

    Input `[batch, in_channels, height, width]`; output `[batch, num_classes]`, and while it trains with auxiliary heads
    `WithAuxiliary` of three such scores, each auxiliary loss counting 0.3 (section 5). At 3 channels and 1000 classes
    6,624,904 parameters, 13,004,888 with the heads. Names and shapes are those of torchvision's `googlenet`.

    Differs from the paper as torchvision's does: batch normalisation after each convolution instead of local response
    normalisation; 3x3 filters where the paper has 5x5 (known, and kept so that published weights fit); the heads'
    average pool is adaptive to 4x4; weights start from N(0, 0.01) cut off at two. Pictures below 64 pixels: see
    `classification.sizes`; the first convolution is then 3x3 with stride 1.

    To expect: digits at width 0.125 accuracy .97 and more (examples/zoo/googlenet.yaml). Published: ImageNet top-1
    .698 (torchvision).

    Args:
        image_size: height and width of the pictures.
        width: factor on all channels and hidden values.
        auxiliary: train with the two auxiliary heads; a served model does not use them.
        dropout: share of the last features dropped while training; the paper's .4 is torchvision's .2.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = FULL_SIZE,
        width: float = 1.0,
        auxiliary: bool = True,
        activation: str = "relu",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        small, kept = is_small(image_size), halvings(image_size, POOLS)
        c1, c3 = scaled(64, width), scaled(192, width)

        def pool(place: int, kernel: int = 3) -> nn.Module:
            return pool_or_nothing(nn.MaxPool2d(kernel, stride=2, ceil_mode=True), place, POOLS, kept)

        self.conv1 = Convolution(in_channels, c1, 3 if small else 7, activation, stride=1 if small else 2)
        self.maxpool1 = pool(0)
        self.conv2 = Convolution(c1, c1, 1, activation)
        self.conv3 = Convolution(c1, c3, 3, activation)
        self.maxpool2 = pool(1)
        made: dict[str, Inception] = {}
        channels = c3
        for name, sizes in MODULES.items():
            made[name] = Inception(channels, [scaled(size, width) for size in sizes], activation)
            channels = made[name].outputs
        self.inception3a, self.inception3b = made["3a"], made["3b"]
        self.maxpool3 = pool(2)
        self.inception4a, self.inception4b, self.inception4c = made["4a"], made["4b"], made["4c"]
        self.inception4d, self.inception4e = made["4d"], made["4e"]
        self.maxpool4 = pool(3, kernel=2)
        self.inception5a, self.inception5b = made["5a"], made["5b"]
        self.aux1: AuxiliaryHead | None = None
        self.aux2: AuxiliaryHead | None = None
        if auxiliary:
            self.aux1 = AuxiliaryHead(made["4a"].outputs, num_classes, width, activation)
            self.aux2 = AuxiliaryHead(made["4d"].outputs, num_classes, width, activation)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, 0.0, 0.01, -2.0, 2.0)

    def forward(self, x: Tensor) -> Tensor | WithAuxiliary:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`, with the heads' while it trains."""
        y = self.maxpool1(self.conv1(x))
        y = self.maxpool2(self.conv3(self.conv2(y)))
        y = self.maxpool3(self.inception3b(self.inception3a(y)))
        first = self.inception4a(y)
        second = self.inception4d(self.inception4c(self.inception4b(first)))
        y = self.maxpool4(self.inception4e(second))
        y = self.inception5b(self.inception5a(y))
        scores: Tensor = self.fc(self.dropout(y.mean(dim=(2, 3))))
        if not self.training or self.aux1 is None or self.aux2 is None:
            return scores
        return WithAuxiliary(scores, ((AUXILIARY_WEIGHT, self.aux1(first)), (AUXILIARY_WEIGHT, self.aux2(second))))
