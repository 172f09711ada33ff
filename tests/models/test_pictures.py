"""Every kind of picture that people have is decoded to what one sees, and alike in training and serving."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace_models.tasks import BadInput, Sample, Schema, Task, build_task
from headrace_models.tasks.pictures import decode, fit, moments

GREY = np.linspace(0, 255, 12 * 10).reshape(12, 10).astype(np.uint8)
COLOUR = np.stack([GREY, GREY.T.reshape(12, 10), 255 - GREY], axis=2)
ALPHA = np.full((12, 10), 255, np.uint8)
ALPHA[:6] = 0


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_with_transparency() -> bytes:
    image = Image.fromarray(COLOUR).quantize(16)
    return saved(image, transparency=0)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(GREY.astype(np.uint16) * 257)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(COLOUR), exif=exif)


def grey_with_key(key: int) -> bytes:
    """A grey PNG one of whose levels is transparent (tRNS)."""
    return saved(Image.fromarray(GREY), transparency=key)


MODES: dict[str, Callable[[], bytes]] = {
    "1": lambda: saved(Image.fromarray(GREY > 99)),
    "L": lambda: saved(Image.fromarray(GREY)),
    "LA": lambda: saved(Image.fromarray(np.dstack([GREY, ALPHA]))),
    "P": lambda: saved(Image.fromarray(COLOUR).quantize(64)),
    "P, transparent": palette_with_transparency,
    "P, grey": lambda: saved(Image.fromarray(GREY).convert("P")),
    "RGB": lambda: saved(Image.fromarray(COLOUR)),
    "RGBA": lambda: saved(Image.fromarray(np.dstack([COLOUR, ALPHA]))),
    "L, transparent": lambda: grey_with_key(0),
    "RGB, transparent": lambda: saved(Image.fromarray(COLOUR), transparency=tuple(int(v) for v in COLOUR[0, 0])),
    "I;16": lambda: saved(sixteen_bits()),
    "I;16 TIFF": lambda: saved(sixteen_bits(), "TIFF"),
    "I": lambda: saved(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"),
    "F 0..1": lambda: saved(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"),
    "F 0..255": lambda: saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "F other": lambda: saved(Image.fromarray(GREY.astype(np.float32) * 7 - 300), "TIFF"),
    "CMYK": lambda: saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95),
    "YCbCr": lambda: saved(Image.fromarray(COLOUR), "JPEG", quality=95),
    "LAB": lambda: saved(Image.fromarray(COLOUR).convert("LAB"), "TIFF"),
    "grey JPEG": lambda: saved(Image.fromarray(GREY), "JPEG", quality=95),
    "animated GIF": lambda: saved(
        Image.fromarray(COLOUR), "GIF", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
    ),
    "animated WebP": lambda: saved(
        Image.fromarray(COLOUR), "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - COLOUR)]
    ),
    "BMP": lambda: saved(Image.fromarray(COLOUR), "BMP"),
    "EXIF": lambda: turned(6),
}

SEEN_AS_GREY = {"1", "L", "LA", "P, grey", "L, transparent", "I;16", "I;16 TIFF", "I", "F 0..1", "F 0..255", "F other"}
SEEN_AS_GREY |= {"grey JPEG"}


@pytest.fixture
def tasks() -> list[Task]:
    """Both numbers of channels, with pictures resized."""
    found = []
    for channels in (1, 3):
        task = build_task({"name": "image-classification"}, Schema("label", ("a", "b")))
        task.preprocessing = {"image_size": [8, 16], "channels": channels, "mean": [0.5] * 3, "std": [1.0] * 3}
        found.append(task)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_training_and_serving_decode_a_picture_to_the_same_bytes(mode: str, tasks: list[Task]) -> None:
    sample = Sample("x", MODES[mode](), {"label": "b"})
    for task in tasks:
        trained = task.decode(sample)
        served = task.preprocess(task.request([sample]))
        channels = task.preprocessing["channels"]
        assert trained["image"].dtype == np.uint8
        assert trained["image"].shape == (channels, 8, 16)
        assert trained["label"] == 1
        assert np.array_equal(served["image"].numpy()[0], trained["image"])


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_grey_where_its_mode_is(mode: str) -> None:
    assert decode(MODES[mode]()).mode == ("L" if mode in SEEN_AS_GREY else "RGB")


@pytest.mark.parametrize("mode", ["I;16", "I;16 TIFF", "I", "F 0..1", "F 0..255", "F other", "L"])
def test_deep_grey_is_scaled_to_eight_bits(mode: str) -> None:
    assert np.array_equal(np.asarray(decode(MODES[mode]())), GREY)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_shows_white(mode: str) -> None:
    pixels = np.asarray(decode(MODES[mode]()))
    assert (pixels[:6] == 255).all()
    assert np.array_equal(pixels[6:], (GREY if mode == "LA" else COLOUR)[6:])


def test_half_transparency_is_half_white() -> None:
    image = Image.fromarray(np.dstack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 128, np.uint8)]))
    assert np.asarray(decode(saved(image)))[0, 0].tolist() == [127, 127, 127]


def test_a_transparent_level_or_colour_shows_white() -> None:
    grey = np.asarray(decode(MODES["L, transparent"]()))
    assert (grey[GREY == 0] == 255).all()
    assert np.array_equal(grey[GREY > 0], GREY[GREY > 0])
    colour = np.asarray(decode(MODES["RGB, transparent"]()))
    hidden = (COLOUR[0, 0] == COLOUR).all(axis=2)
    assert (colour[hidden] == 255).all()
    assert np.array_equal(colour[~hidden], COLOUR[~hidden])


def test_a_palettes_transparent_entry_shows_white() -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    shown = np.asarray(decode(palette_with_transparency()))
    places = np.asarray(image)
    assert (shown[places == 0] == 255).all()
    assert np.array_equal(shown[places > 0], np.asarray(image.convert("RGB"))[places > 0])


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, COLOUR),
        (2, COLOUR[:, ::-1]),
        (3, COLOUR[::-1, ::-1]),
        (4, COLOUR[::-1]),
        (5, COLOUR.transpose(1, 0, 2)),
        (6, np.rot90(COLOUR, -1)),
        (7, np.rot90(COLOUR, 2).transpose(1, 0, 2)),
        (8, np.rot90(COLOUR, 1)),
    ],
)
def test_a_turned_camera_does_not_turn_the_picture(orientation: int, seen: np.ndarray) -> None:
    assert np.array_equal(np.asarray(decode(turned(orientation))), seen)


@pytest.mark.parametrize("mode", ["animated GIF", "animated WebP"])
def test_of_an_animation_the_first_frame_counts(mode: str) -> None:
    assert np.abs(np.asarray(decode(MODES[mode]())).astype(int) - COLOUR).mean() < 12


def test_cmyk_comes_back_near_its_colours() -> None:
    assert np.abs(np.asarray(decode(MODES["CMYK"]())).astype(int) - COLOUR).mean() < 12


def test_moments_are_those_of_the_pixels() -> None:
    image = Image.fromarray(COLOUR)
    pixels = np.concatenate([np.asarray(image.convert("L"))[..., None], COLOUR], axis=2).reshape(-1, 4) / 255
    assert np.allclose(moments(image), [pixels.mean(axis=0), (pixels**2).mean(axis=0)])


def test_a_picture_is_shrunk_without_aliasing() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = fit(decode(saved(Image.fromarray(stripes))), 1, (8, 8))
    assert small.shape == (1, 8, 8)
    assert abs(small.astype(int) - 128).max() < 16


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        saved(Image.fromarray(COLOUR))[:60],
        saved(Image.fromarray(COLOUR), "JPEG")[:-120],
        b"GIF89a" + bytes(20),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_what_is_no_whole_picture_is_refused_in_a_sentence(data: bytes, tasks: list[Task]) -> None:
    with pytest.raises(BadInput) as raised:
        tasks[0].decode(Sample("x", data, {"label": "a"}))
    assert "picture" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (10_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        with pytest.warns() if side == 10_000 else pytest.MonkeyPatch.context(), pytest.raises(BadInput) as raised:
            decode(bomb)
        assert "more than 89,478,485 pixels" in str(raised.value)
