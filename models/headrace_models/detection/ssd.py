"""SSD: default boxes of several sizes on feature maps of several strides, classified and shifted in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace_models.detection.boxes import cell_centres, cornered, offsets, overlap, shifted
from headrace_models.detection.layers import Pyramid
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold, select

SCALE = (10.0, 10.0, 5.0, 5.0)  # of offsets; the published code's variances of .1 and .2
MATCHED = 0.5  # IoU from which a default box learns an object
NEGATIVES = 3  # that are learned for each positive, the hardest first
FINEST = 4  # pixels: the stride of the finest map
SIDES = 4  # strides: the side of the objects that a map is for, as in the paper's figure 2 (30 pixels at 8, 60 at 16)


class Match(NamedTuple):
    """What each default box shall learn."""

    positive: Tensor  # bool [batch, defaults]
    ignored: Tensor  # bool [batch, defaults]: neither an object nor background
    object: Tensor  # int64 [batch, defaults]: which object of the picture


class Predictor(nn.Module):
    """One 3x3 convolution a feature map, giving OUTSIDE values for each of its default boxes."""

    def __init__(self, channels: Sequence[int], boxes: Sequence[int], outside: int) -> None:
        super().__init__()
        self.outside = outside
        self.module_list = nn.ModuleList(
            nn.Conv2d(inside, outside * count, 3, padding=1) for inside, count in zip(channels, boxes, strict=True)
        )
        for layer in self.module_list:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`[batch, defaults, outside]`, float32: maps in order, row by row, the boxes of a place together."""
        found = []
        for layer, x in zip(self.module_list, maps, strict=True):
            found.append(layer(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, self.outside)))
        return torch.cat(found, dim=1).float()


