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
        masks, _ = matched(sheets, [file.path for file in files if MASKS in _folders(file)] if request.masks else [])
        if not sheets:
            raise DataInvalid(
                f"{source.address} holds no VOC annotation ({len(pictures):,} pictures, no .xml file)",
                action="give the folder that holds Annotations/ and JPEGImages/, or set data.format",
            )
        report.ignored += [Named(source.uri(path), "neither picture nor annotation") for path in others]
        found, lost = matched(sheets, pictures)
        for sheet, reason in lost.items():
            report.leave_out(source.uri(sheet), reason)
        taken = {path: sheet for sheet, path in found.items()}
        bare = [path for path in pictures if path not in taken]
        report.ignored += [Named(source.uri(path), "a picture without annotation") for path in bare]
        _note_sets(files, report)
        return [Entry(path, partial(_read, source, sheet, masks.get(sheet))) for path, sheet in sorted(taken.items())]


def matched(sheets: Sequence[str], pictures: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Each of SHEETS (paths of XML files) with the path of its picture, and of the others why there is none.

    A picture at its sheet's own place is that sheet's, whatever its name; only what is left is found by name alone.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)  # path without suffix
    for path in pictures:
        by_stem[str(PurePosixPath(path).with_suffix(""))].append(path)
    found: dict[str, str] = {}
    lost: dict[str, str] = {}
    taken: dict[str, str] = {}

    def take(sheet: str, likely: Sequence[str]) -> None:
        if len(likely) > 1:
            lost[sheet] = f"an annotation of {len(likely)} pictures: {', '.join(likely[:3])}"
        elif likely[0] in taken:
            lost[sheet] = f"its picture {likely[0]} has an annotation already: {taken[likely[0]]}"
        else:
            found[sheet], taken[likely[0]] = likely[0], sheet

    for sheet in sheets:
        if here := next(filter(None, (by_stem.get(place) for place in _places(sheet))), None):
            take(sheet, here)
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in pictures:
        if path not in taken:
            by_name[PurePosixPath(path).stem].append(path)
    for sheet in sheets:
        if sheet not in found and sheet not in lost:
            if elsewhere := by_name.get(PurePosixPath(sheet).stem):
                take(sheet, elsewhere)
            else:
                lost[sheet] = "an annotation without picture"
    return found, lost


def _places(sheet: str) -> list[str]:
    """Where the picture of SHEET is to be, without suffix: beside it, or in the folder beside Annotations/."""
    stem = PurePosixPath(sheet).with_suffix("")
    beside = [PurePosixPath(*(folder if p == ANNOTATIONS else p for p in stem.parts)) for folder in (PICTURES, MASKS)]
    return [str(path) for path in (stem, *beside)]


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
