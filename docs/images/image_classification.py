"""Draws docs/images/image-classification.svg: the structure of each image classifier of the zoo, one row a system.

python docs/images/image_classification.py > docs/images/image-classification.svg
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTH, ROW, TOP, LEFT = 1040, 92, 46, 150
COLOURS = {
    "conv": ("#eef2ff", "#6366f1"),
    "pool": ("#f3f4f6", "#9ca3af"),
    "linear": ("#f0fdf4", "#16a34a"),
    "fixed": ("#fffbeb", "#d97706"),
    "aux": ("#fdf2f8", "#db2777"),
}


@dataclass(frozen=True)
class Box:
    """One part: its words, its kind, and whether a shortcut leads around it."""

    words: str
    kind: str
    shortcut: bool = False


def conv(words: str, *, shortcut: bool = False) -> Box:
    """A stage of convolutions."""
    return Box(words, "conv", shortcut)


POOL = Box("pool", "pool")

SYSTEMS = (
    ("low-level features", (Box("HOG, LBP,\ncolours, GLCM", "fixed"), Box("scale", "fixed"), Box("linear", "linear"))),
    (
        "nearest neighbours",
        (
            Box("HOG, LBP,\ncolours, GLCM", "fixed"),
            Box("scale", "fixed"),
            Box("distances to all\ntraining pictures", "fixed"),
            Box("k nearest vote", "fixed"),
        ),
    ),
    (
        "AlexNet",
        (
            conv("11x11 /4\n64"),
            POOL,
            conv("5x5\n192"),
            POOL,
            conv("3x3 x3\n384 256 256"),
            POOL,
            Box("4096", "linear"),
            Box("4096", "linear"),
            Box("classes", "linear"),
        ),
    ),
    (
        "VGG 11 to 19",
        (
            conv("3x3 x1-2\n64"),
            POOL,
            conv("x1-2\n128"),
            POOL,
            conv("x2-4\n256"),
            POOL,
            conv("x2-4\n512"),
            POOL,
            conv("x2-4\n512"),
            POOL,
            Box("4096 x2", "linear"),
            Box("classes", "linear"),
        ),
    ),
    (
        "GoogLeNet",
        (
            conv("7x7 /2\n1x1, 3x3"),
            POOL,
            conv("inception\n3a 3b"),
            POOL,
            conv("inception\n4a"),
            Box("side head,\nin training", "aux"),
            conv("inception\n4b 4c 4d"),
            Box("side head,\nin training", "aux"),
            conv("4e, pool\n5a 5b"),
            Box("classes", "linear"),
        ),
    ),
    (
        "ResNet 18 to 152",
        (
            conv("7x7 /2\n64"),
            POOL,
            conv("64\nx2-3", shortcut=True),
            conv("128\nx2-8", shortcut=True),
            conv("256\nx2-36", shortcut=True),
            conv("512\nx2-3", shortcut=True),
            Box("mean", "pool"),
            Box("classes", "linear"),
        ),
    ),
    (
        "CIFAR ResNet",
        (
            conv("3x3\n16"),
            conv("16\nxn", shortcut=True),
            conv("32\nxn", shortcut=True),
            conv("64\nxn", shortcut=True),
            Box("mean", "pool"),
            Box("classes", "linear"),
        ),
    ),
)


def text(x: float, y: float, words: str, anchor: str = "middle", weight: str = "normal") -> str:
    """Lines of text around Y."""
    lines = words.split("\n")
    start = y - 8 * (len(lines) - 1)
    return "".join(
        f'<text x="{x:g}" y="{start + 16 * i:g}" font-size="12" font-weight="{weight}" fill="#1f2937" '
        f'text-anchor="{anchor}">{line}</text>'
        for i, line in enumerate(lines)
    )


def row(place: int, name: str, boxes: tuple[Box, ...]) -> list[str]:
    """One system, from picture to classes."""
    middle = TOP + ROW * place + ROW / 2
    step = (WIDTH - LEFT - 20) / len(boxes)
    out = [text(14, middle + 4, name, "start", "bold")]
    for index, box in enumerate(boxes):
        x, wide = LEFT + index * step, step - 14
        fill, line = COLOURS[box.kind]
        out.append(
            f'<rect x="{x:g}" y="{middle - 24:g}" width="{wide:g}" height="48" rx="7" fill="{fill}" stroke="{line}"/>'
        )
        out.append(text(x + wide / 2, middle + 5, box.words))
        if index:
            out.append(f'<path d="M{x - 14:g},{middle:g} h13" stroke="#6b7280" stroke-width="2"/>')
        if box.shortcut:
            out.append(
                f'<path d="M{x - 7:g},{middle:g} v-36 h{wide + 14:g} v36" fill="none" stroke="#6366f1" '
                'stroke-width="1.5" stroke-dasharray="4 3"/>'
            )
    return out


def main() -> None:
    """Print the drawing."""
    height = TOP + ROW * len(SYSTEMS) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(14, 26, "[batch, channels, height, width]", "start"),
        text(WIDTH - 20, 26, "[batch, classes]", "end"),
    ]
    for place, (name, boxes) in enumerate(SYSTEMS):
        out += row(place, name, boxes)
    print("\n".join([*out, "</svg>"]))


if __name__ == "__main__":
    main()
