"""How well tracks follow the true ones: CLEAR-MOT and IDF1.

CLEAR-MOT (Bernardin & Stiefelhagen 2008): in each frame a true object keeps the track that it had before while the two
still overlap; the others are assigned at least distance 1 - IoU, and never below an IoU of `least`. A true object whose
track is another one than its last is an identity switch. MOTA = 1 - (misses + false positives + switches) / true boxes;
MOTP here is the mean IoU of the matched.

IDF1 (Ristani et al. 2016): of all ways to give each true trajectory one track the one with the fewest boxes in error,
then F1 of the boxes so identified.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace_models.tracking.overlap import FORBIDDEN, Floats, assign, iou
from headrace_models.tracking.tracker import Whole

LEAST_OVERLAP = 0.5


class Frame(NamedTuple):
    """One frame's true boxes and the tracker's: [n, 4] as x1, y1, x2, y2, and [n] numbers of objects and tracks."""

    true_boxes: Floats
    objects: Whole
    boxes: Floats
    tracks: Whole


@dataclass(frozen=True)
class Counts:
    """What a sequence came to; sequences add up."""

    true: int = 0  # true boxes
    found: int = 0  # the tracker's boxes
    matches: int = 0
    misses: int = 0
    false_positives: int = 0
    switches: int = 0
    fragments: int = 0  # times an object was lost and found again
    overlap: float = 0.0  # sum of IoU over the matches
    identified: int = 0  # boxes identified rightly in the best one-to-one of trajectories

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.__dataclass_fields__})

    def measures(self) -> dict[str, float]:
        """mota, motp, idf1 (0 where there is nothing), and the counts fp, fn, id_switches and fragments."""
        errors = self.misses + self.false_positives + self.switches
        return {
            "mota": 1.0 - errors / self.true if self.true else 0.0,
            "idf1": 2.0 * self.identified / (self.true + self.found) if self.true + self.found else 0.0,
            "motp": self.overlap / self.matches if self.matches else 0.0,
            "id_switches": float(self.switches),
            "fp": float(self.false_positives),
            "fn": float(self.misses),
            "fragments": float(self.fragments),
        }


def judge_sequence(frames: Iterable[Frame], least: float = LEAST_OVERLAP) -> Counts:
    """What the tracks of one sequence's FRAMES, in order, come to."""
    clear = _Clear(least)
    identity = _Identity(least)
    for frame in frames:
        overlap = iou(frame.true_boxes, frame.boxes)
        clear.take(frame, overlap)
        identity.take(frame, overlap)
    return Counts(
        true=identity.true,
        found=identity.found,
        matches=clear.matches,
        misses=identity.true - clear.matches,
        false_positives=identity.found - clear.matches,
        switches=clear.switches,
        fragments=clear.fragments,
        overlap=clear.overlap,
        identified=identity.identified(),
    )


class _Clear:
    """CLEAR-MOT's one pass over the frames."""

    def __init__(self, least: float) -> None:
        self.matches = self.switches = self.fragments = 0
        self.overlap = 0.0
        self._least = least
        self._last: dict[int, int] = {}  # object to the track that it was matched to last
        self._lost: set[int] = set()  # objects that were matched once and were there unmatched since

    def take(self, frame: Frame, overlap: Floats) -> None:
        kept = self._kept(frame, overlap)
        rows, columns = {row for row, _ in kept}, {column for _, column in kept}
        cost = np.where(overlap >= self._least, 1.0 - overlap, FORBIDDEN)
        cost[list(rows), :] = FORBIDDEN
        cost[:, list(columns)] = FORBIDDEN
        pairs = kept + assign(cost)
        for row, column in pairs:
            whose, track = int(frame.objects[row]), int(frame.tracks[column])
            self.switches += self._last.get(whose, track) != track
            self.fragments += whose in self._lost
            self._lost.discard(whose)
            self._last[whose] = track
            self.overlap += float(overlap[row, column])
        self.matches += len(pairs)
        matched = {row for row, _ in pairs}
        self._lost |= {int(o) for row, o in enumerate(frame.objects) if row not in matched and int(o) in self._last}

    def _kept(self, frame: Frame, overlap: Floats) -> list[tuple[int, int]]:
        """Pairs that go on as they were."""
        places = {int(track): column for column, track in enumerate(frame.tracks)}
        taken: set[int] = set()
        kept = []
        for row, whose in enumerate(frame.objects):
            column = places.get(self._last.get(int(whose), -1))
            if column is not None and column not in taken and overlap[row, column] >= self._least:
                kept.append((row, column))
                taken.add(column)
        return kept


class _Identity:
    """Which objects and tracks overlap in how many frames."""

    def __init__(self, least: float) -> None:
        self.true = self.found = 0
        self._least = least
        self._together: dict[tuple[int, int], int] = {}

    def take(self, frame: Frame, overlap: Floats) -> None:
        self.true += len(frame.objects)
        self.found += len(frame.tracks)
        for row, column in np.argwhere(overlap >= self._least):
            pair = int(frame.objects[row]), int(frame.tracks[column])
            self._together[pair] = self._together.get(pair, 0) + 1

    def identified(self) -> int:
        objects = {whose: n for n, whose in enumerate(sorted({whose for whose, _ in self._together}))}
        tracks = {track: n for n, track in enumerate(sorted({track for _, track in self._together}))}
        shared = np.zeros((len(objects), len(tracks)))
        for (whose, track), frames in self._together.items():
            shared[objects[whose], tracks[track]] = frames
        return int(sum(shared[row, column] for row, column in assign(-shared)))
