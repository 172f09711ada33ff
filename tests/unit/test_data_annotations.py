"""Annotated pictures: one form of annotation, split by class, and clean data without a word."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from annotated import BCCD, drawn, fill, picture, problems, put, run, samples, sheet, told
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, classes_table, findings_of
from headrace.data.strategies import rarest

pytestmark = pytest.mark.usefixtures("annotated_tasks")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_a_picture_comes_with_its_boxes_as_half_open_pixels_from_zero(data, split_part, store):
    fill(data)
    put(data, "x", sheet(drawn("cat", (1, 1, 60, 40)), drawn("dog", (10, 20.5, 30, 40), 1)), picture(1))
    sample = samples(run(data, split_part, store), store)["x.jpg"]
    assert sample.payload == picture(1)
    assert sample.labels["annotation"] == {
        "size": [40, 60],
        "boxes": [[0, 0, 60, 40], [9, 19.5, 30, 40]],
        "names": ["cat", "dog"],
        "difficult": [False, True],
    }


def test_the_manifest_holds_compact_sorted_json(data, split_part, store):
    result = run(fill(data), split_part, store)
    text = Manifest(store, result.fingerprint).shard("train", 0, 1).labels()[0]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_classes_count_objects_and_pictures_without_any_are_kept(data, split_part, store):
    for number in range(20):
        put(
            data,
            f"{number}",
            sheet(drawn("b"), drawn("b", (1, 1, 9, 9)), drawn("a", (3, 3, 9, 9))),
            picture(number),
        )
        put(data, f"empty{number}", sheet(), picture(100 + number))
    result = run(data, split_part, store)
    assert result.summary["schema"] == {"label": "annotation", "classes": ["a", "b"], "columns": []}
    assert result.summary["counts"] == {"train": 28, "validation": 6, "test": 6}
    assert classes_table(result.summary) == [
        {"class": "a", "train": 14, "validation": 3, "test": 3},
        {"class": "b", "train": 28, "validation": 6, "test": 6},
        {"class": "objects", "train": 42, "validation": 9, "test": 9},
        {"class": "pictures without objects", "train": 14, "validation": 3, "test": 3},
        {"class": "pictures", "train": 28, "validation": 6, "test": 6},
    ]


def test_a_picture_belongs_to_the_stratum_of_its_rarest_class():
    names = [["a", "a", "b"], ["a"], [], ["c", "a"], ["b", "b"]]
    assert rarest(names).tolist() == [1, 2, 3, 0, 1]


def test_a_rare_class_is_on_every_side(data, split_part, store):
    for number in range(60):
        objects = [drawn("common"), *([drawn("rare", (1, 1, 9, 9))] if number % 10 == 0 else [])]
        put(data, f"{number}", sheet(*objects), picture(number))
    for seed in range(5):
        rare = run(data, split_part, store, seed=seed).summary["classes"]["rare"]
        assert rare == {"train": 4, "validation": 1, "test": 1}


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"BCCD is not at {BCCD}")
def test_bccd_is_split_and_its_two_degenerate_boxes_are_named(split_part, store):
    result = run(BCCD, split_part, store)
    assert told(result) == [
        ("BloodImage_00338.xml#12", "RBC: xmin 504, ymin 337, xmax 504, ymax 337: the box has no area", "dropped"),
        ("BloodImage_00343.xml#3", "RBC: xmin 181, ymin 329, xmax 181, ymax 329: the box has no area", "dropped"),
    ]
    assert sum(result.summary["counts"].values()) == 364
    assert {name: sum(counts.values()) for name, counts in result.summary["classes"].items()} == {
        "Platelets": 361, "RBC": 4153, "WBC": 372,
    }  # fmt: skip
    assert [finding.where.rsplit("/", 1)[-1] for finding in findings_of(result.summary)][:2] == [
        "BloodImage_00338.xml#12",
        "BloodImage_00343.xml#3",
    ]


@pytest.mark.parametrize(("name", "pictures"), [("shapes", 240), ("digit-scenes", 1797)])
def test_the_generated_sets_are_clean_and_the_same_every_time(split_part, store, name, pictures):
    result = run(f"builtin:{name}", split_part, store)
    assert sum(result.summary["counts"].values()) == pictures
    assert problems(result) == []
    assert result.findings == ()


def test_shapes_have_one_to_four_objects_of_three_classes_that_fit_their_boxes(split_part, store):
    result = run("builtin:shapes", split_part, store)
    assert result.summary["schema"]["classes"] == ["circle", "square", "triangle"]
    found = samples(result, store)
    counted = Counter(len(sample.labels["annotation"]["names"]) for sample in found.values())
    assert set(counted) == {1, 2, 3, 4}
    inside = outside = 0.0
    for sample in list(found.values())[:40]:
        pixels = np.asarray(Image.open(io.BytesIO(sample.payload))).astype(int)
        ground = np.median(pixels.reshape(-1, 3), 0)
        covered = np.zeros(pixels.shape[:2], bool)
        for left, top, right, bottom in np.array(sample.labels["annotation"]["boxes"], int):
            covered[top:bottom, left:right] = True
        differs = np.abs(pixels - ground).max(2) > 60
        inside, outside = inside + differs[covered].mean() / 40, outside + differs[~covered].mean() / 40
    assert inside > 0.6
    assert outside < 0.02


def test_a_class_task_takes_pictures_whose_objects_are_of_one_class_and_names_the_others(data, split_part, store):
    fill(data)
    put(data, "both", sheet(drawn("cat"), drawn("dog", (1, 1, 9, 9))))
    put(data, "none", sheet())
    result = run(data, split_part, store, task="class")
    assert result.summary["schema"] == {"label": "label", "classes": ["cat", "dog"], "columns": []}
    assert samples(result, store)["cat3.jpg"].labels == {"label": "cat"}
    ignored = {Path(named["uri"]).name: named["reason"] for named in result.summary["ignored"]["files"]}
    assert ignored == {
        "both.jpg": "its objects are of 2 classes: cat, dog",
        "none.jpg": "it has no object, so no class",
    }


def test_a_class_and_an_annotation_go_together_as_an_annotation_of_one_class(data, split_part, store):
    fill(data)
    put(data, "both", sheet(drawn("cat"), drawn("dog", (1, 1, 9, 9))))
    result = run(data, split_part, store, task=("class", "boxes"))
    found = samples(result, store)
    assert len(found) == 20
    assert {tuple(set(sample.labels["annotation"]["names"])) for sample in found.values()} == {("cat",), ("dog",)}


def test_labels_that_do_not_go_together_are_refused(data, split_part, store):
    with pytest.raises(DataInvalid, match="boxes a annotation, number a number"):
        run(fill(data), split_part, store, task=("boxes", "number"))
