"""`builtin:shapes`: 240 colour pictures of 96 x 96 with one to four circles, squares and triangles on noise (VOC).

Small enough that a detector learns it on a CPU in a minute, and yet all there is to detection: several objects of
several classes and sizes, some half hidden by others, in a picture that is not clean.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.data.builtin_voc import Object, sheet
from headrace.data.png import COLOUR, png_of

if TYPE_CHECKING:
    import numpy as np

CLASSES = ("circle", "square", "triangle")
PICTURES = 240
SIDE = 96  # pixels
SMALLEST, LARGEST = 14, 40  # sides of shapes, pixels
MOST_OBJECTS = 4
MOST_OVERLAP = 0.35  # share of the smaller of two boxes that may lie in the other
CONTRAST = 90  # least difference between a shape and the background in one channel at least
NOISE = 40  # levels by which pixels differ from their colour, evenly from -20 to 19


def version() -> str:
    """See `BuiltinSet`."""
    return "shapes 1"


def contents() -> Mapping[str, bytes]:
    """See `BuiltinSet`."""
    files = {}
    for number in range(PICTURES):
        pixels, objects = scene(random.Random(f"shapes/{number}"))
        name = f"{number:03d}.png"
        files[f"Annotations/{number:03d}.xml"] = sheet(name, SIDE, SIDE, COLOUR, objects)
        files[f"JPEGImages/{name}"] = png_of(pixels.tobytes(), SIDE, SIDE, COLOUR)
    return dict(sorted(files.items()))


def scene(rng: random.Random) -> tuple[np.ndarray, list[Object]]:
    """A picture, uint8 [SIDE, SIDE, 3], and its objects; later ones lie on top."""
    import numpy as np

    ground = [rng.randrange(256) for _ in range(COLOUR)]
    pixels = np.empty((SIDE, SIDE, COLOUR), np.int16)
    pixels[:] = ground
    objects: list[Object] = []
    for _ in range(rng.randint(1, MOST_OBJECTS)):
        name = rng.choice(CLASSES)
        shape = drawn_shape(name, rng.randint(SMALLEST, LARGEST))
        height, width = shape.shape
        left, top = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        drawn = Object(name, left, top, left + width, top + height)
        if any(drawn.overlap(other) > MOST_OVERLAP for other in objects):
            continue
        objects.append(drawn)
        pixels[top : top + height, left : left + width][shape] = other_colour(ground, rng)
    noise = np.frombuffer(rng.randbytes(pixels.size), np.uint8).reshape(pixels.shape)
    return np.clip(pixels + (noise % NOISE).astype(np.int16) - NOISE // 2, 0, 255).astype(np.uint8), objects


def drawn_shape(name: str, side: int) -> np.ndarray:
    """The pixels of a shape, bool [height, width], without empty rows or columns."""
    import numpy as np

    rows, columns = np.mgrid[:side, :side]
    if name == "square":
        inside = np.ones((side, side), bool)
    elif name == "circle":
        inside = (2 * rows + 1 - side) ** 2 + (2 * columns + 1 - side) ** 2 <= side**2
    else:  # a triangle with its tip up: as wide as it is far down
        inside = 2 * np.abs(2 * columns + 1 - side) <= 2 * rows + 1
    return np.asarray(inside[inside.any(1)][:, inside.any(0)])


def other_colour(ground: list[int], rng: random.Random) -> list[int]:
    """A colour that stands out from GROUND."""
    while True:
        colour = [rng.randrange(256) for _ in range(COLOUR)]
        if max(abs(value - other) for value, other in zip(colour, ground, strict=True)) >= CONTRAST:
            return colour
