"""Random variation of pictures, and of masks with them."""

from __future__ import annotations

import random

import numpy as np

from headrace_models.tasks.base import Example


def varied(example: Example, kind: str, rng: random.Random) -> Example:
    """EXAMPLE with its `image` `[channels, height, width]`, and its `mask` `[height, width]` if it has one, mirrored
    (KIND flip), moved by up to an eighth of the size (shift), or both (crop-flip); what comes into view repeats the
    edge."""
    moved: Example = {name: example[name] for name in ("image", "mask") if name in example}
    if kind in ("flip", "crop-flip") and rng.random() < 0.5:
        moved = {name: pixels[..., ::-1] for name, pixels in moved.items()}
    if kind in ("shift", "crop-flip"):
        height, width = example["image"].shape[1:]
        down, right = (max(1, size // 8) for size in (height, width))
        top, left = rng.randint(0, 2 * down), rng.randint(0, 2 * right)
        for name, pixels in moved.items():
            edges = [(0, 0)] * (pixels.ndim - 2) + [(down, down), (right, right)]
            padded = np.pad(pixels, edges, mode="edge")
            moved[name] = padded[..., top : top + height, left : left + width]
    return {**example, **moved}
