"""VGG: nothing but 3x3 convolutions, pools and three linear layers; what many detectors stand on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from headrace_models.classification.sizes import FULL_SIZE, halvings, is_small, pool_or_nothing, scaled
from headrace_models.layers import build_activation

CHANNELS = (64, 128, 256, 512, 512)  # of the five blocks; each ends with a 2x2 pool
CONVOLUTIONS = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
GRID = 7  # the classifier sees 7x7 places of the last feature map


class Vgg(nn.Module):
    """Configurations A, B, D and E (Simonyan & Zisserman 2014, table 1): 11, 13, 16 and 19 layers with weights.

    Input `[batch, in_channels, height, width]`, output `[batch, num_classes]`. At 3 channels and 1000 classes
    132,863,336 / 133,047,848 / 138,357,544 / 143,667,240 parameters; batch normalisation adds 2 a channel. Names and
    shapes are those of torchvision's `vgg11` to `vgg19_bn`, so their weights load.

    Differs from the paper: convolutions start by He et al. 2015b (fan out) as torchvision's do, where the paper trained
    A first and started the deeper ones from it; linear layers start from N(0, 0.01) as the paper says (section 3.1).
    `batch_norm` came later (Ioffe & Szegedy 2015) and makes the deep ones train from scratch. Pictures below 64 pixels:
    see `classification.sizes`; the classifier then sees the last feature map as it is.

    To expect: digits at width 0.125 with batch normalisation accuracy .97 and more (examples/zoo/vgg11.yaml).
    Published: ImageNet top-1 .690, .699, .716, .724 (torchvision).

    Args:
        configuration: A, B, D or E.
        image_size: height and width of the pictures.
        width: factor on all channels and hidden values.
        batch_norm: normalise after each convolution.
        dropout: share of hidden values dropped in the classifier while training (section 3.1).
    """

    def __init__(
        self,
        configuration: str,
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = FULL_SIZE,
        width: float = 1.0,
        batch_norm: bool = False,
        activation: str = "relu",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        blocks = CONVOLUTIONS[configuration]
        kept = halvings(image_size, len(blocks))
        layers: list[nn.Module] = []
        channels = in_channels
        for place, (convolutions, wanted) in enumerate(zip(blocks, CHANNELS, strict=True)):
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, scaled(wanted, width), 3, padding=1))
                channels = scaled(wanted, width)
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(build_activation(activation))
            layers.append(pool_or_nothing(nn.MaxPool2d(2), place, len(blocks), kept))
        self.features = nn.Sequential(*layers)
        grid = [min(GRID, side // 2**kept) for side in image_size] if is_small(image_size) else [GRID, GRID]
        self.avgpool = nn.AdaptiveAvgPool2d((grid[0], grid[1]))
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * grid[0] * grid[1], hidden), build_activation(activation), nn.Dropout(dropout)),
            *(nn.Linear(hidden, hidden), build_activation(activation), nn.Dropout(dropout)),
            nn.Linear(hidden, num_classes),
        )
        self._start()

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`."""
        scores: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores


vgg11 = partial(Vgg, "A")
vgg13 = partial(Vgg, "B")
vgg16 = partial(Vgg, "D")
vgg19 = partial(Vgg, "E")
