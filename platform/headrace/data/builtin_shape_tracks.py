"""`builtin:shape-tracks`: 40 videos of 16 frames, 96 x 96, in which shapes wander, meet and hide each other (MOT).

Each video has two to four circles, squares and triangles that go straight on and turn back at the edge, each at its own
speed; later ones pass in front. Small enough that a detector learns it on a CPU, and hard enough for a tracker: objects
meet, are hidden for some frames, and come back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.data.builtin_shapes import CLASSES, NOISE, drawn_shape, other_colour
from headrace.data.builtin_voc import Object
from headrace.data.png import COLOUR, png_of

if TYPE_CHECKING:
    import numpy as np

SEQUENCES, FRAMES = 40, 16
SIDE = 96  # pixels
SMALLEST, LARGEST = 18, 32  # sides of shapes, pixels
FEWEST, MOST = 2, 4  # objects of a video
SLOWEST, FASTEST = 1, 4  # pixels a frame and direction
HIDDEN = 0.8  # share of a shape's pixels that others cover, from which on it is not annotated


def version() -> str:
    """See `BuiltinSet`."""
    return "shape-tracks 1"


def contents() -> Mapping[str, bytes]:
    """See `BuiltinSet`."""
    files: dict[str, bytes] = {}
    for number in range(SEQUENCES):
        folder, truth = f"video-{number:02d}", []
        for frame, (pixels, objects) in enumerate(video(random.Random(f"shape-tracks/{number}")), 1):
            files[f"{folder}/img1/{frame:06d}.png"] = png_of(pixels.tobytes(), SIDE, SIDE, COLOUR)
            truth += [_line(frame, track, drawn) for track, drawn in objects]
        files[f"{folder}/gt/gt.txt"] = "".join(truth).encode()
        files[f"{folder}/gt/labels.txt"] = "".join(f"{name}\n" for name in CLASSES).encode()
    return dict(sorted(files.items()))


def _line(frame: int, track: int, drawn: Object) -> str:
    width, height = drawn.right - drawn.left, drawn.bottom - drawn.top
    return f"{frame},{track},{drawn.left + 1},{drawn.top + 1},{width},{height},1,{CLASSES.index(drawn.name) + 1},1\n"


@dataclass
class _Wanderer:
    name: str
    shape: np.ndarray  # bool [height, width]
    colour: list[int]
    left: int
    top: int
    right_by: int
    down_by: int

    def go(self) -> None:
        """One frame on; the edge turns it back."""
        height, width = self.shape.shape
        self.left, self.right_by = _bounced(self.left + self.right_by, self.right_by, SIDE - width)
        self.top, self.down_by = _bounced(self.top + self.down_by, self.down_by, SIDE - height)

    @property
    def place(self) -> tuple[slice, slice]:
        height, width = self.shape.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def object(self) -> Object:
        height, width = self.shape.shape
        return Object(self.name, self.left, self.top, self.left + width, self.top + height)


def _bounced(place: int, step: int, most: int) -> tuple[int, int]:
    return (place, step) if 0 <= place <= most else (min(max(place, 0), most), -step)


def video(rng: random.Random) -> Iterator[tuple[np.ndarray, list[tuple[int, Object]]]]:
    """Each frame, uint8 [SIDE, SIDE, 3], with (track, object) of all that is seen of it."""
    import numpy as np

    ground = [rng.randrange(256) for _ in range(COLOUR)]
    wanderers = [_wanderer(rng, ground) for _ in range(rng.randint(FEWEST, MOST))]
    for _ in range(FRAMES):
        pixels = np.empty((SIDE, SIDE, COLOUR), np.int16)
        pixels[:] = ground
        whose = np.zeros((SIDE, SIDE), np.int64)
        for track, wanderer in enumerate(wanderers, 1):
            pixels[wanderer.place][wanderer.shape] = wanderer.colour
            whose[wanderer.place][wanderer.shape] = track
        seen = [(track, w) for track, w in enumerate(wanderers, 1) if _seen(whose, track, w) > 1 - HIDDEN]
        noise = np.frombuffer(rng.randbytes(pixels.size), np.uint8).reshape(pixels.shape)
        noisy = pixels + (noise % NOISE).astype(np.int16) - NOISE // 2
        yield np.clip(noisy, 0, 255).astype(np.uint8), [(track, wanderer.object) for track, wanderer in seen]
        for wanderer in wanderers:
            wanderer.go()


def _seen(whose: np.ndarray, track: int, wanderer: _Wanderer) -> float:
    return float((whose == track).sum() / wanderer.shape.sum())


def _wanderer(rng: random.Random, ground: list[int]) -> _Wanderer:
    name = rng.choice(CLASSES)
    shape = drawn_shape(name, rng.randint(SMALLEST, LARGEST))
    height, width = shape.shape
    left, top = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
    steps = [rng.randint(SLOWEST, FASTEST) * rng.choice((-1, 1)) for _ in range(2)]
    return _Wanderer(name, shape, other_colour(ground, rng), left, top, *steps)
