"""ResNet for pictures of about 224 pixels: 18 to 152 layers, the backbone that most of vision begins with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from headrace_models.classification.sizes import FULL_SIZE, is_small, scaled
from headrace_models.layers import build_activation


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.activation = build_activation(activation)
        self.downsample = shortcut(inputs, channels, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose scale of 0 makes the block an identity."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, height, width]` to `[batch, channels, height/stride, width/stride]`."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.activation(y + (x if self.downsample is None else self.downsample(x)))
        return result


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the channels, beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.activation = build_activation(activation)
        self.downsample = shortcut(inputs, channels * self.expansion, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose scale of 0 makes the block an identity."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, height, width]` to `[batch, 4 * channels, height/stride, width/stride]`."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        result: Tensor = self.activation(y + (x if self.downsample is None else self.downsample(x)))
        return result


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A 1x1 convolution where the shape changes (option B), nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """A 7x7 convolution, four stages of residual blocks, global mean, one linear layer (He et al. 2015, table 1).

    Input `[batch, in_channels, height, width]`, output `[batch, num_classes]`. At 3 channels and 1000 classes
    11,689,512 / 21,797,672 / 25,557,032 / 44,549,160 / 60,192,808 parameters for 18 / 34 / 50 / 101 / 152 layers. Names
    and shapes are those of torchvision's, so their weights load.

    Differs from the paper as torchvision's does: bottlenecks subsample in the 3x3 convolution and not in the 1x1 before
    it (about half a percent better on ImageNet). Convolutions start by He et al. 2015b (fan out). Pictures below 64
    pixels: see `classification.sizes`; the first convolution is then 3x3 with stride 1, without the pool after it.

    To expect: digits at width 0.25 accuracy .97 and more (examples/zoo/resnet18.yaml). Published: ImageNet top-1
    .698, .733, .761, .774, .783 (torchvision).

    Args:
        block: BasicBlock or Bottleneck.
        blocks: how many of them each stage has.
        image_size: height and width of the pictures.
        width: factor on all channels.
        zero_init_residual: start every block as an identity (Goyal et al. 2017, section 5.1).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = FULL_SIZE,
        width: float = 1.0,
        activation: str = "relu",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        small = is_small(image_size)
        self._channels = scaled(64, width)
        if small:
            self.conv1 = nn.Conv2d(in_channels, self._channels, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, self._channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self._channels)
        self.activation = build_activation(activation)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)

        def stage(place: int) -> nn.Sequential:
            channels = scaled(64 << place, width)
            made = []
            for each in range(blocks[place]):
                stride = 2 if place > 0 and each == 0 else 1
                made.append(block(self._channels, channels, stride, activation))
                self._channels = channels * block.expansion
            return nn.Sequential(*made)

        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(place) for place in range(4))
        self.fc = nn.Linear(self._channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`."""
        y = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        scores: Tensor = self.fc(y.mean(dim=(2, 3)))
        return scores


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
