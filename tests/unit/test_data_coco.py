"""COCO's JSON: the same annotations as VOC's, from files of any size, and whatever is wrong with one is named."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from annotated import picture, run, samples, told
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace.data import Manifest
from headrace.data.coco_json import read_coco
from headrace.data.strategies import SPLITS

pytestmark = pytest.mark.usefixtures("annotated_tasks")

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def image(number, **given):
    return {"id": number, "file_name": f"{number:03d}.jpg", "height": 40, "width": 60} | given


def box(number, of, bbox=(10, 5, 20, 20), category=17, **given):
    return {"id": number, "image_id": of, "category_id": category, "bbox": list(bbox), "iscrowd": 0} | given


def write(folder, images, annotations, path="annotations/instances_all.json", pictures="all", **more):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    document = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES} | more
    (folder / path).write_text(json.dumps(document))
    (folder / pictures).mkdir(parents=True, exist_ok=True)
    for entry in images:
        name = folder / pictures / str(entry["file_name"])
        if not name.exists():
            name.write_bytes(picture([entry["id"], *pictures.encode()]))
    return folder


def fill(folder, extra=(), images=(), **more):
    """Twenty pictures with a cat or a dog, and EXTRA annotations and IMAGES."""
    numbers = range(20)
    boxes = [box(n, n, category=17 + n % 2) for n in numbers]
    return write(folder, [*map(image, numbers), *images], [*boxes, *extra], **more)


def ends(result):
    return [(where.split("#")[1], reason, action) for where, reason, action in told_by(result)]


def told_by(result):
    return [(p["uri"], p["reason"], p["action"]) for p in result.summary["annotations"]["problems"]["named"]]


def annotation(result, store, name):
    return samples(result, store)[name].labels["annotation"]


def test_boxes_are_read_with_crowds_and_pictures_without_any(data, split_part, store):
    fill(data, [box(100, 3, (0, 0, 60, 40), 18, iscrowd=1), box(101, 3, (1, 2, 3.5, 4), 18)], [image(20)])
    result = run(data, split_part, store, format="coco")
    assert annotation(result, store, "003.jpg") == {
        "size": [40, 60],
        "boxes": [[10, 5, 30, 25], [0, 0, 60, 40], [1, 2, 4.5, 6]],
        "names": ["dog", "dog", "dog"],
        "crowd": [False, True, False],
    }
    assert annotation(result, store, "020.jpg")["boxes"] == []
    assert result.summary["schema"]["classes"] == ["cat", "dog"]
    assert sum(result.summary["counts"].values()) == 21
    assert told(result) == []


BAD = {
    "no width": (box(9, 3, (5, 5, 0, 9)), "9", "cat: bbox [5, 5, 0, 9]: the box has no area", "dropped"),
    "negative": (box(9, 3, (5, 5, 9, -9)), "9", "cat: bbox [5, 5, 9, -9]: the box has no area", "dropped"),
    "outside": (box(9, 3, (65, 5, 9, 9)), "9", "cat: the box [65, 5, 74, 14] lies outside of the picture of 60 x 40",
                "dropped"),
    "reaching out": (box(9, 3, (50, 5, 30, 9)), "9",
                     "cat: the box [50, 5, 80, 14] reaches out of the picture of 60 x 40", "clipped"),
    "no bbox": (box(9, 3) | {"bbox": None}, "9", "cat: it has no bbox", "dropped"),
    "three numbers": (box(9, 3, (5, 5, 9)), "9", "cat: bbox [5, 5, 9]: not four numbers", "dropped"),
    "text": (box(9, 3) | {"bbox": "1234"}, "9", "cat: bbox 1234: not four numbers", "dropped"),
    "not a number": (box(9, 3, (5, 5, float("nan"), 9)), "9", "cat: bbox [5, 5, nan, 9]: not four numbers", "dropped"),
    "huge": (box(9, 3, (5, 5, 10**400, 9)), "9", "not four numbers", "dropped"),
    "another category": (box(9, 3, category=5), "9", "an object: category_id 5 is none of the categories", "dropped"),
    "a category that is no id": (box(9, 3, category={"a": 1}), "9", "category_id {'a': 1} is none of the", "dropped"),
    "of no image": (box(9, 77), "9", "of an image that is not there (77)", "dropped"),
    "without image": ({"id": 9}, "9", "of an image that is not there (None)", "dropped"),
    "the same again": (box(9, 4), "9", "cat: the box [10, 5, 30, 25] a second time", "dropped"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_annotation_is_named_by_file_and_id_and_nothing_else_is_lost(data, split_part, store, kind):
    bad, place, reason, action = BAD[kind]
    result = run(fill(data, [bad]), split_part, store, format="coco")
    ((where, given, done),) = told_by(result)
    assert where == f"{data}/annotations/instances_all.json#{place}"
    assert reason in given
    assert done == action
    assert sum(result.summary["counts"].values()) == 20
    assert annotation(result, store, "003.jpg")["boxes"][0] == [10, 5, 30, 25]


def test_images_that_come_twice_or_without_size_or_file_are_named(data, split_part, store):
    images = [
        image(3, file_name="007.jpg"),
        image(31, file_name="008.jpg"),
        image(32, width=None),
        image(33, file_name="gone.jpg"),
        image(34, file_name=""),
    ]
    write(data, [image(32)], [], path="x.json")
    (data / "x.json").unlink()
    fill(data)
    document = json.loads((data / "annotations" / "instances_all.json").read_text())
    document["images"] += images
    (data / "annotations" / "instances_all.json").write_text(json.dumps(document))
    result = run(data, split_part, store, format="coco", max_corrupt=0.2)
    assert ends(result) == [
        ("images/3", "an image's id a second time", "dropped"),
        (
            "images/31",
            "the picture all/008.jpg has an entry already: annotations/instances_all.json#images/8",
            "dropped",
        ),
        ("images/32", "it does not say the picture's size", f"taken from {data}/all/032.jpg"),
    ]
    assert [(f["uri"].split("#")[1], f["reason"]) for f in result.summary["left_out"]["files"]] == [
        ("images/33", "an annotation without picture: 'gone.jpg'"),
        ("images/34", "an image without file_name"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"images": [{"id": 1}', "it ends too early"),
        ('{"images": [1 2]}', "',' is missing in line 1, column 15"),
        ('{"images": [}', "Expecting value"),
        ("", "it ends too early"),
        ("<html>", "Expecting value"),
        ('{"images": [' + "[" * 100_000 + "]}", "nested too deep|ends too early|Expecting"),
        ('{"images": [' + "9" * 5000 + "]}", "digits"),
        ("{[1]: 2}", "a key is no text"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(data, split_part, store, text, reason):
    fill(data)
    (data / "annotations" / "instances_more.json").write_text(text)
    with pytest.raises(DataInvalid, match="annotation files cannot be read") as error:
        run(data, split_part, store, format="coco")
    (finding,) = error.value.findings
    assert finding.where == f"{data}/annotations/instances_more.json"
    assert any(part in finding.given for part in reason.split("|"))


def test_bytes_that_are_no_utf_8_are_refused(data, split_part, store):
    fill(data)
    (data / "annotations" / "instances_more.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(DataInvalid) as error:
        run(data, split_part, store, format="coco")
    assert "not UTF-8" in error.value.findings[0].given


def test_captions_beside_instances_are_not_read_and_other_json_is_no_annotation(data, split_part, store):
    fill(data)
    (data / "annotations" / "captions_all.json").write_text("broken {")
    result = run(data, split_part, store, format="coco")
    ignored = {named["uri"].rsplit("/", 1)[-1] for named in result.summary["ignored"]["files"]}
    assert ignored == {"captions_all.json"}
    (data / "annotations" / "instances_all.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataInvalid, match="holds no COCO annotation file"):
        run(data, split_part, store, format="coco")


def test_several_files_are_one_set_and_a_name_in_two_folders_goes_by_the_files_name(data, split_part, store):
    for split, category in (("train2017", 17), ("val2017", 18)):
        images = [image(number) for number in range(10)]
        boxes = [box(number, number, category=category) for number in range(10)]
        write(data, images, boxes, f"annotations/instances_{split}.json", split)
    result = run(data, split_part, store, format="coco")
    assert {name: sum(by.values()) for name, by in result.summary["classes"].items()} == {"cat": 10, "dog": 10}
    assert told(result) == []


def test_files_beside_their_pictures_and_windows_paths_are_understood(data, split_part, store):
    for folder in ("train", "valid"):
        images = [image(number, file_name=f"{folder}{number}.jpg") for number in range(10)]
        write(data, images, [box(n, n) for n in range(10)], f"{folder}/_annotations.coco.json", folder)
    path = data / "train" / "_annotations.coco.json"
    path.write_text(path.read_text().replace("train1.jpg", "C:\\\\pics\\\\train1.jpg"))
    result = run(data, split_part, store, format="coco")
    assert sum(result.summary["counts"].values()) == 20
    assert result.summary["left_out"]["count"] == 0


def test_polygons_and_run_lengths_become_a_mask_with_small_objects_on_top(data, split_part, store):
    counts = [40 * 50, 10, 30, 10, 30 + 40 * 8]
    fill(
        data,
        [
            box(100, 20, (0, 0, 30, 40), 18, segmentation=[[0, 0, 30, 0, 30, 40, 0, 40]]),
            box(101, 20, (10, 10, 10, 10), 17, segmentation=[[10, 10, 20, 10, 20, 20, 10, 20]]),
            box(102, 20, (50, 0, 2, 10), 17, iscrowd=1, segmentation={"counts": counts, "size": [40, 60]}),
        ],
        [image(20), image(21), image(22)],
    )
    document = json.loads((data / "annotations" / "instances_all.json").read_text())
    for entry in document["annotations"][:19]:
        entry["segmentation"] = [[10, 5, 30, 5, 30, 25, 10, 25]]
    document["annotations"].append(box(103, 22, segmentation=[[1, 2, 3, 4]]))
    (data / "annotations" / "instances_all.json").write_text(json.dumps(document))
    result = run(data, split_part, store, task="masks", format="coco")
    pixels = np.asarray(Image.open(io.BytesIO(annotation(result, store, "020.jpg")["mask"])))
    expected = np.zeros((40, 60), np.uint8)
    expected[:, :30] = 2
    expected[10:20, 10:20] = 1
    expected[:10, 50:52] = 255
    assert np.array_equal(pixels, expected)
    assert not np.asarray(Image.open(io.BytesIO(annotation(result, store, "021.jpg")["mask"]))).any()
    ignored = {n["uri"].rsplit("/", 1)[-1]: n["reason"].rsplit("#", 1)[-1] for n in result.summary["ignored"]["files"]}
    assert ignored == {
        "019.jpg": "19 has no segmentation",
        "022.jpg": "103 cannot be read: a polygon of fewer than three corners",
    }
    plain = run(data, split_part, store, format="coco")
    assert "mask" not in annotation(plain, store, "020.jpg")


@pytest.mark.parametrize(
    "shape",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1e308, -1e308, 3, 4, 5, 6]],
        [["a"] * 6],
        [3],
        {"counts": [2400]},
        {"counts": [2400], "size": [60, 40]},
        {"counts": [2399], "size": [40, 60]},
        {"counts": [-1, 2401], "size": [40, 60]},
        {"counts": "~", "size": [40, 60]},
        {"counts": None, "size": 3},
    ],
)
def test_a_shape_that_cannot_be_drawn_costs_its_picture_and_is_named(data, split_part, store, shape):
    good = [[10, 5, 30, 5, 30, 25, 10, 25]]
    boxes = [box(n, n, category=17 + n % 2, segmentation=good) for n in range(20)]
    write(data, [image(n) for n in range(21)], [*boxes, box(100, 20, segmentation=shape)])
    result = run(data, split_part, store, task="masks", format="coco")
    (named,) = result.summary["ignored"]["files"]
    assert named["uri"].endswith("020.jpg")
    assert "#100 cannot be read: " in named["reason"]


def test_what_is_not_wanted_of_a_file_is_not_kept():
    text = json.dumps(
        {"images": [image(1)], "categories": CATEGORIES, "annotations": [box(1, 1, segmentation=[[1] * 99])]}
    )
    assert read_coco(text, segmentations=False).annotations[1][0].segmentation is None
    assert read_coco(text, segmentations=True).annotations[1][0].segmentation == [[1] * 99]
    assert read_coco("[]", segmentations=False) is None
    assert read_coco('{"images": [], "annotations": [], "categories": []}', segmentations=False).images == {}


def test_a_picture_where_its_file_says_is_nobody_else_s(data, split_part, store):
    """Three files of the same names, as Roboflow exports them; one picture of the first is missing."""
    for place, folder in enumerate(("test", "train", "valid")):
        entries = [image(n, file_name=f"{n}.jpg") for n in range(6)]
        boxes = [box(n, n, category=17 + place % 2) for n in range(6)]
        write(data, entries, boxes, f"{folder}/_annotations.coco.json", folder)
    (data / "test" / "0.jpg").unlink()
    result = run(data, split_part, store, format="coco", max_corrupt=0.2)
    (left_out,) = result.summary["left_out"]["files"]
    assert left_out["uri"].endswith("test/_annotations.coco.json#images/0")
    found = samples_by_uri(result, store)
    assert len(found) == 17
    assert {uri.rsplit("/", 2)[1]: said["names"][0] for uri, said in found.items()} == {
        "test": "cat",
        "train": "dog",
        "valid": "cat",
    }
    assert all(said["names"] == ["dog" if "/train/" in uri else "cat"] for uri, said in found.items())


def samples_by_uri(result, store):
    manifest = Manifest(store, result.fingerprint)
    shards = [manifest.shard(split, 0, 1) for split in SPLITS]
    return {s.uri(i): s[i].labels["annotation"] for s in shards for i in range(len(s))}
