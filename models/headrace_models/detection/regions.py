"""What detectors share that look at regions: which of them are learned, what is lost on them, what is found in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from headrace.base.errors import InvalidInput
from headrace_models.detection.boxes import area, covered, offsets, overlap, shifted
from headrace_models.detection.outputs import PADDING, Detections, Targets, Threshold, select

SCALE = (10.0, 10.0, 5.0, 5.0)  # of offsets: about their deviations' inverse (Girshick 2015, section 2.3: variance 1)
HIDDEN = 0.5  # share of a region in an ignored object from which it is no background
GOLDEN = 0.6180339887498949


class Sampling(NamedTuple):
    """Which regions of a picture are learned."""

    most: int = 64
    share: float = 0.25  # of them positive, at most
    positive: float = 0.5  # IoU with an object from which a region is that object's
    negative: float = 0.5  # and below which with all of them it is background


class Sampled(NamedTuple):
    """R regions of each picture to be learned."""

    boxes: Tensor  # float32 [batch, R, 4]
    true: Tensor  # float32 [batch, R, 4]: the object that overlaps most
    label: Tensor  # int64 [batch, R]: 0 is background, then the classes; -1 is no region


def needed(proposals: Tensor | None, name: str) -> Tensor:
    """PROPOSALS. Raises InvalidInput where there are none."""
    if proposals is None:
        raise InvalidInput(
            f"{name} finds no regions itself, and was given none",
            action="set proposals: selective-search in the task's arguments",
        )
    return proposals


def hidden(boxes: Tensor, targets: Targets) -> Tensor:
    """Whether half of each of BOXES `[..., n, 4]` lies in an object that counts for nothing, bool [batch, n]."""
    inside = covered(boxes, targets.boxes).masked_fill(~targets.ignored[:, None], 0.0)
    return (inside >= HIDDEN).any(dim=2)


@torch.no_grad()
def choose(positive: Tensor, negative: Tensor, rule: Sampling, *, at_random: bool) -> tuple[Tensor, Tensor]:
    """Of POSITIVE and NEGATIVE, bool [batch, n], those to be learned: RULE's share, and up to its most.

    Without chance they are spread evenly, the same ones each time, so that losses of evaluations can be compared.
    """
    if at_random:
        key = torch.rand(positive.shape, device=positive.device)
    else:
        spread = torch.arange(positive.shape[1], device=positive.device, dtype=torch.float64) * GOLDEN % 1
        key = spread.expand(positive.shape)

    def first(able: Tensor, most: Tensor) -> Tensor:
        rank = key.masked_fill(~able, 2.0).argsort(dim=1).argsort(dim=1)
        return able & (rank < most[:, None])

    some = first(positive, torch.full_like(positive[:, 0], round(rule.most * rule.share), dtype=torch.int64))
    return some, first(negative, rule.most - some.sum(dim=1))


@torch.no_grad()
def sample(proposals: Tensor, targets: Targets, rule: Sampling, *, at_random: bool) -> Sampled:
    """The regions to be learned of PROPOSALS [batch, P, 4] (rows of zeros are none) and of the objects themselves."""
    true = torch.where(targets.wanted[..., None], targets.boxes, 0.0)
    boxes = torch.cat([proposals, true], dim=1)
    solid = area(boxes) > 0
    best, owner = overlap(true, boxes).max(dim=1)
    positive = solid & (best >= rule.positive)
    negative = solid & (best < rule.negative) & ~hidden(boxes, targets)
    some, others = choose(positive, negative, rule, at_random=at_random)
    label = torch.where(some, targets.labels.gather(1, owner) + 1, 0).masked_fill(~(some | others), PADDING)
    order = (some | others).int().argsort(dim=1, descending=True, stable=True)[:, : rule.most]
    rows = order[..., None].expand(-1, -1, 4)
    owned = owner.gather(1, order)[..., None].expand(-1, -1, 4)
    return Sampled(boxes.gather(1, rows), true.gather(1, owned), label.gather(1, order))


def classification_loss(scores: Tensor, sampled: Sampled) -> Tensor:
    """Cross-entropy of SCORES [batch, R, 1 + classes], the background first: mean over regions, then over pictures."""
    used = sampled.label != PADDING
    each = functional.cross_entropy(scores.float().transpose(1, 2), sampled.label.clamp(min=0), reduction="none")
    return ((each * used).sum(dim=1) / used.sum(dim=1).clamp(min=1)).mean()


def box_loss(by: Tensor, sampled: Sampled, beta: float) -> Tensor:
    """Smooth L1 of the offsets BY [batch, R, classes, 4] of each object's own class, divided by the picture's regions
    (Girshick 2015, equations 1 to 3: both losses have the same number below); mean over pictures."""
    used, positive = sampled.label != PADDING, sampled.label > 0
    own = (sampled.label - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, 4)
    mine = by.float().gather(2, own).squeeze(2)
    wanted = torch.where(positive[..., None], offsets(sampled.true, sampled.boxes, SCALE), mine.detach())
    off = functional.smooth_l1_loss(mine, wanted, reduction="none", beta=beta).sum(dim=2)
    return (off.sum(dim=1) / used.sum(dim=1).clamp(min=1)).mean()


def found_in(boxes: Tensor, scores: Tensor, by: Tensor, threshold: Threshold, size: tuple[int, int]) -> Detections:
    """The detections in the regions BOXES [batch, P, 4] (rows of zeros are none).

    Args:
        scores: [batch, P, classes] from 0 to 1.
        by: [batch, P, classes, 4], offsets for each class.
    """
    solid = area(boxes) > 0
    moved = shifted(boxes[:, :, None].expand(by.shape), by, SCALE)
    return select(moved, scores * solid[..., None], threshold, size)


def as_rows(boxes: Tensor, factor: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """BOXES [batch, R, 4] as torchvision's pooling takes them, float32 [batch * R, 5]: the picture's number first;
    x and y times FACTOR."""
    batch, count = boxes.shape[:2]
    number = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(-1, count, 1)
    return torch.cat([number, boxes * boxes.new_tensor(factor * 2)], dim=2).reshape(-1, 5).float()


def solid_rows(boxes: Tensor) -> Tensor:
    """The rows of BOXES `[batch, R, 4]`, counted over the batch, that are no padding: int64 `[n]`. One at least, since
    a layer cannot normalise nothing."""
    solid = (area(boxes) > 0).flatten()
    solid[0] |= ~solid.any()
    return solid.nonzero().squeeze(1)


def in_place(values: Tensor, rows: Tensor, boxes: Tensor) -> Tensor:
    """VALUES `[n, ...]` of the ROWS of BOXES `[batch, R, 4]` as `[batch, R, ...]`, zeros elsewhere."""
    batch, count = boxes.shape[:2]
    every = values.new_zeros((batch * count, *values.shape[1:]))
    return every.index_copy(0, rows, values).view(batch, count, *values.shape[1:])


def onto(features: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """What x and y in a picture of SIZE (height, width) are multiplied by to be places of FEATURES."""
    return features.shape[3] / size[1], features.shape[2] / size[0]
