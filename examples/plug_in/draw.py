"""Draws pictures of dots to count, in folders called by how many there are: `python draw.py dots 600`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

MOST = 5
SIDE = 32  # pixels


def dots(count: int, rng: random.Random) -> Image.Image:
    """COUNT bright dots that do not touch, on a dark noisy ground."""
    picture = Image.new("L", (SIDE, SIDE))
    picture.putdata([rng.randint(0, 60) for _ in range(SIDE * SIDE)])
    pen, cells = ImageDraw.Draw(picture), [(x, y) for x in range(0, SIDE, 8) for y in range(0, SIDE, 8)]
    for x, y in rng.sample(cells, count):
        left, top = x + rng.randint(1, 2), y + rng.randint(1, 2)
        pen.ellipse((left, top, left + 4, top + 4), fill=rng.randint(180, 255))
    return picture


def main(folder: Path, pictures: int) -> None:
    """Draw PICTURES into FOLDER, as many of each number."""
    rng = random.Random(7)
    for number in range(pictures):
        target = folder / str(number % (MOST + 1)) / f"{number:05d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        dots(number % (MOST + 1), rng).save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
