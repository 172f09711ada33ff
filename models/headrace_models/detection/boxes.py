"""Boxes as tensors: overlaps, the offsets that networks predict, and the sizes that are usual in a data set.

Boxes are (x1, y1, x2, y2). Offsets are (dx, dy, dw, dh) of a box from an anchor: the centre's shift in units of the
anchor's size, and the logarithm of the size's ratio (Girshick et al. 2014, appendix C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ROUNDS = 100  # of k-means, at most; it is done long before on the data of one set
LARGEST_GROWTH = math.log(1000 / 16)  # of a side, so that a wild prediction stays a finite box


def area(boxes: Tensor) -> Tensor:
    """`[..., 4]` to `[...]`; 0 for boxes that are turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """The shared area of each of BOXES `[..., n, 4]` with each of OTHERS `[..., m, 4]`: `[..., n, m]`."""
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of each of BOXES `[..., n, 4]` with each of OTHERS `[..., m, 4]`: `[..., n, m]`, 0 for empty boxes."""
    shared = intersection(boxes, others)
    whole = area(boxes)[..., :, None] + area(others)[..., None, :] - shared
    return shared / whole.clamp(min=1e-9)


def covered(boxes: Tensor, others: Tensor) -> Tensor:
    """Which share of each of BOXES `[..., n, 4]` lies in each of OTHERS `[..., m, 4]`: `[..., n, m]`."""
    return intersection(boxes, others) / area(boxes)[..., :, None].clamp(min=1e-9)


def centred(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) as (centre x, centre y, width, height)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def cornered(boxes: Tensor) -> Tensor:
    """The inverse of `centred`."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def offsets(boxes: Tensor, anchors: Tensor, scale: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The offsets of BOXES `[..., 4]` from ANCHORS `[..., 4]`, times SCALE."""
    box, anchor = centred(boxes), centred(anchors)
    size = anchor[..., 2:].clamp(min=1e-3)
    shift = (box[..., :2] - anchor[..., :2]) / size
    growth = (box[..., 2:].clamp(min=1e-3) / size).log()
    return torch.cat([shift, growth], dim=-1) * shift.new_tensor(scale)


def shifted(anchors: Tensor, by: Tensor, scale: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The boxes whose `offsets` from ANCHORS are BY."""
    by = by.float() / by.new_tensor(scale, dtype=torch.float32)
    anchor = centred(anchors)
    centre = anchor[..., :2] + by[..., :2] * anchor[..., 2:]
    size = anchor[..., 2:] * by[..., 2:].clamp(max=LARGEST_GROWTH).exp()
    return cornered(torch.cat([centre, size], dim=-1))


def cell_centres(rows: int, columns: int, stride: tuple[float, float], device: torch.device) -> Tensor:
    """(x, y) of the centres of ROWS x COLUMNS cells of STRIDE (down, right) pixels, row by row: `[cells, 2]`."""
    y = (torch.arange(rows, device=device) + 0.5) * stride[0]
    x = (torch.arange(columns, device=device) + 0.5) * stride[1]
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1], grid[0]], dim=-1).reshape(-1, 2)


def usual_sizes(sizes: np.ndarray, count: int) -> np.ndarray:
    """COUNT (width, height) that SIZES `[n, 2]` gather around, smallest area first, `[count, 2]`.

    k-means with 1 - IoU as the distance (Redmon & Farhadi 2017, section 2), begun from equal shares by area, so that
    the same sizes give the same result. With fewer than COUNT different sizes some come out more than once.
    """
    sizes = sizes[np.lexsort((sizes[:, 1], sizes[:, 0], sizes.prod(axis=1)))].astype(np.float64)
    means = np.array([part.mean(axis=0) if len(part) else sizes[-1] for part in np.array_split(sizes, count)])
    nearest = np.full(len(sizes), -1)
    for _ in range(ROUNDS):
        shared = np.minimum(sizes[:, None], means[None]).prod(axis=2)
        ratio = shared / (sizes.prod(axis=1)[:, None] + means.prod(axis=1)[None] - shared)
        before, nearest = nearest, ratio.argmax(axis=1)
        if (before == nearest).all():
            break
        means = np.array([sizes[nearest == k].mean(axis=0) if (nearest == k).any() else means[k] for k in range(count)])
    order: np.ndarray = means[np.argsort(means.prod(axis=1), kind="stable")]
    return order
