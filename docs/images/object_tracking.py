"""Draws object-tracking.svg: python docs/images/object_tracking.py > docs/images/object-tracking.svg"""

from svg import AMBER, BLUE, GREEN, GREY, arrow, box, page, text

STEPS = [
    (40, "frames", "one clip,\nin their order", GREY),
    (230, "detector", "any of the zoo:\nboxes, scores, classes", BLUE),
    (460, "tracker", "joins boxes of frames\nto numbered tracks", GREEN),
    (690, "answer", "boxes, classes,\ntrack numbers", GREY),
]
WIDTHS = (150, 190, 190, 150)
SORT = [
    ("predict", "each track's box,\nKalman, constant velocity"),
    ("assign", "Hungarian on IoU,\nabove iou_threshold"),
    ("update", "tracks with their box;\nnew ones begin"),
    ("forget", "after max_age frames\nwithout a box"),
]
BYTE = [
    ("predict", "as SORT"),
    ("strong boxes", "score ≥ high:\nto all tracks"),
    ("weak boxes", "low ≤ score < high: to tracks\nof the frame before"),
    ("remember", "lost tracks for\nbuffer frames"),
]


def row(y: float, name: str, parts: list[tuple[str, str]], colours: tuple[str, str]) -> str:
    """One tracker's work on a frame."""
    drawn = text(40, y + 40, name, 16, "bold", anchor="start")
    for place, (title, does) in enumerate(parts):
        x = 150 + 190 * place
        drawn += box(x, y, 170, 84, title, does, colours)
        if place:
            drawn += arrow((x - 20, y + 42), (x - 2, y + 42))
    return drawn


def main() -> None:
    """Print the drawing."""
    parts = [text(450, 34, "Object tracking: a detector, and a tracker that learns nothing", 18, "bold")]
    for place, ((x, name, does, colours), width) in enumerate(zip(STEPS, WIDTHS, strict=True)):
        parts.append(box(x, 60, width, 84, name, does, colours))
        if place:
            before = STEPS[place - 1][0] + WIDTHS[place - 1]
            parts.append(arrow((before + 4, 102), (x - 2, 102)))
    parts += [row(190, "SORT", SORT, GREEN), row(310, "ByteTrack", BYTE, AMBER)]
    print(page(920, 420, *parts))


if __name__ == "__main__":
    main()
