"""MOTChallenge: videos as folders of frames, with a track number on every box (Leal-Taixé et al. 2015, section 4).

    SEQUENCE/img1/000001.jpg ...    the frames, numbered from 1; seqinfo.ini may name another folder (imDir)
    SEQUENCE/gt/gt.txt              frame, track, left, top, width, height, counts (0 or 1), class, visibility
    SEQUENCE/gt/labels.txt          a class name a line, as annotation tools write it; also beside the sequences

Left and top count from 1. Without labels.txt the class numbers are MOT16's (Milan et al. 2016, table 3), and a class of
-1 or none is a pedestrian, as in 2015's set. Boxes that do not count are kept as difficult. A sequence lies on one side
of the split as a whole.
"""

from __future__ import annotations

import configparser
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from headrace.base.errors import DataInvalid
from headrace.data.annotated_pictures import AnnotatedPictures, Entry
from headrace.data.annotations import Annotated, Drawn
from headrace.data.folder_layout import is_image
from headrace.data.formats import Named, Report, Request
from headrace.data.source import Source

TRUTH, CLASSES, INFO, FRAMES = "gt/gt.txt", "labels.txt", "seqinfo.ini", "img1"
NAMES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non-motorised vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
)  # MOT16's classes from 1


class Mot(AnnotatedPictures):
    """See the module."""

    name = "mot"

    def entries(self, source: Source, request: Request, report: Report) -> list[Entry]:
        """See `AnnotatedPictures.entries`: the frames of every sequence that has a gt.txt."""
        paths = [file.path for file in source.files()]
        sequences = sequences_in(paths)
        if not sequences:
            raise DataInvalid(
                f"{source.address} holds no MOT sequence ({len(paths):,} files, no {TRUTH})",
                action="give the folder of the sequences (SEQUENCE/gt/gt.txt, SEQUENCE/img1/), or set data.format",
            )
        there = set(paths)
        entries: list[Entry] = []
        used: set[str] = set()
        for sequence in sequences:
            found = _Sequence(source, sequence, there, report)
            used |= found.files
            entries += found.entries()
        report.ignored += [
            Named(source.uri(path), "in no sequence with a gt.txt" if is_image(path) else "neither frame nor truth")
            for path in paths
            if path not in used
        ]
        return entries


def sequences_in(paths: Sequence[str]) -> list[str]:
    """The folders among PATHS that are a sequence, having a gt.txt; "" for the source itself."""
    return sorted(path.removesuffix(TRUTH).rstrip("/") for path in paths if path == TRUTH or path.endswith(f"/{TRUTH}"))


class _Sequence:
    """One sequence: its frames, and what gt.txt says of each."""

    def __init__(self, source: Source, path: str, there: set[str], report: Report) -> None:
        self._source, self._report = source, report
        self.name = path or PurePosixPath(source.base).name
        self._truth = _below(path, TRUTH)
        info, classes = _below(path, INFO), [_below(path, f"gt/{CLASSES}"), CLASSES]
        self._names = next((_lines(source.read(name)) for name in classes if name in there), None)
        folder = _below(path, _frames_folder(source.read(info)) if info in there else FRAMES)
        self._frames = _numbered(sorted(name for name in there if _in(name, folder) and is_image(name)))
        self.files = {self._truth, info, *classes, *self._frames.values()} & there

    def entries(self) -> list[Entry]:
        """Every frame with its objects, in order. What is wrong is in the report."""
        drawn: dict[int, list[Drawn]] = defaultdict(list)
        for number, line in enumerate(_lines(self._source.read(self._truth)), 1):
            uri = f"{self._source.uri(self._truth)}#{number}"
            frame, found = self._drawn(line, uri)
            if found is None:
                self._report.note_problem(uri, f"{line[:60]!r} is not a frame, a track and a box", "dropped")
            elif frame not in self._frames:
                self._report.note_problem(uri, f"a box of frame {frame}, which is not there", "dropped")
            elif found.track is None or found.track < 0:
                self._report.note_problem(uri, f"{found.track} is no number of a track", "dropped")
            elif any(found.track == other.track for other in drawn[frame]):
                self._report.note_problem(uri, f"track {found.track} a second time in frame {frame}", "dropped")
            else:
                drawn[frame].append(found)
        return [self._entry(frame, path, drawn[frame]) for frame, path in self._frames.items()]

    def _entry(self, frame: int, path: str, objects: Sequence[Drawn]) -> Entry:
        more = {"sequence": self.name, "frame": frame}
        read = partial(Annotated, self._source.uri(self._truth), objects, more=more, tells_size=False)
        return Entry(path, read, group=self.name)

    def _drawn(self, line: str, uri: str) -> tuple[int, Drawn | None]:
        """The frame that a LINE of gt.txt is about, and its object; None for a line that says none."""
        try:
            values = [float(value) for value in line.split(",")]
        except ValueError:
            return 0, None
        if len(values) < 6 or not all(math.isfinite(value) for value in values[:8]):
            return 0, None
        left, top = values[2] - 1, values[3] - 1
        counts, kind = (values[6] if len(values) > 6 else 1), int(values[7] if len(values) > 7 else -1)
        box = (left, top, left + values[4], top + values[5])
        return int(values[0]), Drawn(uri, self._name(kind), box, difficult=counts == 0, track=int(values[1]))

    def _name(self, kind: int) -> str:
        names = NAMES if self._names is None else self._names
        if kind < 1 and self._names is None:
            return names[0]
        return names[kind - 1] if 1 <= kind <= len(names) else f"class {kind}"


def _below(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _in(path: str, folder: str) -> bool:
    return path.rpartition("/")[0] == folder


def _numbered(paths: Sequence[str]) -> dict[int, str]:
    """The frames by the number that their names are; names that are none do not count."""
    stems = {PurePosixPath(path).stem: path for path in paths}
    return {int(stem): path for stem, path in sorted(stems.items()) if stem.isdecimal()}


def _lines(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip()]


def _frames_folder(content: bytes) -> str:
    """What seqinfo.ini calls the folder of frames."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(content.decode("utf-8", "replace"))
        return parser.get("Sequence", "imDir", fallback=FRAMES)
    except configparser.Error:
        return FRAMES
