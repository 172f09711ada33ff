"""Annotated pictures: one form of annotation, split by class, and every bad box named by file and place."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, classes_table, findings_of, fingerprint_source, formats, split_data
from headrace.data.strategies import SPLITS, rarest
from headrace_models.catalog.cards import TaskCard

BCCD = Path("/work/shared/data/bccd/BCCD")
CARDS = {
    "boxes": TaskCard("boxes", "", "", label_kind="annotation"),
    "masks": TaskCard("masks", "", "", label_kind="annotation", masks=True),
    "class": TaskCard("class", "", "", label_kind="class"),
    "number": TaskCard("number", "", "", label_kind="number"),
}


@pytest.fixture(autouse=True)
def cards(monkeypatch):
    monkeypatch.setattr(formats, "tasks", lambda: CARDS)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def picture(number, size=(60, 40), kind="JPEG", **options):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def drawn(name="cat", box=(11, 6, 30, 25), difficult=0):
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def sheet(*objects, size=(60, 40)):
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation>{told}{''.join(objects)}</annotation>"


def put(folder, name, xml, content=None):
    for kind in ("Annotations", "JPEGImages"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if xml is not None:
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
    if content != b"":
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(content or picture(sum(name.encode()) * 7))


def fill(folder, each=10):
    for number in range(each):
        for name in ("cat", "dog"):
            put(folder, f"{name}{number}", sheet(drawn(name)), picture([number, *name.encode()]))
    return folder


def run(source, split_part, store, task="boxes", **given):
    part = split_part(source, format=given.pop("format", "voc"), task=task, **given)
    if isinstance(task, tuple):
        part["tasks"] = [{"name": name, "args": {}} for name in task]
    return split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)


def samples(result, store):
    manifest = Manifest(store, result.fingerprint)
    shards = [manifest.shard(split, 0, 1) for split in SPLITS]
    return {Path(s.uri(i)).name: s[i] for s in shards for i in range(len(s))}


def told(result):
    return [(named["uri"].rsplit("/", 1)[-1], named["reason"], named["action"]) for named in problems(result)]


def problems(result):
    return result.summary["annotations"]["problems"]["named"]


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
