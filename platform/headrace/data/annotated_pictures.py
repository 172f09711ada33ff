"""Pictures with boxes: what the formats voc, coco and mot share.

A format says which pictures there are and how each one's annotation is read; here every picture is decoded once, its
annotation judged against its true size, and what is wrong told by file and box. A bad box costs the box, an annotation
that cannot be read costs its picture.
"""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from headrace.base.errors import DataInvalid
from headrace.data import digest
from headrace.data.annotations import LABEL, Annotated, BadAnnotation, Drawn, sound, to_text
from headrace.data.formats import Format, Named, Payloads, Report, Request, Tell
from headrace.data.image_folder import BATCH, SECONDS_BETWEEN_TELLS, FilePayloads, refuse_columns, threads
from headrace.data.image_folder import LABEL as CLASS_LABEL
from headrace.data.picture_files import Look, look
from headrace.data.rows import Rows
from headrace.data.source import Source


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
        told = time.monotonic()
        with ThreadPoolExecutor(threads(source)) as pool:
            for start in range(0, len(entries), BATCH):
                batch = entries[start : start + BATCH]
                checked = list(pool.map(lambda entry: _check(source, entry), batch))
                rows = self._rows(source, batch, checked, request, report)
                if rows is not None:
                    report.usable += len(rows)
                    yield rows
                if time.monotonic() - told > SECONDS_BETWEEN_TELLS:
                    told = time.monotonic()
                    tell(f"checked {min(start + BATCH, len(entries)):,} of {len(entries):,} pictures")

    def payloads(self, uris: Sequence[str], contents: Sequence[str], columns: Mapping[str, str]) -> Payloads:
        """See `Format.payloads`: the pictures' bytes."""
        return FilePayloads(uris, contents)

    def _rows(
        self, source: Source, batch: Sequence[Entry], checked: Sequence[_Checked], request: Request, report: Report
    ) -> Rows | None:
        files, contents, labels, groups = [], [], [], []
        for entry, found in zip(batch, checked, strict=True):
            uri = source.uri(entry.path)
            if found.annotated is None:
                report.leave_out(uri, found.look.problem or "")
                continue
            objects = _objects(uri, found.annotated, found.look, report)
            reason = _unfit(objects, request)
            if reason:
                report.ignored.append(Named(uri, reason))
                continue
            files.append(report.add_file(uri, entry.path))
            contents.append(found.content)
            groups.append(entry.group)
            annotated = request.label_kind == LABEL
            labels.append(to_text(found.look.upright, objects, found.annotated.more) if annotated else objects[0].name)
        if not files:
            return None
        digests = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(-1, digest.FILE_WIDTH)
        group = None if groups[0] is None else pa.array(groups, pa.string())
        return Rows(np.array(files, dtype=np.int32), None, digests, pa.array(labels, pa.string()), group=group)


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


def _objects(uri: str, annotated: Annotated, found: Look, report: Report) -> list[Drawn]:
    """The objects of the picture at URI that can be used; what else there is, is told."""
    height, width = found.upright
    if annotated.size is None:
        report.note_problem(annotated.uri, "it does not say the picture's size", f"taken from {uri}")
    elif annotated.size != found.upright:
        given = f"the picture's size is given as {annotated.size[1]} x {annotated.size[0]}, it is {width} x {height}"
        report.note_problem(annotated.uri, given, "boxes taken as they are")
    return sound(annotated, found.upright, report.note_problem)


def _unfit(objects: Sequence[Drawn], request: Request) -> str:
    """Why the tasks cannot use a picture with these OBJECTS, if so."""
    names = sorted({drawn.name for drawn in objects})
    if not request.one_class or len(names) == 1:
        return ""
    return f"its objects are of {len(names)} classes: {', '.join(names)}" if names else "it has no object, so no class"
