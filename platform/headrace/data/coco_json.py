"""Reads a COCO annotation file piece by piece: what is not wanted of it (polygons, mostly) is never held all at once.

COCO's own instances_train2017.json is 450 MB of text and would be several GB of Python objects.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Any, NamedTuple

from headrace.data.annotations import BadAnnotation

_WHITESPACE = re.compile(r"[ \t\n\r]*")
PARTS = ("images", "annotations", "categories")


class Written(NamedTuple):
    """An annotation as the file has it, values of any type."""

    id: Any
    category: Any
    box: Any
    crowd: Any
    ignore: Any
    segmentation: Any


@dataclass
class CocoFile:
    """One file. `images` are the entries as written; `annotations` those of an image by its id; `lost` belong to none.

    `twice` are ids of images that come again; the first one counts.
    """

    categories: dict[Any, str] = field(default_factory=dict)
    images: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    annotations: dict[Any, list[Written]] = field(default_factory=lambda: defaultdict(list))
    twice: list[Any] = field(default_factory=list)

    def lost(self) -> Iterator[tuple[Any, Written]]:
        """Annotations of images that the file does not have, with the image's id."""
        return (
            (image, found) for image, every in self.annotations.items() if image not in self.images for found in every
        )


def read_coco(text: str, *, segmentations: bool) -> CocoFile | None:
    """The file TEXT, or None if it is JSON of another kind (captions, a list, settings).

    Raises:
        BadAnnotation: it is not JSON.
    """
    found, parts = CocoFile(), set()
    for key, value in _top_level(text):
        parts.add(key)
        if not isinstance(value, dict):
            continue
        if key == "categories":
            found.categories[_key(value.get("id"))] = str(value.get("name") or "")
        elif key == "images":
            identity = _key(value.get("id"))
            if identity in found.images:
                found.twice.append(identity)
            found.images.setdefault(identity, {k: value.get(k) for k in ("file_name", "height", "width")})
        elif key == "annotations":
            found.annotations[_key(value.get("image_id"))].append(_written(value, segmentations))
    return found if parts.issuperset(PARTS) else None


def _written(value: Mapping[str, Any], segmentations: bool) -> Written:
    segmentation = value.get("segmentation") if segmentations else None
    crowd, ignore = value.get("iscrowd"), value.get("ignore")
    return Written(value.get("id"), _key(value.get("category_id")), value.get("bbox"), crowd, ignore, segmentation)


def _key(value: Any) -> Any:
    """VALUE as an id: whole numbers and text as they are."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) else repr(value)


def _top_level(text: str) -> Iterator[tuple[str, Any]]:
    """The keys of the object TEXT, each with its value; a list's elements one by one, after (key, None) for itself.

    JSON that is no object has none.
    """
    decode = JSONDecoder().raw_decode
    try:
        place = _next(text, 0)
        if text[place] != "{":
            decode(text, place)
            return
        place = _next(text, place + 1)
        while text[place] != "}":
            key, place = decode(text, place)
            if not isinstance(key, str):
                raise JSONDecodeError("a key is no text", text, place)
            place = _expect(text, place, ":")
            if text[place] == "[":
                yield key, None
                place = _next(text, place + 1)
                while text[place] != "]":
                    value, place = decode(text, place)
                    yield key, value
                    place = _after_item(text, place, "]")
                place = _after_item(text, place + 1, "}")
            else:
                value, place = decode(text, place)
                yield key, value
                place = _after_item(text, place, "}")
    except JSONDecodeError as error:
        raise BadAnnotation(f"no JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise BadAnnotation(f"no JSON that can be read: {error}") from error
    except IndexError as error:
        raise BadAnnotation("no JSON: it ends too early") from error
    except RecursionError as error:
        raise BadAnnotation("no JSON that can be read: it is nested too deep") from error


def _next(text: str, place: int) -> int:
    found = _WHITESPACE.match(text, place)
    return found.end() if found else place


def _expect(text: str, place: int, mark: str) -> int:
    place = _next(text, place)
    if text[place] != mark:
        raise JSONDecodeError(f"{mark!r} is missing", text, place)
    return _next(text, place + 1)


def _after_item(text: str, place: int, end: str) -> int:
    """Where the next item begins, or the mark END."""
    place = _next(text, place)
    return place if text[place] == end else _expect(text, place, ",")
