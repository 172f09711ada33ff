"""COCO: JSON files that hold the annotations of many pictures (Lin et al. 2014; cocodataset.org, "data format").

    annotations/instances_train2017.json with train2017/*.jpg     COCO's own layout
    any other .json of its form, and pictures anywhere            as annotation tools export it

Where there are files called instances*, others (captions, keypoints) are not read. COCO counts pixels from 0; its boxes
are [x, y, width, height].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from headrace.base.errors import DataInvalid, Finding
from headrace.data.annotated_pictures import AnnotatedPictures, Entry
from headrace.data.annotations import Annotated, BadAnnotation, Drawn
from headrace.data.coco_json import CocoFile, Written, read_coco
from headrace.data.folder_layout import is_image
from headrace.data.formats import Named, Report, Request
from headrace.data.masks import shapes_origin
from headrace.data.picture_files import Look
from headrace.data.source import Source

SUFFIX, INSTANCES = ".json", "instances"
LARGEST = 10**6  # pixels of a side that is believed


class Coco(AnnotatedPictures):
    """See the module."""

    name = "coco"

    def entries(self, source: Source, request: Request, report: Report) -> list[Entry]:
        """See `AnnotatedPictures.entries`."""
        pictures: list[str] = []
        others: list[str] = []
        sheets: dict[str, CocoFile] = {}
        paths = [file.path for file in source.files()]
        chosen = chosen_sheets(paths)
        broken = []
        for path in paths:
            if path in chosen:
                try:
                    found = read_sheet(source, path, segmentations=request.masks)
                except BadAnnotation as error:
                    broken.append(Finding(source.uri(path), str(error), "", "mend or remove it"))
                    continue
                if found is not None:
                    sheets[path] = found
                    continue
            (pictures if is_image(path) else others).append(path)
        if broken:
            action = "mend or remove those named"
            raise DataInvalid("annotation files cannot be read", action=action, findings=broken)
        if not sheets:
            raise DataInvalid(
                f"{source.address} holds no COCO annotation file ({len(pictures):,} pictures, {len(others):,} others)",
                action="give the folder with the .json of images, annotations and categories, or set data.format",
            )
        report.ignored += [Named(source.uri(path), "neither picture nor annotation") for path in others]
        taken = _Matching(source, pictures, report).of(sheets)
        bare = [path for path in pictures if path not in taken]
        report.ignored += [Named(source.uri(path), "a picture without annotation") for path in bare]
        return [
            Entry(path, partial(_annotated, source, sheet, found, image))
            for path, (sheet, found, image) in sorted(taken.items())
        ]

    def mask_origin(self, path: str, annotated: Annotated, objects: Sequence[Drawn], found: Look) -> dict[str, Any]:
        """See `AnnotatedPictures.mask_origin`."""
        if annotated.size == found.size != found.upright:
            return {**shapes_origin(objects, found.size), "turn": found.orientation}
        return shapes_origin(objects, found.upright)


def chosen_sheets(paths: Sequence[str]) -> set[str]:
    """Those of PATHS that may be annotation files: all .json, or those called instances* where there are such."""
    sheets = {path for path in paths if path.lower().endswith(SUFFIX)}
    instances = {path for path in sheets if PurePosixPath(path).name.lower().startswith(INSTANCES)}
    return instances or sheets


def read_sheet(source: Source, path: str, *, segmentations: bool) -> CocoFile | None:
    """The annotation file at PATH, None if it is something else. Raises BadAnnotation if it is broken."""
    content = source.read(path)
    try:
        return read_coco(content.decode("utf-8-sig"), segmentations=segmentations)
    except UnicodeDecodeError as error:
        raise BadAnnotation(f"no JSON: it is not UTF-8 ({error.reason} at byte {error.start:,})") from error


class _Matching:
    """Finds the picture file of each image, and tells of those that have none."""

    def __init__(self, source: Source, pictures: Sequence[str], report: Report) -> None:
        self._source, self._report = source, report
        self._pictures = set(pictures)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in pictures:
            self._by_name[PurePosixPath(path).name].append(path)

    def of(self, sheets: dict[str, CocoFile]) -> dict[str, tuple[str, CocoFile, Any]]:
        """Path of a picture to its sheet's path, the sheet, and the image's id there.

        A picture where its sheet says is that sheet's; only what is left is found by its file name alone.
        """
        taken: dict[str, tuple[str, CocoFile, Any]] = {}
        elsewhere: list[tuple[str, Any, str]] = []
        for sheet, found in sheets.items():
            uri = self._source.uri(sheet)
            for image, written in found.lost():
                self._report.note_problem(f"{uri}#{written.id}", f"of an image that is not there ({image})", "dropped")
            for image in found.twice:
                self._report.note_problem(f"{uri}#images/{image}", "an image's id a second time", "dropped")
            for image, entry in found.images.items():
                name = PureWindowsPath(str(entry["file_name"] or "")).as_posix()  # takes / and \\ alike
                path = self._path(sheet, name)
                if path is None:
                    elsewhere.append((sheet, image, name))
                else:
                    self._take(path, (sheet, found, image), taken)
        exact = {path: entry[0] for path, entry in taken.items()}
        for sheet, image, name in elsewhere:
            path, reason = self._by_file_name(sheet, name, exact)
            if path is None:
                self._report.leave_out(f"{self._source.uri(sheet)}#images/{image}", reason)
            else:
                self._take(path, (sheet, sheets[sheet], image), taken)
        return taken

    def _take(self, path: str, entry: tuple[str, CocoFile, Any], taken: dict[str, tuple[str, CocoFile, Any]]) -> None:
        if path in taken:
            given = f"the picture {path} has an entry already: {taken[path][0]}#images/{taken[path][2]}"
            self._report.note_problem(f"{self._source.uri(entry[0])}#images/{entry[2]}", given, "dropped")
        else:
            taken[path] = entry

    def _path(self, sheet: str, name: str) -> str | None:
        """The picture called NAME at one of the places that SHEET may mean."""
        folder = PurePosixPath(sheet).parent
        for path in (
            folder / name,
            folder.parent / name,
            folder / "images" / name,
            folder.parent / "images" / name,
            name,
        ):
            if str(path) in self._pictures:
                return str(path)
        return None

    def _by_file_name(self, sheet: str, name: str, exact: dict[str, str]) -> tuple[str | None, str]:
        """The picture of that file name, wherever it lies, or None and why there is none. EXACT are the pictures at
        their sheets' own places, which are nobody else's, with these sheets."""
        alike = self._by_name.get(PurePosixPath(name).name, [])
        found = [path for path in alike if exact.get(path, sheet) == sheet]
        if len(found) > 1:  # the same name in train2017 and val2017: the file is called after its folder
            called = PurePosixPath(sheet).stem.lower()
            fitting = [path for path in found if _folder_in(called, path)]
            found = fitting if len(fitting) == 1 else found
        if len(found) == 1:
            return found[0], ""
        if found:
            return None, f"an image of {len(found)} pictures: {', '.join(found[:3])}"
        return None, f"an annotation without picture: {name!r}" if name not in (
            "",
            ".",
        ) else "an image without file_name"


def _folder_in(called: str, path: str) -> bool:
    folder = PurePosixPath(path).parent.name.lower()
    return bool(folder) and folder in called


def _annotated(source: Source, sheet: str, found: CocoFile, image: Any) -> Annotated:
    uri = source.uri(sheet)
    entry = found.images[image]
    objects = [_drawn(written, found, uri) for written in found.annotations.get(image, ())]
    return Annotated(f"{uri}#images/{image}", objects, _size(entry["height"], entry["width"]))


def _drawn(written: Written, found: CocoFile, uri: str) -> Drawn:
    uri = f"{uri}#{written.id}"
    if written.category not in found.categories:
        return Drawn(uri, "", problem=f"category_id {written.category} is none of the categories")
    name = " ".join(found.categories[written.category].split())
    if written.box is None:
        return Drawn(uri, name, problem="it has no bbox")
    try:
        left, top, width, height = (float(side) for side in list(written.box) if not isinstance(written.box, str))
    except (TypeError, ValueError, OverflowError):
        return Drawn(uri, name, problem=f"bbox {str(written.box)[:60]}: not four numbers")
    sides = f"bbox [{left:g}, {top:g}, {width:g}, {height:g}]"
    if not all(math.isfinite(side) for side in (left, top, width, height)):
        return Drawn(uri, name, problem=f"{sides}: not four numbers")
    problem = f"{sides}: the box has no area" if width <= 0 or height <= 0 else ""
    box = (left, top, left + width, top + height)
    difficult, crowd = _is(written.ignore), _is(written.crowd)
    return Drawn(uri, name, box, problem, difficult, crowd, mask=written.segmentation or None)


def _is(flag: Any) -> bool:
    return flag is True or flag == 1


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    sides = (height, width)
    return (int(height), int(width)) if all(isinstance(s, (int, float)) and 1 <= s < LARGEST for s in sides) else None
