"""YOLO as people mean it today, small enough for a CPU: no anchors, two feature maps, learned assignment."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from headrace_models.detection.boxes import cell_centres, cornered, overlap
from headrace_models.detection.layers import Convolution, Stage
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold, select

SIZE = 4.0  # strides: the side of a box before anything is learned
PRIOR = 0.01  # probability of a class at a place before anything is learned (Lin et al. 2017, section 4.1)
ALPHA, BETA = 1.0, 6.0  # alignment = score^ALPHA * IoU^BETA (Feng et al. 2021, section 3.2)
MOST_PLACES = 10  # that an object is learned at
NEAR = 1.0  # strides around an object's centre that belong to it, however small it is
BOX_WEIGHT = 2.0


class Places(NamedTuple):
    """Where boxes are predicted: centres `[places, 2]` and strides `[places]`, in pixels."""

    centres: Tensor
    strides: Tensor


class Assignment(NamedTuple):
    """What each place shall learn."""

    positive: Tensor  # bool [batch, places]
    object: Tensor  # int64 [batch, places]: which object of the picture
    quality: Tensor  # float32 [batch, places] from 0 to 1, 0 where not positive


class Yolo(nn.Module):
    """One network, one pass: at each place of two feature maps (strides 8 and 16) a box and the classes' scores.

    The idea is that of Redmon et al. 2016: detection as one regression over a grid, end to end. From later papers:
    a residual backbone (Redmon & Farhadi 2018, table 1) with pyramid pooling (He et al. 2014), a top-down and bottom-up
    neck (Liu et al. 2018, figure 1), heads without anchors and apart for classes and boxes (Ge et al. 2021, section 2),
    and task-aligned assignment (Feng et al. 2021, section 3.2): an object is learned at the places inside it whose
    score and box are already the best for it. Losses: `classification`, binary cross-entropy with the alignment as the
    target; `box`, 1 - GIoU (Rezatofighi et al. 2019) times 2. Both are divided by the picture's sum of targets.

    Input `[batch, in_channels, height, width]` of any size from 32 on; see `headrace_models.detection.outputs`.
    453,566 parameters at three classes. To expect: docs/models/detection.md.

    Differs from YOLOv3 and later: two maps where they have three (large objects are few here, and a map less trains in
    less time), no mosaics of pictures, no distribution over distances.

    Args:
        width: channels of the first convolution; the maps have four times as many.
        depth: bottlenecks of each stage.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 16,
        depth: int = 1,
        activation: str = "silu",
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        a, w = activation, width
        self.stem = Convolution(in_channels, w, stride=2, activation=a)
        self.stage4 = Stage(w, 2 * w, depth, a)
        self.stage8 = Stage(2 * w, 4 * w, depth, a)
        self.stage16 = Stage(4 * w, 8 * w, depth, a)
        self.context = PyramidPool(8 * w, 4 * w, a)
        self.top_down = Convolution(4 * w, 4 * w, activation=a)
        self.bottom_up = Convolution(4 * w, 4 * w, stride=2, activation=a)
        self.heads = nn.ModuleList(Head(4 * w, num_classes, a) for _ in range(2))

    def forward(self, image: Tensor, targets: Targets | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`."""
        logits, boxes, places = self.predict(image)
        losses = None if targets is None else self.losses(logits, boxes, places, targets)
        if self.training:
            return DetectorOutput(losses, None)
        size = (image.shape[2], image.shape[3])
        return DetectorOutput(losses, select(boxes, logits.sigmoid(), self.threshold, size))

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor, Places]:
        """(logits [batch, places, classes], boxes [batch, places, 4], places), float32."""
        fine = self.stage8(self.stage4(self.stem(image)))
        coarse = self.context(self.stage16(fine))
        fine = self.top_down(fine + functional.interpolate(coarse, size=fine.shape[2:], mode="nearest"))
        coarse = coarse + self.bottom_up(fine)
        logits, boxes, centres, strides = [], [], [], []
        for head, x in zip(self.heads, (fine, coarse), strict=True):
            rows, columns = x.shape[2:]
            stride = (image.shape[2] / rows, image.shape[3] / columns)
            scores, shape = head(x)
            middle = cell_centres(rows, columns, stride, image.device)
            side = sum(stride) / 2
            size = shape[..., 2:].clamp(max=8.0).exp() * (SIZE * side)
            boxes.append(cornered(torch.cat([middle + shape[..., :2] * side, size], dim=-1)))
            logits.append(scores)
            centres.append(middle)
            strides.append(middle.new_full((len(middle),), side))
        return torch.cat(logits, 1), torch.cat(boxes, 1), Places(torch.cat(centres), torch.cat(strides))

    def losses(self, logits: Tensor, boxes: Tensor, places: Places, targets: Targets) -> dict[str, Tensor]:
        """Both losses, means over pictures."""
        given = assign(logits.detach().sigmoid(), boxes.detach(), places, targets)
        label = targets.labels.clamp(min=0).gather(1, given.object)
        wanted = torch.zeros_like(logits).scatter(2, label[..., None], given.quality[..., None])
        ignored = (inside(places, targets) & targets.ignored[..., None]).any(dim=1) & ~given.positive
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=2)
        whole = given.quality.sum(dim=1).clamp(min=1.0)
        true = targets.boxes.gather(1, given.object[..., None].expand(-1, -1, 4))
        apart = generalized_box_iou_loss(boxes, torch.where(given.positive[..., None], true, boxes.detach()))
        return {
            "classification": ((each * ~ignored).sum(dim=1) / whole).mean(),
            "box": BOX_WEIGHT * ((apart * given.quality).sum(dim=1) / whole).mean(),
        }


class PyramidPool(nn.Module):
    """What is around a place, near and far: max pools over 5, 9 and 13 places beside the place itself."""

    def __init__(self, inside: int, outside: int, activation: str) -> None:
        super().__init__()
        half = max(1, inside // 2)
        self.reduce = Convolution(inside, half, 1, activation=activation)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.join = Convolution(4 * half, outside, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inside, height, width]` to `[batch, outside, height, width]`."""
        levels = [self.reduce(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        joined: Tensor = self.join(torch.cat(levels, dim=1))
        return joined


class Head(nn.Module):
    """Scores and boxes of one feature map, from a convolution each."""

    def __init__(self, channels: int, num_classes: int, activation: str) -> None:
        super().__init__()
        self.classes = nn.Sequential(
            Convolution(channels, channels, activation=activation), nn.Conv2d(channels, num_classes, 1)
        )
        self.boxes = nn.Sequential(Convolution(channels, channels, activation=activation), nn.Conv2d(channels, 4, 1))
        for last, bias in ((self.classes[-1], -math.log((1 - PRIOR) / PRIOR)), (self.boxes[-1], 0.0)):
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [batch, places, classes], (x, y, log w, log h) [batch, places, 4]), float32."""
        logits, shape = (part(x).float().flatten(2).transpose(1, 2) for part in (self.classes, self.boxes))
        return logits, shape


def inside(places: Places, targets: Targets) -> Tensor:
    """Whether the centre of a place lies in an object or near its centre, bool `[batch, objects, places]`."""
    low, high = targets.boxes[..., None, :2], targets.boxes[..., None, 2:]
    centre = places.centres
    within = ((centre > low) & (centre < high)).all(dim=-1)
    near = ((centre - (low + high) / 2).abs() < NEAR * places.strides[:, None]).all(dim=-1)
    return within | near


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, places: Places, targets: Targets) -> Assignment:
    """Which place learns which object, and how good it is at it already.

    Args:
        scores: [batch, places, classes].
        boxes: [batch, places, 4].
    """
    of_class = scores.transpose(1, 2).gather(
        1, targets.labels.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    )  # [batch, objects, places]
    shared = overlap(targets.boxes, boxes).clamp(min=1e-4)
    able = inside(places, targets) & targets.wanted[..., None]
    alignment = of_class**ALPHA * shared**BETA * able
    best, where = alignment.topk(min(MOST_PLACES, alignment.shape[2]), dim=2)
    chosen = torch.zeros_like(able).scatter(2, where, best > 0) & able
    owner = torch.where(chosen, shared, -1.0).argmax(dim=1)  # a place that two objects want goes to the nearer one
    positive = chosen.any(dim=1)
    chosen &= torch.zeros_like(chosen).scatter(1, owner[:, None], positive[:, None])
    aligned = alignment * chosen
    peak = aligned.amax(dim=2, keepdim=True).clamp(min=1e-30)
    quality = (aligned / peak * (shared * chosen).amax(dim=2, keepdim=True)).amax(dim=1)
    return Assignment(positive, owner, quality)
