"""Random variation of pictures with boxes: whatever moves the pixels moves the boxes.

An example holds `image` uint8 [channels, height, width] and, each where there is any, `boxes` float32 [M, 4] with
`ignore` bool [M], and `proposals` float32 [P, 4]; boxes are (x1, y1, x2, y2) in its pixels.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image

from headrace_models.tasks.base import Example

SCALES = (0.7, 1.5)  # of a zoom
LEAST_SEEN = 0.3  # of an object: with less of it left in the picture, nobody is asked to find it


def mirrored(example: Example) -> Example:
    """Left is right."""
    width = example["image"].shape[2]
    return {**example, "image": example["image"][:, :, ::-1], **_moved(example, (-1.0, 1.0), (width, 0.0))}


def upside_down(example: Example) -> Example:
    """Top is bottom."""
    height = example["image"].shape[1]
    return {**example, "image": example["image"][:, ::-1], **_moved(example, (1.0, -1.0), (0.0, height))}


def zoomed(example: Example, rng: random.Random, fill: tuple[int, ...]) -> Example:
    """Larger or smaller by a factor of SCALES, and moved at random; what comes into view has the colour FILL."""
    pixels: np.ndarray = example["image"]
    _, height, width = pixels.shape
    scale = math.exp(rng.uniform(*map(math.log, SCALES)))
    left, top = (rng.uniform(*sorted((0.0, side * (1 - scale)))) for side in (width, height))
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    moved = np.asarray(
        image.transform(
            (width, height),
            Image.Transform.AFFINE,
            (1 / scale, 0, -left / scale, 0, 1 / scale, -top / scale),
            resample=Image.Resampling.BILINEAR,
            fillcolor=fill[0] if len(pixels) == 1 else fill,
        )
    )
    image_now = moved[None] if moved.ndim == 2 else moved.transpose(2, 0, 1)
    return cut({**example, "image": image_now, **_moved(example, (scale, scale), (left, top))}, width, height)


def _moved(example: Example, factor: tuple[float, float], offset: tuple[float, float]) -> Example:
    """The boxes of EXAMPLE, x and y times FACTOR plus OFFSET."""
    moved: Example = {}
    for name in ("boxes", "proposals"):
        if name in example:
            boxes = example[name].reshape(-1, 2, 2) * np.array(factor, np.float32) + np.array(offset, np.float32)
            moved[name] = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
    if "proposals" in moved:  # rows of zeros are padding and stay so
        moved["proposals"][(example["proposals"] == 0).all(axis=1)] = 0
    return moved


def cut(example: Example, width: int, height: int) -> Example:
    """EXAMPLE with its boxes clipped to WIDTH and HEIGHT.

    Objects of which less than LEAST_SEEN of the area is left are marked to be ignored; those with nothing vanish.
    `seen` [M], where it is there, has the shares that were left before, and then those that are left.
    """
    limit = np.array([width, height, width, height], np.float32)
    result = dict(example)
    if "proposals" in example:
        clipped = example["proposals"].clip(0, limit)
        clipped[(clipped[:, 2:] - clipped[:, :2]).min(axis=1, initial=np.inf) < 1] = 0
        result["proposals"] = clipped
    if "boxes" in example:
        whole = example["boxes"]
        clipped = whole.clip(0, limit)
        seen = _area(clipped) / np.maximum(_area(whole), 1e-6) * example.get("seen", 1.0)
        left = seen > 0
        if "seen" in example:
            result["seen"] = seen[left]
        result |= {name: example[name][left] for name in ("labels", "crowd", "tracks") if name in example}
        result["boxes"] = clipped[left]
        result["ignore"] = example["ignore"][left] | (seen[left] < LEAST_SEEN)
    return result


def _area(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas
