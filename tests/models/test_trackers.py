"""SORT and ByteTrack on made sequences, and SORT's published figures on TUD-Campus."""

from __future__ import annotations

import os
from pathlib import Path

import motmetrics
import numpy as np
import pytest

from headrace_models.tracking.byte_track import ByteTrack
from headrace_models.tracking.measures import Frame, judge_sequence
from headrace_models.tracking.sort import Sort
from headrace_models.tracking.tracker import Tracked, Tracker

TRACKERS = {"sort": Sort, "byte-track": ByteTrack}


def step(tracker: Tracker, boxes: list[list[float]], scores: list[float] | None = None, labels: object = 0) -> Tracked:
    n = len(boxes)
    return tracker.update(
        np.array(boxes, np.float64).reshape(n, 4),
        np.ones(n) if scores is None else np.array(scores),
        np.broadcast_to(np.array(labels, np.int64), (n,)),
    )


def walker(frame: int, row: float = 50.0) -> list[float]:
    """A box of 20 x 40 that goes right by 4 pixels a frame."""
    return [10.0 + 4 * frame, row, 30.0 + 4 * frame, row + 40]


@pytest.mark.parametrize("name", TRACKERS)
def test_two_that_walk_keep_their_numbers(name: str) -> None:
    tracker = TRACKERS[name]()
    seen = [step(tracker, [walker(f, 50), walker(-f + 40, 120)]) for f in range(30)]
    assert [told.tracks.tolist() for told in seen] == [[1, 2]] * 30
    assert np.abs(seen[-1].boxes - [walker(29, 50), walker(11, 120)]).max() < 1.0


@pytest.mark.parametrize("name", TRACKERS)
def test_classes_are_tracked_apart(name: str) -> None:
    """The same box, now as a car and now as a person, is two objects."""
    tracker = TRACKERS[name]()
    numbers = {int(t) for f in range(12) for t in step(tracker, [walker(f)], labels=int(f >= 6)).tracks}
    assert len(numbers) == 2


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_and_boxes_without_sense_are_no_error(name: str) -> None:
    tracker = TRACKERS[name]()
    assert len(step(tracker, []).tracks) == 0
    flat, outside, unknown = [5.0, 5.0, 5.0, 9.0], [-50.0, -50.0, -10.0, -10.0], [float("nan"), 0.0, 1.0, 1.0]
    for frame in range(5):
        told = step(tracker, [walker(frame), flat, outside, unknown])
        assert np.isfinite(told.boxes).all()
    assert len(told.tracks) == 2  # the walker, and what stands outside the picture


def test_sort_forgets_after_max_age_and_byte_track_remembers() -> None:
    def numbers(tracker: Tracker, hidden: int) -> set[int]:
        told = [step(tracker, [] if 10 <= f < 10 + hidden else [walker(f)]) for f in range(40)]
        return {int(track) for frame in told for track in frame.tracks}

    assert len(numbers(Sort(), 5)) == 2
    assert len(numbers(Sort(max_age=10), 5)) == 1
    assert len(numbers(ByteTrack(), 5)) == 1
    assert len(numbers(ByteTrack(buffer=3), 5)) == 2


def test_sort_waits_for_min_hits_and_byte_track_for_a_second_frame() -> None:
    def first_told(tracker: Tracker) -> int:
        for _ in range(10):
            step(tracker, [])
        return next(f for f in range(10) if len(step(tracker, [walker(f)]).tracks))

    assert first_told(Sort()) == 3
    assert first_told(Sort(min_hits=1)) == 1
    assert first_told(ByteTrack()) == 1


def test_byte_track_keeps_an_object_whose_score_falls_and_begins_none_there() -> None:
    """Algorithm 1: weak boxes go on with what already moves, and begin nothing."""
    tracker = ByteTrack()
    told = [step(tracker, [walker(f), walker(f, 200)], [0.9 if f < 5 else 0.3, 0.3]) for f in range(20)]
    assert [frame.tracks.tolist() for frame in told] == [[1]] * 20
    strong = Sort(score_threshold=0.6)
    lost = [step(strong, [walker(f)], [0.9 if f < 5 else 0.3]) for f in range(20)]
    assert len(lost[-1].tracks) == 0


def tud_campus() -> Path:
    """The folder with SORT's public detections as det.txt, which are the authors' and are not shipped here."""
    folder = Path(os.environ.get("HEADRACE_TUD_CAMPUS", "/nonexistent"))
    if not (folder / "det.txt").is_file():
        pytest.skip("TUD-Campus: HEADRACE_TUD_CAMPUS names no folder with the detections, det.txt")
    return folder


def corners(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)


def test_sort_reaches_the_published_figures_on_tud_campus() -> None:
    """Bewley et al. 2016, table 1's settings on this sequence: MOTA 62.7, FP 15, FN 113, 6 identity switches."""
    detections = np.loadtxt(tud_campus() / "det.txt", delimiter=",")
    truth = np.loadtxt(Path(motmetrics.__file__).parent / "data" / "TUD-Campus" / "gt.txt", delimiter=",")
    tracker, frames = Sort(), []
    for number in range(1, int(truth[:, 0].max()) + 1):
        found, true = detections[detections[:, 0] == number], truth[truth[:, 0] == number]
        told = tracker.update(corners(found), found[:, 6], np.zeros(len(found), np.int64))
        frames.append(Frame(corners(true), true[:, 1].astype(np.int64), told.boxes, told.tracks))
    reached = judge_sequence(frames).measures()
    assert round(100 * reached["mota"], 1) == 62.7
    assert (reached["fp"], reached["fn"], reached["id_switches"]) == (15, 113, 6)
