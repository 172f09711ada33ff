"""Masks: from what a source has (class numbers in a PNG, polygons, run lengths) to one PNG of the schema's numbers.

A manifest holds where a mask is to be made from (`Origin` records), since classes get their numbers only when all the
data has been seen. A pixel belongs to a polygon if its centre does.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.data.annotations import BadAnnotation, Drawn
from headrace.data.picture_files import upright_pixels
from headrace.data.png import png_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]  # [height, width]

BACKGROUND, UNCOUNTED = 0, 255
MOST_CLASSES = UNCOUNTED - 1  # that a mask can tell apart
FEWEST_NUMBERS = 6  # of a polygon: three corners
FARTHEST = 1e6  # pixels

VOC_CLASSES = (  # the devkit's numbers, from 1
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class MaskFile:
    """A PNG of class numbers as it was found: `path` in the source, size as (height, width), the numbers it holds."""

    path: str
    sha256: str
    size: tuple[int, int]
    numbers: frozenset[int]

    def origin(self, path: str, names: Sequence[str]) -> dict[str, Any]:
        """Its record in a manifest; PATH is relative to the picture, which has objects of the classes NAMES.

        Numbers are places in the sorted classes, except where they are the devkit's own of the picture's very objects:
        a part of VOC's data has those, whatever classes are left in it.
        """
        devkit = {VOC_CLASSES.index(name) + 1: name for name in names if name in VOC_CLASSES}
        counted = self.numbers - {BACKGROUND, UNCOUNTED}
        numbers = (
            {"numbers": {str(n): devkit[n] for n in sorted(counted)}} if counted and counted <= set(devkit) else {}
        )
        return {"path": path, "sha256": self.sha256, **numbers}

    def doubts(
        self, origin: Mapping[str, Any], classes: Sequence[str], names: Sequence[str]
    ) -> tuple[list[int], list[tuple[int, str]]]:
        """The numbers that stand for none of CLASSES, and those for a class that is not among NAMES, with it."""
        if "numbers" in origin:
            return [], []
        known = dict(enumerate(classes, 1))
        counted = sorted(self.numbers - {BACKGROUND, UNCOUNTED})
        others = [(number, known[number]) for number in counted if number in known and known[number] not in names]
        return [number for number in counted if number not in known], others


def read_file(content: bytes, path: str, uri: str) -> MaskFile:
    """Look at the mask CONTENT at URI. Raises BadAnnotation if it is no picture of one number a pixel."""
    import numpy as np

    pixels = _numbers(content, uri)
    height, width = pixels.shape
    found = frozenset(np.unique(pixels).tolist())
    return MaskFile(path, hashlib.sha256(content).hexdigest(), (height, width), found)


def shapes_origin(objects: Sequence[Drawn], size: tuple[int, int]) -> dict[str, Any]:
    """The record of a mask drawn from the shapes of OBJECTS in a picture of SIZE (height, width).

    Raises:
        BadAnnotation: an object has no shape, or one that cannot be drawn.
    """
    shapes = []
    for drawn in objects:
        if drawn.mask is None:
            raise BadAnnotation(f"{drawn.uri} has no segmentation")
        try:
            shapes.append([None if drawn.crowd else drawn.name, _checked(drawn.mask, size)])
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise BadAnnotation(f"the segmentation of {drawn.uri} cannot be read: {error}") from error
    return {"size": list(size), "shapes": shapes}


def rendered(origin: Mapping[str, Any], content: bytes, classes: Sequence[str], uri: str) -> bytes:
    """The PNG of ORIGIN's mask; CONTENT is its file at URI, where it has one. Its `turn` is EXIF's orientation."""
    import numpy as np

    if "shapes" in origin:
        pixels = _drawn(origin, classes)
    else:
        table = np.full(256, UNCOUNTED, np.uint8)
        table[BACKGROUND] = BACKGROUND
        numbers = origin.get("numbers") or {number + 1: name for number, name in enumerate(classes)}
        for number, name in numbers.items():
            table[int(number)] = classes.index(name) + 1
        pixels = table[_numbers(content, uri)]
    pixels = upright_pixels(pixels, int(origin.get("turn", 1)))
    return png_of(pixels.tobytes(), *pixels.shape)


def polygon(ring: Sequence[float], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The pixels whose centre lies in RING (x and y by turns), bool [height, width]; inside is by the even-odd rule."""
    import numpy as np

    corners = np.asarray(ring, float).reshape(-1, 2)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, 0).T
    centres = np.arange(height) + 0.5
    edges, rows = np.nonzero((y0[:, None] <= centres) != (y1[:, None] <= centres))
    x = x0[edges] + (centres[rows] - y0[edges]) * (x1[edges] - x0[edges]) / (y1[edges] - y0[edges])
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return np.asarray(crossings[:, :-1].cumsum(1) % 2 == 1)


def run_lengths(counts: Sequence[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """COCO's run lengths as bool [height, width]: runs go down the columns, the first one outside."""
    import numpy as np

    inside = np.arange(len(counts)) % 2 == 1
    return np.asarray(np.repeat(inside, counts).reshape(width, height).T)


def unpacked(text: str) -> list[int]:
    """The run lengths that COCO packs into TEXT: 5 bits a character from "0" on, the 6th bit says that more follow, and
    from the third run on the difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} in run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _checked(mask: Any, size: tuple[int, int]) -> Any:
    """COCO's segmentation as a manifest holds it: a list of rings, or {"counts": [...]}."""
    if isinstance(mask, Mapping):
        counts = mask["counts"]
        counts = unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if tuple(mask["size"]) != size or min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
            raise ValueError(f"run lengths of {mask['size']} for {list(size)}")
        return {"counts": counts}
    rings = [[round(float(number), 2) for number in ring] for ring in mask]
    if not rings or any(len(ring) < FEWEST_NUMBERS or len(ring) % 2 for ring in rings):
        raise ValueError("a polygon of fewer than three corners")
    if not all(abs(number) < FARTHEST for ring in rings for number in ring):  # NaN is not, either
        raise ValueError("a corner that is not a number, or nowhere near a picture")
    return rings


def _drawn(origin: Mapping[str, Any], classes: Sequence[str]) -> Pixels:
    """The smallest objects on top, as they would else be lost."""
    import numpy as np

    height, width = origin["size"]
    layers = []
    for name, shape in origin["shapes"]:
        if isinstance(shape, Mapping):
            inside = run_lengths(shape["counts"], height, width)
        else:
            inside = np.logical_or.reduce([polygon(ring, height, width) for ring in shape])
        layers.append((inside, UNCOUNTED if name is None else classes.index(name) + 1))
    pixels = np.full((height, width), BACKGROUND, np.uint8)
    for inside, number in sorted(layers, key=lambda layer: -int(layer[0].sum())):
        pixels[inside] = number
    return pixels


def _numbers(content: bytes, uri: str) -> Pixels:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in ("L", "P"):
                raise BadAnnotation(f"its mask {uri} has colours (mode {image.mode}); wanted: class numbers (L or P)")
            return np.asarray(image)
    except BadAnnotation:
        raise
    except Exception as error:  # as picture_files.look: Pillow's decoders raise what they will
        raise BadAnnotation(f"its mask {uri} cannot be decoded: {error or type(error).__name__}") from error
