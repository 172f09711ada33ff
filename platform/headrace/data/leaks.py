"""Finds samples that are the same, in memory that does not grow with their number.

Each sample leaves a record of 36 bytes: what it is the same by (content or group), a mark that all the same must share
(label or side), and where it lies. Past a limit the records are spilled into files by the first bits of the key, and
each file is then looked at alone: ten million rows are 256 files of 1.4 MB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headrace.data import digest
from headrace.data.digest import Bytes, Words

RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("mark", "<u8"), ("file", "<i4"), ("row", "<i8")])
Records = npt.NDArray[np.void]
PARTITIONS = 256
MOST_IN_MEMORY = 1 << 20  # records: 36 MiB
MOST_EXAMPLES = 1_000

Place = tuple[int, int]  # file index and row (-1: the whole file)


@dataclass
class Equals:
    """What was found: `extra` samples are the same as an earlier one, in `groups`; `conflicts` differ in their mark."""

    groups: int = 0
    extra: int = 0
    conflicts: int = 0
    examples: list[tuple[Place, Place]] = field(default_factory=list)
    conflicting: list[tuple[Place, Place]] = field(default_factory=list)


class EqualsFinder:
    """Collects records batch by batch; `find` ends it. A context manager: it may hold files."""

    def __init__(self, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self._limit = most_in_memory
        self._held: list[Records] = []
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> EqualsFinder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, keys: Bytes, marks: Words, files: npt.NDArray[np.int32], rows: npt.NDArray[np.int64] | None) -> None:
        """Take in a batch."""
        records = np.empty(len(keys), dtype=RECORD)
        records["high"], records["low"] = digest.words(keys, 0), digest.words(keys, 1)
        records["mark"], records["file"], records["row"] = marks, files, -1 if rows is None else rows
        self._held.append(records)
        self._count += len(records)
        if self._count > self._limit:
            self._spill()

    def find(self) -> Equals:
        """All that are the same, in the order of their keys."""
        found = Equals()
        if self._folder is not None:
            self._spill()
        for records in self._partitions():
            _compare(records, found)
        return found

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="headrace-equals-")
        records = np.concatenate(self._held) if self._held else np.empty(0, RECORD)
        self._held, self._count = [], 0
        partition = (records["high"] >> np.uint64(56)).astype(np.uint8)
        records = records[np.argsort(partition, kind="stable")]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(partition, minlength=PARTITIONS))])
        for number in range(PARTITIONS):
            piece = records[bounds[number] : bounds[number + 1]]
            if len(piece):
                with open(Path(self._folder.name) / f"{number:03d}", "ab") as file:
                    piece.tofile(file)

    def _partitions(self) -> Iterator[Records]:
        if self._folder is not None:
            for path in sorted(Path(self._folder.name).iterdir()):
                yield np.fromfile(path, dtype=RECORD)
        elif self._held:
            yield np.concatenate(self._held)


def _compare(records: Records, found: Equals) -> None:
    records = _suspects(records)
    records = records[np.lexsort((records["row"], records["file"], records["low"], records["high"]))]
    same = (records["high"][1:] == records["high"][:-1]) & (records["low"][1:] == records["low"][:-1])
    if not same.any():
        return
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    first = np.repeat(starts, np.diff(np.append(starts, len(records))))
    later = np.flatnonzero(np.concatenate([[False], same]))
    differs = later[records["mark"][later] != records["mark"][first[later]]]
    found.groups += len(np.unique(first[later]))
    found.extra += len(later)
    found.conflicts += len(differs)
    found.examples += _pairs(records, first, later[: MOST_EXAMPLES - len(found.examples)])
    found.conflicting += _pairs(records, first, differs[: MOST_EXAMPLES - len(found.conflicting)])


def _suspects(records: Records) -> Records:
    """Those that share the first half of their key with another: mostly none, and one sort of numbers finds them."""
    order = np.argsort(records["high"])
    high = records["high"][order]
    same = high[1:] == high[:-1]
    suspects: Records = records[order[np.concatenate([[False], same]) | np.concatenate([same, [False]])]]
    return suspects


def _pairs(records: Records, first: npt.NDArray[np.intp], later: npt.NDArray[np.intp]) -> list[tuple[Place, Place]]:
    def place(index: int) -> Place:
        return int(records["file"][index]), int(records["row"][index])

    return [(place(first[index]), place(index)) for index in later.tolist()]
