"""Encoded pictures to arrays, the same way in training, evaluation and serving.

What people have in folders comes in a dozen Pillow modes; each becomes grey (`L`) or colour (`RGB`) of 8 bits here:

    EXIF orientation      applied
    transparency          put on white (alpha channels, palettes and tRNS alike)
    palette               its colours; grey if they all are
    1 bit                 0 and 255
    16 bits (I;16), I     0..65535 to 0..255
    F (32-bit floats)     0..1 times 255 where all lie there; else as they are in 0..255; else their own range to 0..255
    CMYK, YCbCr, LAB, HSV to RGB
    animations            the first frame

Only formats in FORMATS are opened, and no picture of more than MOST_PIXELS is decoded (a small file can unpack to
gigabytes).
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from headrace_models.tasks.base import BadInput

FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
MOST_PIXELS = 89_478_485  # Pillow's own limit of 256 MiB as 24 bits: more is taken for an attack

ORIENTATION = 0x0112  # of EXIF; 1 is upright

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def decode(data: bytes) -> Image.Image:
    """DATA as an upright picture of mode L or RGB.

    Raises:
        BadInput: not a picture, a truncated one, or one too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return to_grey_or_rgb(_upright(image))
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput(f"the picture has more than {MOST_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadInput(
            f"the data is not a picture that can be read ({len(data):,} bytes); allowed: PNG, JPEG, GIF, BMP, WebP, "
            "TIFF"
        ) from None
    except Exception as error:  # Pillow's decoders raise what they will on broken files
        raise BadInput(f"the picture cannot be decoded: {error or type(error).__name__}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block does not make the pixels wrong
        return image


def to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """IMAGE of any mode as L or RGB, transparency put on white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    grey = image.mode in GREY_MODES
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        elif image.mode == "1":
            image = image.convert("L")
        flat = image.convert("RGBA")
        white = Image.new("RGBA", flat.size, (255, 255, 255, 255))
        image, mode = Image.alpha_composite(white, flat).convert("RGB"), image.mode
    else:
        mode = image.mode
    if grey:
        return image.convert("L")
    image = image.convert("RGB")
    return image.convert("L") if mode in ("P", "PA") and _is_grey(image) else image


def _eight_bits(pixels: np.ndarray, mode: str) -> np.ndarray:
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if mode != "F":
        return np.rint(values.clip(0, 65_535) / 257).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    return np.rint(values).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels[..., :1] == pixels).all())


def fit(image: Image.Image, channels: int, size: tuple[int, int]) -> np.ndarray:
    """IMAGE (L or RGB) as uint8 `[channels, height, width]`, stretched to SIZE (height, width) without aliasing."""
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def moments(image: Image.Image) -> np.ndarray:
    """Mean and mean square, `[2, 4]`, of the picture's grey, red, green and blue from 0 to 1."""
    counts = np.array(image.convert("L").histogram() + image.convert("RGB").histogram()).reshape(4, 256)
    levels = np.arange(256) / 255.0
    totals: np.ndarray = np.stack([counts @ levels, counts @ levels**2]) / (image.width * image.height)
    return totals


def from_pixels(pixels: np.ndarray) -> Image.Image:
    """Raw uint8 pixels `[height, width, 1 or 3]` as a picture."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
