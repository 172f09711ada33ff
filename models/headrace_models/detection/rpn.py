"""Region proposal networks: boxes that may hold an object, learned on anchors (Ren et al. 2015, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms, clip_boxes_to_image

from headrace_models.detection.boxes import cell_centres, cornered, offsets, overlap, shifted
from headrace_models.detection.outputs import Targets
from headrace_models.detection.regions import Sampling, choose, hidden

LEARNED = Sampling(256, 0.5, positive=0.7, negative=0.3)
BETA = 1 / 9  # where the smooth L1 becomes straight; the authors' code
SMALLEST = 1e-3  # pixels a side


class Proposing(NamedTuple):
    """What becomes of a network's boxes."""

    candidates: int  # the best of each feature map go into the suppression
    kept: int  # and so many of a picture come out
    overlap: float = 0.7


def anchors_of(features: Tensor, sizes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """A box of each of SIZES [n, 2] (width, height) at each place of FEATURES, row by row: [places * n, 4]."""
    rows, columns = features.shape[2:]
    centres = cell_centres(rows, columns, (image_size[0] / rows, image_size[1] / columns), features.device)
    shape = (len(centres), len(sizes), 2)
    boxes = torch.cat([centres[:, None].expand(shape), sizes.to(features.device)[None].expand(shape)], dim=-1)
    return cornered(boxes.reshape(-1, 4))


@torch.no_grad()
def propose(
    logits: Tensor, by: Tensor, anchors: Sequence[Tensor], rule: Proposing, image_size: tuple[int, int]
) -> Tensor:
    """The boxes that most probably hold an object, float32 [batch, rule.kept, 4]; rows of zeros are padding.

    Args:
        logits: [batch, A], of all feature maps one after the other.
        by: [batch, A, 4], offsets from the anchors.
        anchors: those of each feature map, [A of the map, 4].
    """
    counts = [len(each) for each in anchors]
    boxes = clip_boxes_to_image(shifted(torch.cat(list(anchors)), by), image_size)
    result: Tensor = boxes.new_zeros((len(boxes), rule.kept, 4))
    for row, (own, scores) in enumerate(zip(boxes, logits.float(), strict=True)):
        best, maps, start = [], [], 0
        for number, count in enumerate(counts):
            top = scores[start : start + count].topk(min(rule.candidates, count)).indices + start
            best.append(top)
            maps.append(torch.full_like(top, number))
            start += count
        place, level = torch.cat(best), torch.cat(maps)
        solid = ((own[place, 2:] - own[place, :2]) >= SMALLEST).all(dim=1)
        place, level = place[solid], level[solid]
        kept = place[batched_nms(own[place], scores[place], level, rule.overlap)[: rule.kept]]
        result[row, : len(kept)] = own[kept]
    return result


def proposal_losses(
    logits: Tensor, by: Tensor, anchors: Tensor, targets: Targets, rule: Sampling, *, at_random: bool
) -> dict[str, Tensor]:
    """`objectness`: binary cross-entropy; `proposal_box`: smooth L1 of the offsets of anchors that hold an object.

    An anchor holds the object that it overlaps with by rule.positive, and each object has the anchors that overlap
    with it most. Both losses are divided by the anchors that a picture learns; means over pictures.
    """
    with torch.no_grad():
        true = torch.where(targets.wanted[..., None], targets.boxes, 0.0)
        shared = overlap(true, anchors)  # [batch, objects, anchors]
        best, owner = shared.max(dim=1)
        peak = shared.amax(dim=2, keepdim=True)
        nearest = ((shared == peak) & (peak > 0)).any(dim=1)
        positive = (best >= rule.positive) | nearest
        negative = (best < rule.negative) & ~positive & ~hidden(anchors, targets)
        some, others = choose(positive, negative, rule, at_random=at_random)
        wanted = offsets(true.gather(1, owner[..., None].expand(-1, -1, 4)), anchors)
    used = some | others
    whole = used.sum(dim=1).clamp(min=1)
    each = functional.binary_cross_entropy_with_logits(logits.float(), some.float(), reduction="none")
    by = by.float()
    off = functional.smooth_l1_loss(
        by, torch.where(some[..., None], wanted, by.detach()), reduction="none", beta=BETA
    ).sum(dim=2)
    return {
        "objectness": ((each * used).sum(dim=1) / whole).mean(),
        "proposal_box": (off.sum(dim=1) / whole).mean(),
    }
