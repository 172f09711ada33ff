"""`builtin:digit-scenes`: scikit-learn's 1,797 digits, each placed and scaled at random on a noisy ground (VOC).

Grey pictures of 32 x 32 with one box and a mask of the digit's own pixels: one set for classification, detection,
segmentation and all of them at once.
"""

from __future__ import annotations

import random
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from headrace.data import builtin_digits
from headrace.data.builtin_digits import LEVELS
from headrace.data.builtin_digits import SIDE as DIGIT_SIDE
from headrace.data.builtin_voc import Object, sheet
from headrace.data.png import GREY, png_of

if TYPE_CHECKING:
    import numpy as np

SIDE = 32  # pixels
SMALLEST, LARGEST = 14, 26  # sides to which a digit's 8 x 8 are scaled, pixels
INK = 6  # grey levels of 16 from which a pixel belongs to the digit
DARKEST, BRIGHTEST = 20, 90  # of the ground
NOISE = 60  # levels by which pixels differ from their grey, evenly from -30 to 29
BACKGROUND = 0  # in masks; a digit's pixels hold the digit plus 1


def version() -> str:
    """See `BuiltinSet`."""
    return f"digit-scenes 1, {builtin_digits.version()}"


def contents() -> Mapping[str, bytes]:
    """See `BuiltinSet`."""
    return scenes(range(10))


def scenes(digits: Container[int]) -> Mapping[str, bytes]:
    """The files of the set that are of DIGITS."""
    files = {}
    for number, row in enumerate(builtin_digits.digits().astype(int)):
        digit = int(row[-1])
        if digit not in digits:
            continue
        pixels, inside = scene(row[:-1].reshape(DIGIT_SIDE, DIGIT_SIDE), random.Random(f"digit-scenes/{number}"))
        stem = f"{number:05d}"
        drawn = _framed(str(digit), inside)
        files[f"Annotations/{stem}.xml"] = sheet(f"{stem}.png", SIDE, SIDE, GREY, [drawn])
        files[f"JPEGImages/{stem}.png"] = png_of(pixels.tobytes(), SIDE, SIDE)
        mask = (inside * (digit + 1)).astype("uint8")
        files[f"SegmentationClass/{stem}.png"] = png_of(mask.tobytes(), SIDE, SIDE)
    return dict(sorted(files.items()))


def scene(digit: np.ndarray, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """DIGIT, int [8, 8] of 0 to 16, in a picture: uint8 [SIDE, SIDE], and which of its pixels are ink, bool."""
    import numpy as np

    side = rng.randint(SMALLEST, LARGEST)
    large, scale = _enlarged(digit, side)
    left, top = rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)
    ground = rng.randint(DARKEST, BRIGHTEST)
    strength = rng.randint(130, 255 - BRIGHTEST)
    pixels = np.full((SIDE, SIDE), ground, np.int64)
    pixels[top : top + side, left : left + side] += large * strength // (scale * LEVELS)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + side, left : left + side] = large >= INK * scale
    noise = np.frombuffer(rng.randbytes(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE)
    noisy = pixels + (noise % NOISE).astype(np.int64) - NOISE // 2
    return np.clip(noisy, 0, 255).astype(np.uint8), inside


def _enlarged(digit: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """DIGIT scaled to [SIDE, SIDE] between its pixels' centres, in whole numbers, and by what they are too large."""
    import numpy as np

    position = np.clip((2 * np.arange(side) + 1) * DIGIT_SIDE - side, 0, 2 * side * (DIGIT_SIDE - 1))
    low, part = np.divmod(position, 2 * side)  # position in units of 1 / (2 side) pixels
    high = np.minimum(low + 1, DIGIT_SIDE - 1)
    rows = digit[low] * (2 * side - part)[:, None] + digit[high] * part[:, None]
    both = rows[:, low] * (2 * side - part)[None] + rows[:, high] * part[None]
    return both, (2 * side) ** 2


def _framed(name: str, inside: np.ndarray) -> Object:
    """The box around the pixels that are INSIDE."""
    import numpy as np

    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return Object(name, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
