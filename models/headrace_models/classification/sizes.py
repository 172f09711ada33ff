"""How networks made for pictures of 224 pixels come down to small ones, by one rule for all of them.

Channels are multiplied by `width`. A picture whose shorter side has fewer than SMALL pixels cannot bear five halvings:
the first convolution then keeps the size, and of the halvings that follow the first fall out, until LEAST pixels
are left at the end. From SMALL pixels on a network has the shape of its source, weights of the same names and sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

SMALL = 64  # pixels
LEAST = 2  # pixels of the shorter side before the classifier

FULL_SIZE = (224, 224)


def scaled(channels: int, width: float) -> int:
    """CHANNELS times WIDTH, whole and at least 1."""
    return max(1, round(channels * width))


def is_small(image_size: Sequence[int]) -> bool:
    """Whether a picture of IMAGE_SIZE (height, width) is below SMALL."""
    return min(image_size) < SMALL


def halvings(image_size: Sequence[int], most: int) -> int:
    """How often a picture of IMAGE_SIZE (height, width) can be halved, at most MOST times; MOST if it is not small."""
    if not is_small(image_size):
        return most
    side, count = min(image_size), 0
    while count < most and side // 2 >= LEAST:
        side, count = side // 2, count + 1
    return count


def pool_or_nothing(pool: nn.Module, place: int, most: int, kept: int) -> nn.Module:
    """POOL, the one at PLACE (from 0) of MOST, or nothing where it is not among the last KEPT."""
    return pool if place >= most - kept else nn.Identity()
