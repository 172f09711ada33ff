"""Average precision against pycocotools, and what objects that do not count do to it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from headrace_models.detection.outputs import Detections, DetectorOutput
from headrace_models.tasks.detection_metrics import DetectionMetrics

CLASSES, PICTURES = 4, 25
Picture = tuple[np.ndarray, ...]  # what `DetectionMetrics.add` takes


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.integers(0, 60, (count, 2))
    return np.concatenate([low, low + rng.integers(4, 40, (count, 2))], axis=1).astype(np.float32)


def picture(rng: np.random.Generator) -> Picture:
    """Objects, some of them crowds; detections near them, far from them, doubled, with equal scores."""
    true = boxes(rng, int(rng.integers(0, 9)))
    true_labels = rng.integers(0, CLASSES - 1, len(true))  # the last class has no object anywhere
    near = np.repeat(true, 2, axis=0) + rng.integers(-4, 5, (2 * len(true), 4)).astype(np.float32)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    found = np.concatenate([near, boxes(rng, 5)])
    labels = np.concatenate([np.repeat(true_labels, 2), rng.integers(0, CLASSES, 5)])
    scores = rng.integers(1, 20, len(found)).astype(np.float32) / 20
    order = np.argsort(-scores, kind="stable")
    crowd = rng.random(len(true)) < 0.15
    return found[order], scores[order], labels[order], true, true_labels, crowd, crowd


def coco(pictures: list[Picture]) -> COCOeval:
    truth, found = [], []
    for number, (some, scores, labels, true, true_labels, _, crowd) in enumerate(pictures, 1):
        for box, label, many in zip(true.tolist(), true_labels.tolist(), crowd.tolist(), strict=True):
            x1, y1, x2, y2 = box
            size = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            truth.append({"id": len(truth) + 1, "image_id": number, "category_id": label, "iscrowd": int(many), **size})
        for box, label, score in zip(some.tolist(), labels.tolist(), scores.tolist(), strict=True):
            x1, y1, x2, y2 = box
            found.append({"image_id": number, "category_id": label, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "info": {},
            "images": [{"id": number, "width": 100, "height": 100} for number in range(1, len(pictures) + 1)],
            "categories": [{"id": label} for label in range(CLASSES)],
            "annotations": truth,
        }
        data.createIndex()
        judge = COCOeval(data, data.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def measured(pictures: list[Picture]) -> DetectionMetrics:
    metrics = DetectionMetrics(CLASSES)
    for one in pictures:
        metrics.add(*one)
    return metrics


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_pycocotools_to_the_last_digit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = [picture(rng) for _ in range(PICTURES)]
    judge, metrics = coco(pictures), measured(pictures)
    wanted = judge.eval["precision"][:, :, :, 0, 2].mean(axis=1).T  # [classes, thresholds]
    own = metrics.average_precisions()
    present = metrics.wanted > 0
    assert present[:-1].all()
    assert not present[-1]
    np.testing.assert_allclose(own[present], wanted[present], atol=1e-9)
    assert 0.1 < metrics.compute()["map"] < 0.9  # the test has something to tell apart
    for place, name in enumerate(("map", "map50", "map75")):
        assert metrics.compute()[name] == pytest.approx(judge.stats[place], abs=1e-9)


def test_workers_together_measure_what_one_measures() -> None:
    rng = np.random.default_rng(0)
    pictures = [picture(rng) for _ in range(PICTURES)]
    whole = measured(pictures)
    merged = DetectionMetrics(CLASSES)
    merged.merge([measured(part).state() for part in (pictures[:7], [], pictures[7:])])
    assert merged.compute() == whole.compute()
    assert merged.pictures == PICTURES


ONE = np.array([[10, 10, 30, 30]], np.float32)
FAR = np.array([[60, 60, 80, 80]], np.float32)


def judged(found: list[tuple[np.ndarray, float]], *, ignore: bool, crowd: bool = False) -> dict[str, float]:
    """Two objects of class 0, the second one that does not count if so said."""
    metrics = DetectionMetrics(1)
    flags = np.array([False, ignore])
    metrics.add(
        np.concatenate([box for box, _ in found]),
        np.array([score for _, score in found], np.float32),
        np.zeros(len(found), np.int64),
        np.concatenate([ONE, FAR]),
        np.zeros(2, np.int64),
        flags,
        flags & crowd,
    )
    return metrics.compute()


def test_what_is_found_of_a_difficult_object_is_neither_right_nor_wrong() -> None:
    found = [(FAR, 0.9), (FAR + 1, 0.8), (ONE, 0.5)]
    assert judged(found, ignore=True)["map50"] == 1.0
    assert judged(found, ignore=False)["map50"] < 1.0
    assert judged([(ONE, 0.5)], ignore=True)["map50"] == 1.0  # nor is it missed


def test_a_crowd_overlaps_with_all_that_lies_inside_it() -> None:
    inside = np.array([[62, 62, 66, 66]], np.float32)
    assert judged([(inside, 0.9), (ONE, 0.5)], ignore=True, crowd=True)["map50"] == 1.0
    assert judged([(inside, 0.9), (ONE, 0.5)], ignore=True)["map50"] == pytest.approx(0.5)


def test_padding_counts_for_nothing_and_pictures_without_objects_only_by_what_is_found_in_them() -> None:
    none = torch.zeros(2, 3, 4)
    boxes_found = torch.zeros(2, 2, 4)
    boxes_found[:, 0] = torch.from_numpy(ONE[0])
    truth = none.clone()
    truth[0, 0] = torch.from_numpy(ONE[0])
    batch: dict[str, Any] = {
        "boxes": truth,
        "labels": torch.tensor([[0, -1, -1], [-1, -1, -1]]),
        "ignore": torch.zeros(2, 3, dtype=torch.bool),
        "crowd": torch.zeros(2, 3, dtype=torch.bool),
    }
    for score, expected in ((0.1, 1.0), (0.9, 0.5)):  # of the false one
        scores = torch.tensor([[0.5, 0.0], [score, 0.0]])
        detections = Detections(boxes_found, scores, torch.tensor([[0, -1], [0, -1]]))
        metrics = DetectionMetrics(1)
        metrics.update(DetectorOutput(None, detections), batch)
        assert metrics.compute()["map50"] == pytest.approx(expected)


def test_without_a_single_object_all_is_zero() -> None:
    assert DetectionMetrics(3).compute() == {"map50": 0.0, "map": 0.0, "map75": 0.0}
