"""AlexNet: the network that began it, large filters first and most weights in the classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from headrace_models.classification.sizes import FULL_SIZE, halvings, is_small, pool_or_nothing, scaled
from headrace_models.layers import build_activation

GRID = 6  # the classifier sees 6x6 places of the last feature map
POOLS = 3


class AlexNet(nn.Module):
    """Five convolutions and three linear layers (Krizhevsky et al. 2012, section 3.5), in one tower.

    Input `[batch, in_channels, height, width]`, output `[batch, num_classes]`. 61,100,840 parameters at 3 channels and
    1000 classes. Names and shapes are those of torchvision's `alexnet`, so its weights load.

    Differs from the paper: one tower with the channels of Krizhevsky 2014 (the two towers were two GPUs), no local
    response normalisation (it brought little, and no later network has it), weights start as PyTorch starts them
    (uniform by fan in) like torchvision's. Pictures below 64 pixels: see `classification.sizes`; the first convolution
    is then 3x3 with stride 1, and the classifier sees the last feature map as it is.

    To expect: digits at width 0.25 accuracy .97 and more (examples/zoo/alexnet.yaml). Published: ImageNet top-1 .565
    (torchvision).

    Args:
        image_size: height and width of the pictures.
        width: factor on all channels and hidden values.
        dropout: share of the classifier's inputs dropped while training (section 4.2).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = FULL_SIZE,
        width: float = 1.0,
        activation: str = "relu",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        small, kept = is_small(image_size), halvings(image_size, POOLS)
        c1, c2, c3, c4, c5 = (scaled(channels, width) for channels in (64, 192, 384, 256, 256))
        hidden = scaled(4096, width)

        def act() -> nn.Module:
            return build_activation(activation)

        def pool(place: int) -> nn.Module:
            full = nn.MaxPool2d(3, stride=2, padding=1 if small else 0)
            return pool_or_nothing(full, place, POOLS, kept)

        first = nn.Conv2d(in_channels, c1, 3, padding=1) if small else nn.Conv2d(in_channels, c1, 11, 4, padding=2)
        self.features = nn.Sequential(
            *(first, act(), pool(0)),
            *(nn.Conv2d(c1, c2, 5, padding=2), act(), pool(1)),
            *(nn.Conv2d(c2, c3, 3, padding=1), act()),
            *(nn.Conv2d(c3, c4, 3, padding=1), act()),
            *(nn.Conv2d(c4, c5, 3, padding=1), act(), pool(2)),
        )
        grid = [min(GRID, -(-side // 2**kept)) for side in image_size] if small else [GRID, GRID]
        self.avgpool = nn.AdaptiveAvgPool2d((grid[0], grid[1]))
        self.classifier = nn.Sequential(
            *(nn.Dropout(dropout), nn.Linear(c5 * grid[0] * grid[1], hidden), act()),
            *(nn.Dropout(dropout), nn.Linear(hidden, hidden), act()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, num_classes]`."""
        scores: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return scores
