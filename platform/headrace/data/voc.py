"""PASCAL VOC: one XML file a picture, beside it or in a folder of their own (Everingham et al. 2010, section 3).

    Annotations/NAME.xml with JPEGImages/NAME.*       the layout of VOC's own devkit, also below further folders
    NAME.xml with NAME.* in the same folder           as annotation tools write it
    SegmentationClass/NAME.png                        masks, read where a task wants them

VOC counts pixels from 1 and its boxes include their last pixel: xmin 1, xmax 640 is the whole width. So 1 is taken from
xmin and ymin. Sets that count from 0 lose nothing by that but a pixel at the edge.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from headrace.base.errors import DataInvalid, Finding
from headrace.data.annotated_pictures import AnnotatedPictures, Entry
from headrace.data.annotations import Annotated, BadAnnotation, Box, Drawn
from headrace.data.folder_layout import is_image
from headrace.data.formats import Named, Report, Request
from headrace.data.masks import read_file
from headrace.data.source import Source, SourceFile

ANNOTATIONS, PICTURES, SETS = "Annotations", "JPEGImages", "ImageSets"
MASKS, OTHER_MASKS = "SegmentationClass", "SegmentationObject"
SIDES = ("xmin", "ymin", "xmax", "ymax")


class Voc(AnnotatedPictures):
    """See the module."""

    name = "voc"

    def entries(self, source: Source, request: Request, report: Report) -> list[Entry]:
        """See `AnnotatedPictures.entries`."""
        files = source.files()
        sheets, pictures, others = sorted_out(files)
        masks = PictureFinder([file.path for file in files if MASKS in _folders(file)] if request.masks else [])
        if not sheets:
            raise DataInvalid(
                f"{source.address} holds no VOC annotation ({len(pictures):,} pictures, no .xml file)",
                action="give the folder that holds Annotations/ and JPEGImages/, or set data.format",
            )
        report.ignored += [Named(source.uri(path), "neither picture nor annotation") for path in others]
        finder = PictureFinder(pictures)
        taken: dict[str, str] = {}
        for sheet in sheets:
            path, reason = finder.picture_of(sheet)
            if path is not None and path in taken:
                reason = f"its picture {path} has an annotation already: {taken[path]}"
            if path is None or path in taken:
                report.leave_out(source.uri(sheet), reason)
                continue
            taken[path] = sheet
        bare = [path for path in pictures if path not in taken]
        report.ignored += [Named(source.uri(path), "a picture without annotation") for path in bare]
        _note_sets(files, report)
        return [
            Entry(path, partial(_read, source, sheet, masks.picture_of(sheet)[0]))
            for path, sheet in sorted(taken.items())
        ]


class PictureFinder:
    """Finds the picture that belongs to an annotation, by its name."""

    def __init__(self, pictures: Sequence[str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)  # path without suffix
        self._by_name: dict[str, list[str]] = defaultdict(list)  # last part of that
        for path in pictures:
            stem = str(PurePosixPath(path).with_suffix(""))
            self._by_stem[stem].append(path)
            self._by_name[PurePosixPath(stem).name].append(path)

    def picture_of(self, sheet: str) -> tuple[str | None, str]:
        """The path of the picture that the XML file at SHEET describes, or None and why there is none."""
        stem = PurePosixPath(sheet).with_suffix("")
        beside = [
            PurePosixPath(*(folder if p == ANNOTATIONS else p for p in stem.parts)) for folder in (PICTURES, MASKS)
        ]
        likely = [self._by_stem.get(str(path)) for path in (stem, *beside)]
        for found in (*likely, self._by_name.get(stem.name)):
            if found and len(found) == 1:
                return found[0], ""
            if found:
                return None, f"an annotation of {len(found)} pictures: {', '.join(found[:3])}"
        return None, "an annotation without picture"


def sorted_out(files: Sequence[SourceFile]) -> tuple[list[str], list[str], list[str]]:
    """The paths of annotations, of pictures and of all else among FILES, but for masks and lists of a split."""
    sheets, pictures, others = [], [], []
    for file in files:
        folders = _folders(file)
        if any(folder in (MASKS, OTHER_MASKS, SETS) for folder in folders):
            continue
        if file.path.lower().endswith(".xml"):
            sheets.append(file.path)
        elif is_image(file.path):
            pictures.append(file.path)
        else:
            others.append(file.path)
    return sheets, pictures, others


def _folders(file: SourceFile) -> tuple[str, ...]:
    return PurePosixPath(file.path).parts[:-1]


def parse(content: bytes, uri: str) -> Annotated:
    """What the XML file CONTENT at URI says. Raises BadAnnotation if it is broken or no VOC annotation."""
    try:
        root = ElementTree.fromstring(content)  # noqa: S314  (expat fetches nothing and bounds what entities grow to)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter for encodings
        raise BadAnnotation(f"its annotation {uri} is broken: {error}") from error
    if root.tag != "annotation":
        raise BadAnnotation(f"its annotation {uri} is <{root.tag}>, not <annotation>")
    objects = [_drawn(node, f"{uri}#{place}") for place, node in enumerate(root.findall("object"))]
    return Annotated(uri, objects, _size(root.find("size")))


def _read(source: Source, sheet: str, mask: str | None) -> Annotated:
    found = parse(source.read(sheet), source.uri(sheet))
    return found if mask is None else replace(found, mask=read_file(source.read(mask), mask, source.uri(mask)))


def _note_sets(files: Sequence[SourceFile], report: Report) -> None:
    """Tell of a split that comes with the data, which is not followed."""
    lists = [file.path for file in files if SETS in _folders(file)]
    if lists:
        given = f"{len(lists):,} lists of a split ({lists[0]}{', ...' if len(lists) > 1 else ''})"
        report.notes.append(Finding(f"{SETS}/", given, "", "not followed: Headrace splits as data.split says"))


def _size(node: ElementTree.Element | None) -> tuple[int, int] | None:
    """(height, width), or None if it is not there or zero, as some tools write it."""
    height, width = (_number(node, name) for name in ("height", "width"))
    return (int(height), int(width)) if height >= 1 and width >= 1 else None


def _drawn(node: ElementTree.Element, uri: str) -> Drawn:
    name = " ".join((node.findtext("name") or "").split())
    frame = node.find("bndbox")
    difficult = _number(node, "difficult") == 1
    if frame is None:
        return Drawn(uri, name, problem="it has no bndbox")
    sides = {side: _number(frame, side) for side in SIDES}
    left, top, right, bottom = sides.values()
    box: Box = (left - 1, top - 1, right, bottom)
    return Drawn(uri, name, box, _degenerate(frame, sides), difficult)


def _degenerate(frame: ElementTree.Element, sides: Mapping[str, float]) -> str:
    """What is wrong with a box in the file's own words. One that begins where it ends is a click, not a pixel."""
    left, top, right, bottom = sides.values()
    written = ", ".join(f"{side} {(frame.findtext(side) or 'missing').strip()}" for side in SIDES)
    if not all(math.isfinite(value) for value in sides.values()):
        return f"{written}: not four numbers"
    return f"{written}: the box has no area" if right <= left or bottom <= top else ""


def _number(node: ElementTree.Element | None, name: str) -> float:
    """The number in NODE's child NAME; NaN if there is none."""
    try:
        return float((node.findtext(name) if node is not None else None) or "nan")
    except ValueError:
        return math.nan
