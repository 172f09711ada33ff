"""What `headrace init` is told of a folder: enough to write a spec that runs, and what to mind."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated import drawn, picture, put, sheet
from PIL import Image

from headrace.base.errors import DataInvalid, MissingExtra
from headrace.data import describe, describe_source, fingerprint_source, split_data


def fill(folder, classes=("cat", "dog"), each=10):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            file = io.BytesIO()
            pixels = np.random.default_rng([index, *name.encode()]).integers(0, 255, (6, 5), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "PNG")
            (folder / name / f"{index}.png").write_bytes(file.getvalue())
    return folder


def words(found):
    return " | ".join(str(problem) for problem in found["problems"])


def test_an_image_folder_is_described_with_its_problems(tmp_path, split_part, store):
    data = fill(tmp_path / "pets")
    (data / "bird").mkdir()
    (data / "notes.txt").write_text("x")
    (data / "cat" / "0.png").write_bytes((data / "cat" / "0.png").read_bytes()[:50])
    found = describe_source(str(data))
    assert (found["format"], found["task"], found["label"]) == ("image-folder", "image-classification", None)
    assert (found["samples"], found["classes"]) == (20, {"cat": 10, "dog": 10})
    assert found["max_corrupt"] == 0.05
    assert "bird" in words(found)
    assert "notes.txt" in words(found)
    assert "0.png" in words(found)
    part = split_part(found["source"], max_corrupt=found["max_corrupt"])
    split = split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)
    assert split.summary["left_out"]["count"] == 1


def test_a_sound_folder_needs_no_allowance(tmp_path):
    found = describe_source(str(fill(tmp_path / "pets")))
    assert (found["max_corrupt"], found["problems"]) == (None, [])


def test_a_folder_that_is_split_already_is_described_by_its_train_part(tmp_path):
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "val")
    found = describe_source(str(tmp_path / "pets"))
    assert found["source"] == str(tmp_path / "pets" / "train")
    assert found["classes"] == {"cat": 10, "dog": 10}
    assert "split already" in words(found)


def test_a_csv_is_described_with_label_task_id_and_useless_columns(tmp_path):
    rows = [f"{i},{i},name {i},{i * 2},{'ab'[i % 2]}," for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join([",id,name,size,Target,void", *rows]))
    found = describe_source(str(tmp_path / "t.csv"))
    assert (found["format"], found["task"], found["label"]) == ("csv", "tabular-classification", "Target")
    assert (found["id"], found["samples"], found["classes"]) == ("id", 300, {"a": 150, "b": 150})
    assert (found["features"], found["columns"]) == (["size"], {"size": "number"})
    assert "name" in words(found)
    assert "void" in words(found)


def test_a_number_to_predict_is_a_regression_and_few_whole_numbers_are_classes(tmp_path):
    index = np.arange(100)
    pq.write_table(pa.table({"a": index, "b": index / 3}), tmp_path / "r.parquet")
    found = describe_source(str(tmp_path / "r.parquet"))
    assert (found["task"], found["label"], found["features"]) == ("tabular-regression", "b", None)
    pq.write_table(pa.table({"y": index % 3, "a": index * 1.0}), tmp_path / "c.parquet")
    found = describe_source(str(tmp_path / "c.parquet"))
    assert (found["task"], found["label"], found["classes"]) == (
        "tabular-classification", "y", {"0": 34, "1": 33, "2": 33},
    )  # fmt: skip


def test_equal_rows_under_two_labels_propose_that_each_row_counts(tmp_path, split_part, store):
    rows = [f"{i % 7},{i % 3}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *rows]))
    found = describe_source(str(tmp_path / "t.csv"))
    assert found["id"] == "file#row"
    part = split_part(found["source"], format="csv", label=found["label"], id=found["id"])
    split = split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)
    assert split.summary["counts"] == {"train": 42, "validation": 9, "test": 9}


def test_rows_without_a_label_are_told_and_allowed_for(tmp_path):
    rows = [f"{i},{'' if i < 5 else i % 2}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *rows]))
    found = describe_source(str(tmp_path / "t.csv"))
    assert found["max_corrupt"] == 0.05
    assert "5 rows without one" in words(found)


@pytest.mark.parametrize(
    ("name", "message"), [("notes.txt", "neither images nor tables"), ("a.png", "no class folders")]
)
def test_what_no_task_can_read_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataInvalid, match=message):
        describe_source(str(tmp_path))


def test_annotated_pictures_are_described_with_their_objects_and_problems(tmp_path, split_part, store):
    for number in range(20):
        put(tmp_path / "d", f"{number}", sheet(drawn("cat"), drawn("dog", (1, 1, 9, 9))), picture(number))
    put(tmp_path / "d", "bad", sheet(drawn("cat"), drawn("dog", (5, 5, 5, 5))))
    put(tmp_path / "d", "alone", sheet(), b"")
    put(tmp_path / "d", "bare", None)
    found = describe_source(str(tmp_path / "d"))
    assert (found["format"], found["task"], found["label"]) == ("voc", "object-detection", None)
    assert (found["samples"], found["classes"]) == (21, {"cat": 21, "dog": 20})
    assert found["max_corrupt"] == 0.05
    assert "bad.xml#1: dog: xmin 5, ymin 5, xmax 5, ymax 5: the box has no area" in words(found)
    assert "alone.xml: an annotation without picture" in words(found)
    assert "bare.jpg: a picture without annotation" in words(found)
    part = split_part(found["source"], format="voc", max_corrupt=found["max_corrupt"], task="object-detection")
    split = split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=lambda text: None)
    assert split.summary["left_out"]["count"] == 1


def test_coco_is_known_by_what_its_files_hold(tmp_path):
    data = tmp_path / "data"
    (data / "photos").mkdir(parents=True)
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 60} for n in range(9)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in range(9)]
    for n in range(9):
        (data / "photos" / f"{n}.jpg").write_bytes(picture(n))
    (data / "settings.json").write_text('{"images": 3}')
    (data / "export.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    )
    found = describe_source(str(data))
    assert (found["format"], found["samples"], found["classes"]) == ("coco", 9, {"cat": 9})
    (data / "export.json").write_text("{")
    assert describe_source(str(data))["format"] == "image-folder"


def sequences(folder, count, frames=3):
    for n in range(count):
        (folder / f"s{n}" / "img1").mkdir(parents=True)
        (folder / f"s{n}" / "gt").mkdir()
        (folder / f"s{n}" / "gt" / "gt.txt").write_text("1,1,1,1,10,20,1,1,1\n2,1,3,1,10,20,1,3,1\n9,1,1,1,5,5,1,1,1\n")
        for frame in range(1, frames + 1):
            (folder / f"s{n}" / "img1" / f"{frame:06d}.jpg").write_bytes(picture(10 * n + frame))
    return folder


def test_videos_are_known_by_their_truth_and_described_for_tracking(tmp_path):
    found = describe_source(str(sequences(tmp_path / "videos", 4)))
    assert (found["format"], found["task"], found["samples"]) == ("mot", "object-tracking", 12)
    assert found["classes"] == {"car": 4, "pedestrian": 4}
    assert "s0/gt/gt.txt#3: a box of frame 9, which is not there" in words(found)
    assert "videos: " not in words(found)
    one = describe_source(str(tmp_path / "videos" / "s1"))
    assert (one["format"], one["samples"]) == ("mot", 3)
    assert "videos: 1 — allowed: 3 or more: each lies in" in words(one)


def test_a_stray_truth_beside_class_folders_changes_nothing(tmp_path):
    data = sequences(fill(tmp_path / "pets", each=30), 1, frames=2)
    assert describe_source(str(data))["format"] == "image-folder"


def test_stray_xml_and_json_beside_class_folders_change_nothing(tmp_path):
    data = fill(tmp_path / "pets")
    (data / "cat" / "0.xml").write_text(sheet(drawn()))
    (data / "about.json").write_text('{"images": [], "annotations": [], "categories": 3}'[:-1])
    assert describe_source(str(data))["format"] == "image-folder"


def test_only_some_pictures_of_many_are_opened_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(describe, "MOST_OPENED", 5)
    for number in range(9):
        put(tmp_path / "d", f"{number}", sheet(drawn("cat")), picture(number))
    found = describe_source(str(tmp_path / "d"))
    assert (found["samples"], found["classes"]) == (9, {"cat": 5})
    assert "looked at: 5 of 9 pictures" in words(found)


def test_generated_scenes_are_described_too():
    assert describe_source("builtin:shapes")["task"] == "object-detection"
    assert describe_source("builtin:shape-tracks")["task"] == "object-tracking"


def test_on_the_base_install_pictures_are_not_opened_and_tables_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(describe.util, "find_spec", lambda name: None)
    data = fill(tmp_path / "pets")
    (data / "cat" / "0.png").write_bytes(b"broken")
    assert describe_source(str(data))["max_corrupt"] is None
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    put(tmp_path / "voc", "x", sheet(drawn()))
    sequences(tmp_path / "mot", 3)
    for name in ("t.csv", "voc", "mot"):
        with pytest.raises(MissingExtra):
            describe_source(str(tmp_path / name))


def test_builtin_digits_are_described():
    found = describe_source("builtin:digits")
    assert found["samples"] == 1797
    assert list(found["classes"]) == [str(i) for i in range(10)]
