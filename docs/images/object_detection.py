"""Draws docs/images/object-detection.svg: the structure of each detector of the zoo, one row a system.

python docs/images/object_detection.py > docs/images/object-detection.svg
"""

from __future__ import annotations

from dataclasses import dataclass

from svg import AMBER, BLUE, GREEN, GREY, arrow, page, text

WIDTH, ROW, TOP, LEFT = 1100, 104, 50, 150
GAP = 26  # between parts


@dataclass(frozen=True)
class Part:
    """One part of a system: its words, its colours, how much wider than others it is."""

    words: str
    colours: tuple[str, str]
    wide: float = 1.0


def network(words: str, wide: float = 1.0) -> Part:
    """Layers with weights that see the picture."""
    return Part(words, BLUE, wide)


def regions(words: str, wide: float = 1.0) -> Part:
    """Where objects may be: fixed or found."""
    return Part(words, AMBER, wide)


def answer(words: str, wide: float = 1.0) -> Part:
    """What is said of each region."""
    return Part(words, GREEN, wide)


NMS = Part("suppress\ndoubles", GREY, 0.8)

SYSTEMS = (
    (
        "R-CNN",
        (
            regions("selective search\nboxes", 1.2),
            Part("cut and warp\neach", GREY),
            network("network,\nonce a box"),
            answer("an SVM a class,\nbox regression", 1.2),
            NMS,
        ),
    ),
    (
        "Fast R-CNN",
        (
            network("network,\nonce a picture", 1.2),
            regions("selective search\nboxes", 1.2),
            Part("RoI pool", GREY, 0.8),
            answer("linear layers:\nclass, box", 1.2),
            NMS,
        ),
    ),
    (
        "Faster R-CNN",
        (
            network("network,\nonce a picture", 1.2),
            regions("region proposals:\nlearned, on anchors", 1.3),
            Part("RoI align", GREY, 0.8),
            answer("linear layers:\nclass, box", 1.2),
            NMS,
        ),
    ),
    (
        "SSD300, VGG16",
        (
            network("VGG16\nto conv4_3"),
            network("conv5, 6, 7"),
            network("conv8 to 11:\n10, 5, 3, 1 places", 1.2),
            regions("6 maps,\n8,732 boxes"),
            answer("3x3 each:\nclass, box"),
            NMS,
        ),
    ),
    (
        "SSD, small",
        (
            network("stem\n/2"),
            network("stages\n/4 to /32"),
            network("top-down path"),
            regions("4 maps, boxes of\nthe data's sizes", 1.2),
            answer("3x3 each:\nclass, box"),
            NMS,
        ),
    ),
    (
        "YOLO v1",
        (
            network("24 convolutions\n/64", 1.2),
            network("linear\n4096"),
            network("linear\n7 x 7 x 30"),
            regions("49 cells,\n2 boxes each"),
            answer("x, y, w, h, sure;\none class a cell", 1.2),
            NMS,
        ),
    ),
    (
        "YOLO, small",
        (
            network("stem, stages\n/2 to /16", 1.1),
            network("pyramid\npool"),
            network("top-down and\nbottom-up path", 1.1),
            regions("2 maps,\na box a place"),
            answer("two heads:\nclass / box"),
            NMS,
        ),
    ),
)


def row(place: int, name: str, parts: tuple[Part, ...]) -> str:
    """One system, from the picture to its boxes."""
    middle = TOP + ROW * place + ROW / 2
    unit = (WIDTH - LEFT - 20 - GAP * len(parts)) / sum(part.wide for part in parts)
    out, x = [text(14, middle + 5, name, 14, "bold", anchor="start")], float(LEFT)
    for part in parts:
        fill, line = part.colours
        out.append(arrow((x, middle), (x + GAP - 2, middle)))
        x += GAP
        width = unit * part.wide
        out.append(
            f'<rect x="{x:.1f}" y="{middle - 30:g}" width="{width:.1f}" height="60" rx="8" fill="{fill}" '
            f'stroke="{line}"/>'
        )
        lines = part.words.count("\n") + 1
        out.append(text(round(x + width / 2, 1), middle + 5 - 8.5 * (lines - 1), part.words))
        x += width
    return "".join(out)


def main() -> None:
    """Print the drawing."""
    legend = (("the picture's layers", BLUE), ("where objects may be", AMBER), ("what is said of each", GREEN))
    head = [
        text(14, 28, "picture in", anchor="start"),
        text(WIDTH - 20, 28, "boxes, classes, scores out", anchor="end"),
    ]
    for place, (words, (fill, line)) in enumerate(legend):
        x = 220 + 210 * place
        head.append(f'<rect x="{x}" y="15" width="18" height="18" rx="4" fill="{fill}" stroke="{line}"/>')
        head.append(text(x + 26, 28, words, anchor="start"))
    rows = [row(place, name, parts) for place, (name, parts) in enumerate(SYSTEMS)]
    print(page(WIDTH, TOP + ROW * len(SYSTEMS) + 10, *head, *rows))


if __name__ == "__main__":
    main()
