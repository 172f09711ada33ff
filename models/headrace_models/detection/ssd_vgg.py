"""SSD300 as published: VGG16 without its classifier, and convolutions that go on to a single place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.base.errors import InvalidInput
from headrace_models.classification.sizes import scaled
from headrace_models.classification.vgg import CHANNELS, CONVOLUTIONS
from headrace_models.detection.outputs import Threshold
from headrace_models.detection.ssd import SsdBase

SIDE = 300  # pixels
MAPS = (512, 1024, 512, 256, 256, 256)  # channels of conv4_3, conv7, conv8_2, conv9_2, conv10_2, conv11_2
SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)  # of the picture's side; the last is for the sixth map's extra box
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
STRIDES = (8, 16, 32, 64, 100, 300)  # pixels
NORM = 20.0  # that conv4_3 starts with (Liu et al. 2015, ParseNet)


class VggBackbone(nn.Module):
    """The six feature maps, of MAPS times WIDTH channels; names and shapes are torchvision's (without BATCH_NORM)."""

    def __init__(self, in_channels: int, width: float = 1.0, batch_norm: bool = False) -> None:
        super().__init__()
        maps = [scaled(channels, width) for channels in MAPS]
        convolution = partial(_convolution, batch_norm=batch_norm)
        layers: list[nn.Module] = []
        channels, cut = in_channels, 0
        for place, (count, full) in enumerate(zip(CONVOLUTIONS["D"], CHANNELS, strict=True)):
            wanted = scaled(full, width)
            for _ in range(count):
                layers += convolution(channels, wanted, 3, padding=1)
                channels = wanted
            if place == 3:
                cut = len(layers)  # conv4_3 is the first feature map
            layers.append(nn.MaxPool2d(2, ceil_mode=place == 2))  # 75 places become 38
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.features = nn.Sequential(*layers[:cut])
        self.scale_weight = nn.Parameter(torch.full((channels,), NORM))
        last = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            *convolution(channels, maps[1], 3, padding=6, dilation=6),
            *convolution(maps[1], maps[1], 1),
        )
        _start(last)
        self.extra = nn.ModuleList([nn.Sequential(*layers[cut:-1], last)])
        for level, (inside, outside) in enumerate(pairwise(maps[1:])):
            half = scaled(256 if level == 0 else 128, width)
            stride, padding = (2, 1) if level < 2 else (1, 0)
            block = nn.Sequential(
                *convolution(inside, half, 1), *convolution(half, outside, 3, stride=stride, padding=padding)
            )
            _start(block)
            self.extra.append(block)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`[batch, channels, 300, 300]` to maps of 38, 19, 10, 5, 3 and 1 places a side."""
        x = self.features(x)
        found = [self.scale_weight.view(1, -1, 1, 1) * functional.normalize(x)]
        for block in self.extra:
            x = block(x)
            found.append(x)
        return found


def _convolution(
    inside: int, outside: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, *, batch_norm: bool
) -> list[nn.Module]:
    normal: list[nn.Module] = [nn.BatchNorm2d(outside)] if batch_norm else []
    layer = nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=not batch_norm)
    return [layer, *normal, nn.ReLU(inplace=True)]


class Ssd300(SsdBase):
    """SSD300 (Liu et al. 2016, figure 2): 8,732 default boxes, 26,285,486 parameters at 20 classes and the background.

    Input `[batch, in_channels, 300, 300]`; see `headrace_models.detection.outputs`. Names and shapes are those of
    torchvision's `ssd300_vgg16`: its weights load by `init_from`, and it computes the same. Losses: see `ssd_losses`.
    To expect: COCO mAP 25.1, VOC 2007 mAP 77.2 (published, from VGG16 trained on ImageNet). From scratch it needs tens
    of thousands of pictures: `ssd` is the one for a CPU or for little data.

    Differs from the paper as torchvision does: the last map has a box of scale 1.05 beside .87. Pictures are normalised
    to variance 1, where the paper only takes off the mean. `width` and `batch_norm` make it one that trains from
    scratch on a CPU, with the same default boxes.

    Args:
        width: factor on all channels.
        batch_norm: normalise after each convolution, which the paper does not.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.

    Raises:
        InvalidInput: pictures are of another size.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = (SIDE, SIDE),
        width: float = 1.0,
        batch_norm: bool = False,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.45,
        max_detections: int = 100,
    ) -> None:
        if tuple(image_size) != (SIDE, SIDE):
            raise InvalidInput(
                f"ssd300-vgg16 takes pictures of {SIDE}x{SIDE}, not {image_size[0]}x{image_size[1]}",
                action=f"set image_size: {SIDE} in the task's arguments, or choose `ssd`",
            )
        boxes = [2 + 2 * len(ratios) for ratios in RATIOS]
        threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        super().__init__(threshold, [scaled(channels, width) for channels in MAPS], boxes, num_classes)
        self.backbone = VggBackbone(in_channels, width, batch_norm)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `SsdBase.maps`."""
        found: list[Tensor] = self.backbone(image)
        return found

    def sizes(self, level: int, image_size: tuple[int, int]) -> Tensor:
        """Squares of the level's scale and of its mean with the next one's, two boxes for each ratio (section 2.2)."""
        scale, next_scale = SCALES[level], SCALES[level + 1]
        sides = [(scale, scale), ((scale * next_scale) ** 0.5,) * 2]
        for ratio in RATIOS[level]:
            long, short = scale * ratio**0.5, scale / ratio**0.5
            sides += [(long, short), (short, long)]
        return torch.tensor(sides).clamp(max=1.0) * SIDE

    def stride(self, level: int, side: int, places: int) -> float:
        """See `SsdBase.stride`; the published strides, which are not 300 divided by the places."""
        return STRIDES[level]


def _start(layers: nn.Module) -> None:
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