class Predictors(nn.Module):
    """Scores (the background first) and offsets."""

    def __init__(self, channels: Sequence[int], boxes: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classification_head = Predictor(channels, boxes, num_classes + 1)
        self.regression_head = Predictor(channels, boxes, 4)


class SsdBase(nn.Module):
    """What both SSDs share: predictors, matching, losses (Liu et al. 2016, section 2.2).

    A subclass gives the feature maps (`maps`) and the sizes of default boxes (`sizes`).
    """

    def __init__(self, threshold: Threshold, channels: Sequence[int], boxes: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.threshold = threshold
        self.head = Predictors(channels, boxes, num_classes)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Feature maps `[batch, channels, rows, columns]`, the finest first."""
        raise NotImplementedError

    def sizes(self, level: int, image_size: tuple[int, int]) -> Tensor:
        """(width, height) of the default boxes of a LEVEL in pixels of a picture of IMAGE_SIZE, `[boxes, 2]`."""
        raise NotImplementedError

    def stride(self, level: int, side: int, places: int) -> float:
        """Pixels between the PLACES of a LEVEL along a side of the picture."""
        return side / places

    def defaults(self, maps: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """All default boxes in pixels, `[defaults, 4]`, in the predictors' order."""
        found = []
        for level, x in enumerate(maps):
            stride = self.stride(level, image_size[0], x.shape[2]), self.stride(level, image_size[1], x.shape[3])
            centres = cell_centres(x.shape[2], x.shape[3], stride, x.device)
            sizes = self.sizes(level, image_size).to(x.device)
            shape = (len(centres), len(sizes), 2)
            boxes = torch.cat([centres[:, None].expand(shape), sizes[None].expand(shape)], dim=-1)
            found.append(cornered(boxes.reshape(-1, 4)))
        return torch.cat(found)

    def forward(self, image: Tensor, targets: Targets | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`."""
        maps, size = self.maps(image), (image.shape[2], image.shape[3])
        defaults = self.defaults(maps, size)
        scores, by = self.head.classification_head(maps), self.head.regression_head(maps)
        losses = None if targets is None else ssd_losses(scores, by, defaults, targets)
        if self.training:
            return DetectorOutput(losses, None)
        boxes = shifted(defaults, by, SCALE)
        return DetectorOutput(losses, select(boxes, scores.softmax(dim=2)[..., 1:], self.threshold, size))


@torch.no_grad()
def match(defaults: Tensor, targets: Targets) -> Match:
    """Each object gets the default box of the largest IoU; a default box gets the object of the largest IoU, from
    MATCHED on. Those that lie so over an ignored object learn nothing."""
    shared = overlap(targets.boxes, defaults)  # [batch, objects, defaults]
    wanted = shared.masked_fill(~targets.wanted[..., None], -1.0)
    best, owner = wanted.max(dim=1)
    positive = best >= MATCHED
    taken = functional.one_hot(wanted.argmax(dim=2), len(defaults)).bool() & targets.wanted[..., None]
    forced = taken.any(dim=1)  # of two objects with one nearest default box the last one has it
    last = taken.shape[1] - 1 - taken.flip(1).int().argmax(dim=1)
    owner = torch.where(forced, last, owner)
    positive |= forced
    ignored = (shared.masked_fill(~targets.ignored[..., None], -1.0) >= MATCHED).any(dim=1)
    return Match(positive, ignored & ~positive, owner)


def ssd_losses(scores: Tensor, by: Tensor, defaults: Tensor, targets: Targets) -> dict[str, Tensor]:
    """`box`: smooth L1 of the offsets; `classification`: cross-entropy of positives and of the hardest negatives.

    Both are divided by the picture's positives, and are means over pictures. Differs from the paper: a picture without
    an object has a loss too, that of its NEGATIVES hardest default boxes.
    """
    matched = match(defaults, targets)
    positive = matched.positive
    count = positive.sum(dim=1)
    whole = count.clamp(min=1)
    true = targets.boxes.gather(1, matched.object[..., None].expand(-1, -1, 4))
    wanted = torch.where(positive[..., None], offsets(true, defaults, SCALE), by.detach())
    box = functional.smooth_l1_loss(by, wanted, reduction="none").sum(dim=2)
    label = torch.where(positive, targets.labels.gather(1, matched.object) + 1, 0)
    each = functional.cross_entropy(scores.transpose(1, 2), label, reduction="none")
    hardness = each.detach().masked_fill(positive | matched.ignored, -torch.inf)
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    negative = (rank < NEGATIVES * whole[:, None]) & hardness.isfinite()
    return {
        "classification": ((each * (positive | negative)).sum(dim=1) / whole).mean(),
        "box": (box.sum(dim=1) / whole).mean(),
    }


class Ssd(SsdBase):
    """SSD on a small residual backbone, for pictures of about 100 to 500 pixels.

    Input `[batch, in_channels, height, width]`; see `headrace_models.detection.outputs`. Feature maps of strides 4, 8,
    16, ... are made by halving; a top-down path adds the coarse ones to the fine ones. Losses: see `ssd_losses`. To
    expect: docs/models/detection.md.

    Differs from the paper: the default boxes are not of fixed scales and ratios but the usual sizes of the training
    data's objects (`anchor_sizes`: k-means as in Redmon & Farhadi 2017, section 2), each on the map whose stride is
    nearest to a fourth of its side; the top-down path is that of feature pyramids (Lin et al. 2017), without which the
    fine map of a backbone this shallow knows too little; batch normalisation instead of a pretrained VGG16.

    Args:
        anchor_sizes: (width, height) in pixels.
        width: channels of the first convolution.
        levels: feature maps; those that no size falls to only help the finer ones.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.
    """

    def __init__(
        self,
        num_classes: int,
        anchor_sizes: Sequence[Sequence[float]],
        in_channels: int = 3,
        width: int = 16,
        levels: int = 4,
        activation: str = "silu",
        score_threshold: float = 0.05,
        nms_threshold: float = 0.45,
        max_detections: int = 100,
    ) -> None:
        sizes = by_level(anchor_sizes, levels)
        threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        super().__init__(threshold, [4 * width] * len(sizes), [len(each) for each in sizes.values()], num_classes)
        self.used = list(sizes)
        self._sizes = [torch.tensor(each) for each in sizes.values()]
        self.pyramid = Pyramid(in_channels, width, levels, self.used, activation)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `SsdBase.maps`."""
        found: list[Tensor] = self.pyramid(image)
        return found

    def sizes(self, level: int, image_size: tuple[int, int]) -> Tensor:
        """See `SsdBase.sizes`."""
        return self._sizes[level]


def by_level(sizes: Sequence[Sequence[float]], levels: int) -> dict[int, list[list[float]]]:
    """The (width, height) pairs of SIZES that fall to each of LEVELS (0 is the finest), for those that have any."""
    found: dict[int, list[list[float]]] = {}
    for width, height in sizes:
        strides = math.sqrt(width * height) / (SIDES * FINEST)
        level = min(max(0, round(math.log2(max(strides, 1e-6)))), levels - 1)
        found.setdefault(level, []).append([width, height])
    return dict(sorted(found.items()))
