"""Pictures with boxes: what the formats voc, coco and mot share.

A format says which pictures there are and how each one's annotation is read; here every picture is decoded once, its
annotation judged against its true size, and what is wrong told by file and box. A bad box costs the box, an annotation
that cannot be read costs its picture.
"""

from __future__ import annotations

import hashlib
import posixpath
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.base.errors import DataInvalid, Finding
from headrace.data import digest
from headrace.data.annotations import LABEL, Annotated, BadAnnotation, Drawn, sound, to_text
from headrace.data.folder_layout import SPLIT_FOLDERS
from headrace.data.formats import Format, Named, Payloads, Report, Request, Tell
from headrace.data.image_folder import (
    BATCH,
    SECONDS_BETWEEN_TELLS,
    FilePayloads,
    read_unchanged,
    refuse_columns,
    threads,
)
from headrace.data.image_folder import LABEL as CLASS_LABEL
from headrace.data.masks import MOST_CLASSES, MaskFile, rendered
from headrace.data.picture_files import Look, look, turned
from headrace.data.rows import Rows
from headrace.data.source import Source
from headrace.data.write_manifest import ordered_classes


@dataclass(frozen=True)
class Entry:
    """A picture by its path in the source, and how its annotation is read (which raises BadAnnotation)."""

    path: str
    read: Callable[[], Annotated]
    group: str | None = None  # what must lie on one side of the split together: a video


@dataclass(frozen=True)
class _Checked:
    content: bytes  # sha256
    look: Look
    annotated: Annotated | None


class AnnotatedPictures(Format):
    """The base of such formats; a subclass says what there is."""

    name: str

    @abstractmethod
    def entries(self, source: Source, request: Request, report: Report) -> list[Entry]:
        """The annotated pictures in their order; all else is named in REPORT.

        Raises:
            DataInvalid: nothing there fits the format.
        """

    def scan(self, source: Source, request: Request, report: Report, tell: Tell) -> Iterator[Rows]:
        """See `Format.scan`. A sample's content is the picture's bytes; its label the annotation, or its class."""
        report.label, report.unit = (LABEL if request.label_kind == LABEL else CLASS_LABEL), "files"
        refuse_columns(request)
        entries = self.entries(source, request, report)
        _note_split(entries, report)
        yield from self.read(source, entries, request, report, tell)

    def read(
        self, source: Source, entries: Sequence[Entry], request: Request, report: Report, tell: Tell
    ) -> Iterator[Rows]:
        """The usable ones of ENTRIES, in batches; fills REPORT as `scan` does."""
        told = time.monotonic()
        scan = _Scan(self, source, request, report)
        with ThreadPoolExecutor(threads(source)) as pool:
            for start in range(0, len(entries), BATCH):
                batch = entries[start : start + BATCH]
                checked = list(pool.map(lambda entry: _check(source, entry), batch))
                rows = scan.rows(batch, checked)
                if rows is not None:
                    report.usable += len(rows)
                    yield rows
                if time.monotonic() - told > SECONDS_BETWEEN_TELLS:
                    told = time.monotonic()
                    tell(f"checked {min(start + BATCH, len(entries)):,} of {len(entries):,} pictures")
        scan.end()

    def payloads(self, uris: Sequence[str], contents: Sequence[str], columns: Mapping[str, str]) -> Payloads:
        """See `Format.payloads`: the pictures' bytes."""
        return AnnotatedPayloads(uris, contents)

    def mask_origin(self, path: str, annotated: Annotated, objects: Sequence[Drawn], found: Look) -> dict[str, Any]:
        """The record of the mask of the picture at PATH, whose usable OBJECTS are annotated for its size as FOUND.

        Raises:
            BadAnnotation: there is none, or none that can be used.
        """
        if annotated.mask is None:
            raise BadAnnotation("it has no mask")
        if annotated.mask.size not in (found.size, found.upright):
            (tall, wide), (height, width) = annotated.mask.size, found.size
            raise BadAnnotation(f"its mask is {wide} x {tall}, the picture {width} x {height}")
        turn = found.orientation if annotated.mask.size == found.size != found.upright else 1
        relative = posixpath.relpath(annotated.mask.path, posixpath.dirname(path) or ".")
        origin = annotated.mask.origin(relative, [drawn.name for drawn in objects])
        return {**origin, **({"turn": turn} if turn != 1 else {})}


class AnnotatedPayloads(FilePayloads):
    """The bytes of pictures, and their annotations with the masks that they name."""

    def annotation(self, index: int, text: str, classes: Sequence[str]) -> dict[str, Any]:
        """See `Payloads.annotation`."""
        record = super().annotation(index, text, classes)
        if "mask" not in record:
            return record
        origin, content, uri = record["mask"], b"", ""
        if "path" in origin:
            scheme, separator, picture = str(self._uris[index]).rpartition("://")
            uri = scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(picture), origin["path"]))
            content = read_unchanged(uri, origin["sha256"])
        return {**record, "mask": rendered(origin, content, classes, uri)}


