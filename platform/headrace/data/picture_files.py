"""What a picture file must be asked before it may be split: can all of it be decoded, and how large is it upright."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.data.annotations import Box

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

ORIENTATION = 0x0112  # of EXIF; 1 is upright
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations that swap height and width


@dataclass(frozen=True)
class Look:
    """`problem` is why the file cannot be used, or None; `size` is (height, width) as stored."""

    problem: str | None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) once EXIF's orientation is applied."""
        return self.size[::-1] if self.orientation in ON_ITS_SIDE else self.size


def turned(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """BOX of a picture stored in SIZE (height, width), in the picture laid upright by ORIENTATION (EXIF's)."""
    left, top, right, bottom = box
    height, width = size
    if orientation in (2, 3, 7, 8):  # x is mirrored
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):  # y is mirrored
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation in ON_ITS_SIDE else (left, top, right, bottom)


def upright_pixels(pixels: Pixels, orientation: int) -> Pixels:
    """PIXELS [height, width], laid upright by ORIENTATION (EXIF's)."""
    pixels = pixels[:, ::-1] if orientation in (2, 3, 7, 8) else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 6, 7) else pixels
    return pixels.T if orientation in ON_ITS_SIDE else pixels


def look(content: bytes) -> Look:
    """Decode the whole of CONTENT and tell."""
    from PIL import Image, UnidentifiedImageError

    from headrace_models.tasks.pictures import MOST_PIXELS

    if not content:
        return Look("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                return Look(f"it has more than {MOST_PIXELS:,} pixels")
            image.load()
            if not width * height:
                return Look("it has no pixels")
            return Look(None, (height, width), _orientation(image))
    except UnidentifiedImageError:
        return Look("it is not an image that Pillow knows")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        return Look(f"it cannot be decoded: {error or type(error).__name__}")


def _orientation(image: object) -> int:
    """EXIF's orientation, 1 to 8; 1 where it is absent or broken: the pixels are not wrong for that."""
    try:
        found = image.getexif().get(ORIENTATION, 1)  # type: ignore[attr-defined]
    except Exception:  # a broken EXIF block, as tasks/pictures.py takes it
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
