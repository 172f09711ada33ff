"""Images in one folder a class, or a number: `{class}/*.png`, nested as deep as one likes.

Every image is decoded once when the split is made: a file that breaks in the middle would else stop a training hours
later. Reading each file for its hash is needed anyway; decoding adds about half a millisecond for a small picture.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from headrace.base.errors import DataInvalid, Finding
from headrace.data import digest
from headrace.data.columns import NUMBER
from headrace.data.folder_layout import class_of, predefined_split, sorted_out
from headrace.data.formats import Format, Named, Payloads, Report, Request, Tell
from headrace.data.picture_files import look
from headrace.data.rows import Rows
from headrace.data.source import Source, SourceFile, read_uri

LABEL = "label"  # the label's name in schemas and manifests: a folder has no column that names it
BATCH = 256  # files read ahead at once: bounds memory whatever the pictures' number
SECONDS_BETWEEN_TELLS = 1.0


class ImageFolder(Format):
    """`{class}/**/*.{png,jpg,jpeg,bmp,webp,gif,tif,tiff}`; the first folder is the class, hidden files do not count.

    For a task whose label is a number the folders are called by their numbers.
    """

    def scan(self, source: Source, request: Request, report: Report, tell: Tell) -> Iterator[Rows]:
        """See `Format.scan`. A sample's content is the file's bytes."""
        report.label, report.unit = LABEL, "files"
        refuse_columns(request)
        images = list_images(source, report)
        usable: set[str] = set()
        told = time.monotonic()
        with ThreadPoolExecutor(threads(source)) as pool:
            for start in range(0, len(images), BATCH):
                batch = images[start : start + BATCH]
                checked = list(pool.map(lambda file: _check(source, file), batch))
                rows = _rows(source, batch, checked, request, report)
                if rows is not None:
                    usable.update(class_of(report.paths[file]) for file in rows.file)
                    report.usable += len(rows)
                    yield rows
                if time.monotonic() - told > SECONDS_BETWEEN_TELLS:
                    told = time.monotonic()
                    tell(f"checked {min(start + BATCH, len(images)):,} of {len(images):,} images")
        named = {class_of(file.path) for file in images} | set(source.folders())
        report.dropped_classes = sorted(named - usable)

    def payloads(self, uris: Sequence[str], contents: Sequence[str], columns: Mapping[str, str]) -> Payloads:
        """See `Format.payloads`: the files' bytes."""
        return FilePayloads(uris, contents)


class FilePayloads(Payloads):
    """The bytes of whole files, each read when asked for and compared with what was split."""

    def __init__(self, uris: Sequence[str], contents: Sequence[str]) -> None:
        self._uris, self._contents = uris, contents
        first = str(uris[0]) if len(uris) else ""
        self.distant = "://" in first and not first.startswith("builtin://")

    def __getitem__(self, index: int) -> bytes:
        return read_unchanged(str(self._uris[index]), str(self._contents[index]))


def read_unchanged(uri: str, sha256: str) -> bytes:
    """The bytes at URI. Raises DataInvalid if they are gone, or no longer have the hex digest SHA256."""
    try:
        data = read_uri(uri)
    except DataInvalid as error:
        raise DataInvalid(f"{uri} is gone since the split", action="put it back, or run again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataInvalid(f"{uri} has changed since the split", action="run again: the data is split anew")
    return data


def list_images(source: Source, report: Report) -> list[SourceFile]:
    """The images of SOURCE in order of class and path; all else is named in REPORT.

    Raises:
        DataInvalid: there is no class folder with images, or the folder is split into train and test already.
    """
    if source.is_file():
        raise DataInvalid(
            f"{source.address} is a file, an image folder is a folder of one folder per class",
            action="give the folder as data.source, or set data.format",
        )
    files = source.files()
    images, others = sorted_out(files)
    report.ignored += [Named(source.uri(path), reason) for path, reason in others]
    if not images:
        raise DataInvalid(
            f"{source.address} has no class folder with images ({len(files):,} files)",
            action="put the images into one folder per class: CLASS/NAME.png",
        )
    if found := predefined_split(images):
        action = f"set data.source to {source.uri(found[0])} (Headrace makes the split), or merge the folders' classes"
        finding = Finding("data.source", ", ".join(f"{name}/" for name in found), "one folder per class", action)
        raise DataInvalid(f"{source.address} is split already: {', '.join(found)}", action=action, findings=[finding])
    return images


def problem_of(content: bytes) -> str | None:
    """Why CONTENT cannot be used as an image, or None. Decodes the whole of it."""
    return look(content).problem


def refuse_columns(request: Request) -> None:
    """Raise DataInvalid if a column is named: files have none."""
    given = {name: getattr(request, name) for name in ("label", "features", "id", "group", "time")}
    findings = [
        Finding(f"data.{name}", str(value), f"nothing: {request.format} has no columns", "leave it out")
        for name, value in given.items()
        if value
    ]
    if findings:
        raise DataInvalid(f"{request.format} has no columns to name", action="leave them out", findings=findings)


def threads(source: Source) -> int:
    """How many files of SOURCE are read and decoded at once."""
    return min(8, (os.cpu_count() or 1) + 1) if source.local else 16  # a remote read waits more than it computes


def _check(source: Source, file: SourceFile) -> tuple[bytes, str | None]:
    """The file's sha256 and why it cannot be used."""
    try:
        content = source.read(file.path)
    except DataInvalid as error:
        return b"", error.message
    return hashlib.sha256(content).digest(), problem_of(content)


def _rows(
    source: Source,
    batch: Sequence[SourceFile],
    checked: Sequence[tuple[bytes, str | None]],
    request: Request,
    report: Report,
) -> Rows | None:
    label_of, label_type = (_number, pa.float64()) if request.label_kind == NUMBER else (class_of, pa.string())
    files, contents, labels = [], [], []
    for file, (content, problem) in zip(batch, checked, strict=True):
        uri, label = source.uri(file.path), label_of(file.path)
        if problem is not None or label is None:
            report.leave_out(uri, problem or f"its folder, {class_of(file.path)}, is no number")
            continue
        files.append(report.add_file(uri, file.path))
        contents.append(content)
        labels.append(label)
    if not files:
        return None
    digests = np.frombuffer(b"".join(contents), dtype=np.uint8).reshape(-1, digest.FILE_WIDTH)
    return Rows(np.array(files, dtype=np.int32), None, digests, pa.array(labels, label_type))


def _number(path: str) -> float | None:
    """What the folder of the file at PATH is called, as a number."""
    try:
        value = float(class_of(path))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