class _Scan:
    """One pass over the pictures: judges what `_check` has read, and remembers what the end of it needs."""

    def __init__(self, layout: AnnotatedPictures, source: Source, request: Request, report: Report) -> None:
        self._layout, self._source, self._request, self._report = layout, source, request, report
        self._classes: set[str] = set()
        self._masks: list[tuple[str, MaskFile, dict[str, Any], list[str]]] = []  # the last: classes of the objects

    def rows(self, batch: Sequence[Entry], checked: Sequence[_Checked]) -> Rows | None:
        """The usable pictures of BATCH."""
        files, contents, labels, groups = [], [], [], []
        for entry, found in zip(batch, checked, strict=True):
            uri = self._source.uri(entry.path)
            if found.annotated is None:
                self._report.leave_out(uri, found.look.problem or "")
                continue
            try:
                label = self._label(entry, found.annotated, found.look)
            except BadAnnotation as reason:
                self._report.ignored.append(Named(uri, str(reason)))
                continue
            files.append(self._report.add_file(uri, entry.path))
            contents.append(found.content)
            labels.append(label)
            groups.append(entry.group)
        if not files:
            return None
        digests = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(-1, digest.FILE_WIDTH)
        group = None if groups[0] is None else pa.array(groups, pa.string())
        return Rows(np.array(files, dtype=np.int32), None, digests, pa.array(labels, pa.string()), group=group)

    def end(self) -> None:
        """Tell of masks that hold numbers of no class, which will not count, or of classes that the picture lacks."""
        classes = ordered_classes(sorted(self._classes))
        if self._request.masks and len(classes) > MOST_CLASSES:
            action = f"masks tell at most {MOST_CLASSES} classes apart: take some out, or train without masks"
            raise DataInvalid(f"there are {len(classes):,} classes of objects", action=action)
        for uri, mask, origin, names in self._masks:
            unknown, others = mask.doubts(origin, classes, names)
            if unknown:
                given = f"class number {', '.join(map(str, unknown))} in its mask, but there are {len(classes)} classes"
                self._report.note_problem(uri, given, "not counted")
            for number, name in others:
                given = f"class number {number} in its mask is {name}, and no object of it is annotated"
                self._report.note_problem(uri, given, "kept; numbers follow the sorted classes")

    def _label(self, entry: Entry, annotated: Annotated, found: Look) -> str:
        """The manifest's label. Raises BadAnnotation for a picture that is sound and yet of no use to the tasks."""
        request, uri = self._request, self._source.uri(entry.path)
        annotated = _upright(annotated, found, uri, self._report)
        objects = sound(annotated, found.upright, self._report.note_problem)
        names = sorted({drawn.name for drawn in objects})
        if request.one_class and not names:
            raise BadAnnotation("it has no object, so no class")
        if request.one_class and len(names) > 1:
            raise BadAnnotation(f"its objects are of {len(names)} classes: {', '.join(names)}")
        if request.label_kind != LABEL:
            return names[0]
        more = dict(annotated.more)
        if request.masks:
            more["mask"] = self._layout.mask_origin(entry.path, annotated, objects, found)
            if annotated.mask is not None:
                self._masks.append((uri, annotated.mask, more["mask"], names))
        self._classes.update(names)
        return to_text(found.upright, objects, more)


def _note_split(entries: Sequence[Entry], report: Report) -> None:
    """Tell of data that is split into folders already, as it is dealt out anew."""
    tops = sorted({entry.path.split("/", 1)[0] for entry in entries if "/" in entry.path})
    names = {name.lower().rstrip("0123456789") for name in tops}  # COCO's are called train2017
    if len(tops) > 1 and names <= SPLIT_FOLDERS and names & {"train", "training"}:
        given = f"split already: {', '.join(f'{name}/' for name in tops)}"
        action = "taken together and split as data.split says; name one of them as data.source to take only that"
        report.notes.append(Finding("data.source", given, "", action))


def _check(source: Source, entry: Entry) -> _Checked:
    """Read the picture and its annotation; what is wrong is the look's problem, and `annotated` is then None."""
    try:
        content = source.read(entry.path)
    except DataInvalid as error:
        return _Checked(b"", Look(error.message), None)
    found = look(content)
    if found.problem is not None:
        return _Checked(b"", found, None)
    try:
        return _Checked(hashlib.sha256(content).digest(), found, entry.read())
    except (BadAnnotation, DataInvalid) as error:
        return _Checked(b"", replace(found, problem=str(error)), None)


def _upright(annotated: Annotated, found: Look, uri: str, report: Report) -> Annotated:
    """ANNOTATED for the upright picture at URI; what is said of the picture's size and is not so, is told."""
    height, width = found.upright
    if annotated.size is None:
        if annotated.tells_size:
            report.note_problem(annotated.uri, "it does not say the picture's size", f"taken from {uri}")
    elif annotated.size == found.size != found.upright:
        given = f"drawn on the picture as stored, {height} x {width}, which EXIF turns upright"
        report.note_problem(annotated.uri, given, "boxes turned with it")
        boxes = [
            d if d.box is None else replace(d, box=turned(d.box, found.size, found.orientation))
            for d in annotated.objects
        ]
        return replace(annotated, objects=boxes)
    elif annotated.size != found.upright:
        given = f"the picture's size is given as {annotated.size[1]} x {annotated.size[0]}, it is {width} x {height}"
        report.note_problem(annotated.uri, given, "boxes taken as they are")
    return annotated
