"""CLEAR-MOT and IDF1, held to motmetrics (which breaks on NumPy 2 unless distances are given to it)."""

from __future__ import annotations

from collections.abc import Sequence

import motmetrics
import numpy as np
import pytest

from headrace_models.tracking.measures import Counts, Frame, judge_sequence
from headrace_models.tracking.overlap import iou

SEQUENCES = 100


def boxes_at(centres: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - size / 2, centres + size / 2], axis=1)


def random_sequence(seed: int) -> list[Frame]:
    """Objects that walk about, leave and come back; tracks that jitter, miss, swap, break and see ghosts."""
    rng = np.random.default_rng(seed)
    objects, frames = int(rng.integers(1, 8)), int(rng.integers(5, 40))
    centres = rng.uniform(0, 100, (objects, 2))
    size = rng.uniform(10, 30, (objects, 2))
    names = rng.permutation(100)[:objects]
    follows = np.arange(objects)
    made = []
    for _ in range(frames):
        centres = centres + rng.normal(0, 3, centres.shape)
        there = rng.random(objects) > 0.15
        if rng.random() < 0.2:
            follows = rng.permutation(follows)
        if rng.random() < 0.1:
            follows = follows + objects * int(rng.integers(0, 2))
        seen = rng.random(objects) > 0.2
        ghosts = int(rng.integers(0, 3))
        found = np.concatenate(
            [
                boxes_at(centres + rng.normal(0, 2.5, centres.shape), size)[seen],
                boxes_at(rng.uniform(0, 100, (ghosts, 2)), rng.uniform(10, 30, (ghosts, 2))),
            ]
        )
        tracks = np.concatenate([follows[seen], 1000 + rng.permutation(50)[:ghosts]])
        made.append(Frame(boxes_at(centres, size)[there], names[there], found, tracks))
    return made


def oracle(frames: Sequence[Frame]) -> dict[str, float]:
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame in frames:
        distance = 1 - iou(frame.true_boxes, frame.boxes)
        accumulator.update(frame.objects, frame.tracks, np.where(distance > 0.5, np.nan, distance))
    names = ["mota", "idf1", "motp", "num_switches", "num_false_positives", "num_misses", "num_fragmentations"]
    row = motmetrics.metrics.create().compute(accumulator, metrics=names, name="one").iloc[0]
    return dict(row)


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_our_measures_are_the_oracles(seed: int) -> None:
    frames = random_sequence(seed)
    ours, theirs = judge_sequence(frames).measures(), oracle(frames)
    assert ours["mota"] == pytest.approx(theirs["mota"], abs=1e-12)
    assert ours["idf1"] == pytest.approx(theirs["idf1"], abs=1e-12)
    assert ours["id_switches"] == theirs["num_switches"]
    assert ours["fp"] == theirs["num_false_positives"]
    assert ours["fn"] == theirs["num_misses"]
    assert ours["fragments"] == theirs["num_fragmentations"]
    if np.isfinite(theirs["motp"]):
        assert 1 - ours["motp"] == pytest.approx(theirs["motp"], abs=1e-12)  # the oracle's is a distance


def test_the_random_sequences_have_every_kind_of_error() -> None:
    """Without them the comparison would show nothing."""
    total = Counts()
    for seed in range(SEQUENCES):
        total += judge_sequence(random_sequence(seed))
    assert min(total.matches, total.misses, total.false_positives, total.switches, total.fragments) > 100
    assert 0.2 < total.identified / total.true < 0.8


def test_nothing_at_all_is_zero_and_no_error() -> None:
    empty = np.zeros((0, 4))
    none = np.zeros(0, np.int64)
    assert set(judge_sequence([Frame(empty, none, empty, none)]).measures().values()) == {0.0}
