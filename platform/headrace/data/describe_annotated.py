"""Looks at boxes in pictures and videos for `headrace init`: which layout it is, how many objects of which class, and
what is wrong.

What the split will say is said here already, of as many pictures as can be opened in a few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from headrace.base.errors import Finding
from headrace.data.annotated_pictures import AnnotatedPictures
from headrace.data.annotations import LABEL, BadAnnotation, names_in
from headrace.data.coco import chosen_sheets, read_sheet
from headrace.data.folder_layout import is_image
from headrace.data.formats import Report, Request, get_format
from headrace.data.mot import sequences_in
from headrace.data.source import Source, SourceFile
from headrace.data.voc import matched, parse, sorted_out

MOST_LISTED = 20  # .json files that are read to see whether one of them is COCO's
MOST_TOLD = 20  # problems that are named one by one
FEWEST_VIDEOS = 3  # a video lies on one side of the split as a whole
FEWEST = 0.1  # share of the pictures that must have an annotation of their own: else some stray .xml lies about


def annotated_layout(source: Source, files: Sequence[SourceFile]) -> str | None:
    """The format of annotations in SOURCE, or None if there are none."""
    if _is_mot(files):
        return "mot"
    return "voc" if _is_voc(source, files) else "coco" if _is_coco(source, files) else None


def look_at(source: Source, layout: str, most_opened: int) -> dict[str, Any]:
    """Pictures, classes and problems in SOURCE: `samples`, `classes` (objects by class), `bad`, `opened`, `problems`.

    Raises:
        DataInvalid: nothing there fits the format LAYOUT.
    """
    source.hold()
    report, request = Report(), Request(layout, None, None, None, None, None, LABEL)
    reader = get_format(layout)
    assert isinstance(reader, AnnotatedPictures)
    entries = reader.entries(source, request, report)
    unmatched = report.corrupt
    opened = entries[:most_opened]
    classes: Counter[str] = Counter()
    for rows in reader.read(source, opened, request, report, lambda _: None):
        for text in rows.label.to_pylist():
            classes.update(names_in(text))
    problems = [Finding(p.uri, p.reason, "", f"the split will say so: {p.action}") for p in report.problems]
    problems += [Finding(named.uri, named.reason, "", "the split will leave it out") for named in report.left_out]
    if len(problems) > MOST_TOLD:
        more = Finding("and more", f"{len(problems) - MOST_TOLD:,}", "", "the split names them all")
        problems = [*problems[:MOST_TOLD], more]
    if len(opened) < len(entries):
        given = f"{len(opened):,} of {len(entries):,} pictures"
        problems.append(Finding("looked at", given, "", "objects are counted in these"))
    if report.ignored:
        given = f"{len(report.ignored):,} ({PurePosixPath(report.ignored[0].uri).name}: {report.ignored[0].reason})"
        problems.append(Finding("other files", given, "", "the split will ignore them"))
    problems += report.notes
    videos = {entry.group for entry in entries}
    if layout == "mot" and len(videos) < FEWEST_VIDEOS:
        told = f"{FEWEST_VIDEOS} or more: each lies in training, validation or test as a whole"
        problems.append(Finding("videos", str(len(videos)), told, "add videos, or cut one in pieces"))
    return {
        "samples": len(entries),
        "classes": dict(sorted(classes.items())),
        "bad": report.corrupt,
        "opened": len(opened) + unmatched,
        "problems": problems,
    }


def _is_mot(files: Sequence[SourceFile]) -> bool:
    paths = [file.path for file in files]
    inside = tuple(f"{sequence}/" if sequence else "" for sequence in sequences_in(paths))
    pictures = [path for path in paths if is_image(path)]
    return sum(path.startswith(inside) for path in pictures) >= FEWEST * len(pictures) if inside else False


def _is_voc(source: Source, files: Sequence[SourceFile]) -> bool:
    sheets, pictures, _ = sorted_out(files)
    found, _ = matched(sheets, pictures)
    if not found or len(found) < FEWEST * len(pictures):
        return False
    for sheet in list(found)[:MOST_LISTED]:
        try:
            parse(source.read(sheet), sheet)
        except BadAnnotation:
            continue
        return True
    return False


def _is_coco(source: Source, files: Sequence[SourceFile]) -> bool:
    chosen = chosen_sheets([file.path for file in files])
    by_size = sorted((file for file in files if file.path in chosen), key=lambda file: -file.size)
    for file in by_size[:MOST_LISTED]:
        try:
            found = read_sheet(source, file.path, segmentations=False)
        except BadAnnotation:
            continue
        if found is not None:
            return True
    return False
