"""What a picture's annotation is, in one form whatever file it came from, and how a bad one is mended and told of.

Tasks get `sample.labels["annotation"]`, a dict:

    size        [height, width] of the upright picture, in pixels
    boxes       [[x1, y1, x2, y2], ...] in pixels of the upright picture; x2 and y2 are the first pixel beyond the box
    names       the class of each box
    difficult   [bool, ...] where the source marks objects that do not count when a detector is judged
    crowd       [bool, ...] where the source marks boxes around many objects (COCO's iscrowd)
    tracks      [int, ...], sequence, frame   where the pictures are a video
    mask        bytes of a PNG of mode L and the upright picture's size, where a task wants masks: 0 background, k for
                `schema.classes[k - 1]`, 255 for pixels that do not count

Lists run over the boxes; `difficult` and `crowd` are absent where all are false. The manifest holds it as compact JSON
with sorted keys, `mask` there being where the mask is to be read from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.data.masks import MaskFile

LABEL = "annotation"  # the label's name in schemas and manifests
TOLERANCE = 1.0  # pixels by which boxes reach out of a picture without a word: sets count pixels from 0 or from 1
MOST_SHOWN = 60  # characters of a name in a message

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Note = Callable[[str, str, str], None]  # uri, reason, action


class BadAnnotation(ValueError):
    """An annotation that says nothing of its picture: broken, or not one. The message is the reason."""


@dataclass(frozen=True)
class Drawn:
    """One object as an annotation file has it, not yet judged.

    `uri` names it for people. `problem` is why the format could make no box of it. `mask` is what its shape is made
    from, if the format has one and masks are wanted.
    """

    uri: str
    name: str
    box: Box | None = None
    problem: str = ""
    difficult: bool = False
    crowd: bool = False
    track: int | None = None
    mask: Any = None


@dataclass(frozen=True)
class Annotated:
    """What an annotation file says of one picture.

    `uri` is the annotation's; `size` is (height, width) as written there, None if it is not; `mask` is the file of the
    picture's mask, where masks are wanted and files; `more` are further keys of the record (`sequence`, `frame`);
    `tells_size` is false for formats that have no place for a size.
    """

    uri: str
    objects: Sequence[Drawn]
    size: tuple[int, int] | None = None
    mask: MaskFile | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    tells_size: bool = True


def sound(annotated: Annotated, size: tuple[int, int], note: Note) -> list[Drawn]:
    """The usable objects of ANNOTATED in a picture of SIZE (height, width), clipped to it; NOTE hears of the rest."""
    kept: dict[tuple[Any, ...], Drawn] = {}
    for drawn in annotated.objects:
        problem, clipped = _judged(drawn, size)
        if clipped is not None and problem:
            note(drawn.uri, problem, "clipped")
        elif clipped is None:
            note(drawn.uri, problem, "dropped")
        if clipped is None or clipped.box is None:
            continue
        same = (clipped.name, clipped.box, clipped.track)
        if same in kept:
            note(drawn.uri, f"{_what(drawn)} a second time", "dropped")
        else:
            kept[same] = clipped
    return list(kept.values())


def to_text(size: tuple[int, int], objects: Sequence[Drawn], more: Mapping[str, Any]) -> str:
    """The manifest's JSON of OBJECTS (each with a box) in a picture of SIZE (height, width), with the keys of MORE."""
    record: dict[str, Any] = {"size": list(size), "boxes": [_plain(drawn.box) for drawn in objects]}
    record["names"] = [drawn.name for drawn in objects]
    if any(drawn.difficult for drawn in objects):
        record["difficult"] = [drawn.difficult for drawn in objects]
    if any(drawn.crowd for drawn in objects):
        record["crowd"] = [drawn.crowd for drawn in objects]
    if any(drawn.track is not None for drawn in objects):
        record["tracks"] = [drawn.track for drawn in objects]
    return json.dumps({**record, **more}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def names_in(text: str) -> list[str]:
    """The classes of the objects in a manifest's annotation TEXT."""
    names: list[str] = json.loads(text)["names"]
    return names


def _judged(drawn: Drawn, size: tuple[int, int]) -> tuple[str, Drawn | None]:
    """What is wrong with DRAWN, and what of it can be used."""
    if drawn.problem:
        return f"{_shown(drawn.name) or 'an object'}: {drawn.problem}", None
    if not drawn.name:
        return "an object without a class", None
    if drawn.box is None or not all(math.isfinite(side) for side in drawn.box):
        return f"{_what(drawn)} is not four numbers", None
    left, top, right, bottom = drawn.box
    if right <= left or bottom <= top:
        return f"{_what(drawn)} has no area", None
    height, width = size
    box = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"{_what(drawn)} lies outside of the picture of {width} x {height}", None
    reach = max(abs(before - after) for before, after in zip(drawn.box, box, strict=True))
    kept = replace(drawn, box=box)
    return (f"{_what(drawn)} reaches out of the picture of {width} x {height}" if reach > TOLERANCE else ""), kept


def _what(drawn: Drawn) -> str:
    sides = ", ".join(f"{side:g}" for side in drawn.box or ())
    return f"{_shown(drawn.name)}: the box [{sides}]"


def _shown(name: str) -> str:
    return name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}..."


def _plain(box: Box | None) -> list[float]:
    """BOX with at most 3 digits behind the point: JSON's 17 would be most of a manifest."""
    return [round(side, 3) for side in box or ()]
