"""Masks: whatever a source has becomes one PNG of the schema's class numbers, for tasks that want it."""

from __future__ import annotations

import io
import json
import os
from collections import Counter

import fsspec
import numpy as np
import pytest
from annotated import drawn, picture, put, run, samples, sheet, told
from PIL import Image
from pycocotools import mask as coco_mask

from headrace.base.errors import DataInvalid
from headrace.data import Manifest
from headrace.data.masks import polygon, run_lengths, unpacked
from headrace.data.strategies import SPLITS

pytestmark = pytest.mark.usefixtures("annotated_tasks")


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def put_mask(folder, name, pixels, mode="P"):
    (folder / "SegmentationClass").mkdir(exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.convert(mode).save(folder / "SegmentationClass" / f"{name}.png")


def fill(folder, names=("cat", "dog"), numbers=(1, 2), each=5):
    for name, number in zip(names, numbers, strict=True):
        for index in range(each):
            put(folder, f"{name}{index}", sheet(drawn(name)), picture([index, *name.encode()]))
            pixels = np.zeros((40, 60), np.uint8)
            pixels[5:25, 10:30] = number
            pixels[4] = 255
            put_mask(folder, f"{name}{index}", pixels)
    return folder


def mask_of(result, store, name):
    return np.asarray(Image.open(io.BytesIO(samples(result, store)[name].labels["annotation"]["mask"])))


def ignored(result):
    return {named["uri"].rsplit("/", 1)[-1]: named["reason"] for named in result.summary["ignored"]["files"]}


def test_a_task_that_wants_masks_gets_them_and_another_does_not(data, split_part, store):
    fill(data)
    wanted = run(data, split_part, store, task="masks")
    pixels = mask_of(wanted, store, "dog3.jpg")
    assert pixels.shape == (40, 60)
    assert (np.unique(pixels).tolist(), int((pixels == 2).sum())) == ([0, 2, 255], 400)
    assert told(wanted) == []
    plain = run(data, split_part, store)
    assert "mask" not in samples(plain, store)["dog3.jpg"].labels["annotation"]


def test_a_part_of_vocs_own_data_keeps_the_devkits_numbers(data, split_part, store):
    fill(data, ("cat", "dog"), (8, 12))
    result = run(data, split_part, store, task="masks")
    assert np.unique(mask_of(result, store, "cat0.jpg")).tolist() == [0, 1, 255]
    assert np.unique(mask_of(result, store, "dog0.jpg")).tolist() == [0, 2, 255]
    assert told(result) == []


def test_pictures_without_a_mask_or_with_one_that_does_not_fit_are_not_taken_and_named(data, split_part, store):
    fill(data)
    put(data, "none", sheet(drawn()))
    put(data, "small", sheet(drawn()))
    put_mask(data, "small", np.zeros((20, 30), np.uint8))
    result = run(data, split_part, store, task="masks")
    assert ignored(result) == {
        "none.jpg": "it has no mask",
        "small.jpg": "its mask is 30 x 20, the picture 60 x 40",
    }


def test_a_mask_in_colours_or_broken_leaves_its_picture_out(data, split_part, store):
    fill(data, each=10)
    for name in ("colours", "broken"):
        put(data, name, sheet(drawn()))
        put_mask(data, name, np.zeros((40, 60), np.uint8), "RGB")
    (data / "SegmentationClass" / "broken.png").write_bytes(b"no picture")
    left = run(data, split_part, store, task="masks", max_corrupt=0.1).summary["left_out"]["files"]
    assert [named["uri"].rsplit("/", 1)[-1] for named in left] == ["broken.jpg", "colours.jpg"]
    assert "cannot be decoded" in left[0]["reason"]
    assert "has colours (mode RGB); wanted: class numbers (L or P)" in left[1]["reason"]


def test_numbers_of_no_class_are_told_and_do_not_count(data, split_part, store):
    fill(data)
    put(data, "odd", sheet(drawn()))
    put_mask(data, "odd", np.full((40, 60), 9, np.uint8))
    result = run(data, split_part, store, task="masks")
    assert told(result) == [("odd.jpg", "class number 9 in its mask, but there are 2 classes", "not counted")]
    assert np.unique(mask_of(result, store, "odd.jpg")).tolist() == [255]


def test_numbers_in_another_order_than_the_sorted_classes_are_told(data, split_part, store):
    result = run(fill(data, numbers=(2, 1), each=3), split_part, store, task="masks")
    reasons = Counter(reason for _, reason, _ in told(result))
    assert reasons == {
        "class number 1 in its mask is cat, and no object of it is annotated": 3,
        "class number 2 in its mask is dog, and no object of it is annotated": 3,
    }


def test_a_mask_of_a_picture_as_stored_is_turned_with_it(data, split_part, store):
    fill(data)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:10] = 1
    put(data, "turned", sheet(drawn(box=(1, 1, 60, 10))), picture(77, exif=exif))
    put_mask(data, "turned", pixels)
    result = run(data, split_part, store, task="masks")
    ((left, top, right, bottom),) = samples(result, store)["turned.jpg"].labels["annotation"]["boxes"]
    found = mask_of(result, store, "turned.jpg")
    assert found.shape == (60, 40)
    assert (found[int(top) : int(bottom), int(left) : int(right)] == 1).all()
    assert int((found == 1).sum()) == 600


def test_a_mask_that_changed_or_went_since_the_split_is_told(data, split_part, store):
    manifest = Manifest(store, run(fill(data), split_part, store, task="masks").fingerprint)
    shard = manifest.shard("train", 0, 1)
    stems = [shard.uri(i).rsplit("/", 1)[-1].removesuffix(".jpg") for i in (0, 1)]
    os.remove(data / "SegmentationClass" / f"{stems[0]}.png")
    put_mask(data, stems[1], np.zeros((40, 60), np.uint8))
    with pytest.raises(DataInvalid, match=rf"SegmentationClass/{stems[0]}.png is gone since the split"):
        shard[0]
    with pytest.raises(DataInvalid, match=rf"SegmentationClass/{stems[1]}.png has changed since the split"):
        shard[1]


def test_digit_scenes_have_the_digits_own_pixels_as_masks(split_part, store):
    result = run("builtin:digit-scenes", split_part, store, task="masks")
    manifest = Manifest(store, result.fingerprint)
    assert manifest.schema.classes == tuple("0123456789")
    for split in SPLITS:
        for sample in manifest.shard(split, 0, 40):
            found = sample.labels["annotation"]
            pixels = np.asarray(Image.open(io.BytesIO(found["mask"])))
            ((left, top, right, bottom),) = (map(int, box) for box in found["boxes"])
            rows, columns = np.nonzero(pixels)
            assert set(np.unique(pixels)) == {0, int(found["names"][0]) + 1}
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
            image = np.asarray(Image.open(io.BytesIO(sample.payload))).astype(float)
            assert image[pixels > 0].mean() > image[pixels == 0].mean() + 30


def test_masks_are_found_behind_a_url_too(data, split_part, store):
    memory = fsspec.filesystem("memory")
    memory.put(str(fill(data)), "/scenes", recursive=True)
    result = run("memory://scenes", split_part, store, task="masks")
    assert int((mask_of(result, store, "dog3.jpg") == 2).sum()) == 400
    memory.rm("/scenes", recursive=True)


def test_the_manifest_names_the_mask_and_does_not_hold_it(data, split_part, store):
    result = run(fill(data), split_part, store, task="masks")
    record = json.loads(Manifest(store, result.fingerprint).shard("train", 0, 1).labels()[0])
    assert record["mask"]["path"].startswith("../SegmentationClass/")
    assert set(record["mask"]) == {"path", "sha256"}


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
@pytest.mark.parametrize("seed", range(20))
def test_polygons_agree_with_pycocotools_but_for_their_edges(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
    radius = rng.uniform(10, 45, len(angles))
    ring = np.stack([50 + radius * np.cos(angles), 40 + radius * np.sin(angles)], 1).ravel()
    own = polygon(ring.tolist(), 80, 100)
    theirs = coco_mask.decode(coco_mask.frPyObjects([ring.tolist()], 80, 100))[..., 0].astype(bool)
    edge = np.abs(np.diff(theirs.astype(int), axis=0, prepend=0)) + np.abs(np.diff(theirs.astype(int), prepend=0))
    assert (own ^ theirs).sum() <= edge.sum()
    x, y = ring.reshape(-1, 2).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    if x.min() >= 0 and x.max() <= 100 and y.min() >= 0 and y.max() <= 80:
        assert own.sum() == pytest.approx(area, rel=0.05, abs=8)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_agree_with_pycocotools_to_the_pixel(seed):
    rng = np.random.default_rng(seed)
    pixels = np.asfortranarray(rng.random((23, 31)) < rng.uniform(0.02, 0.98), np.uint8)
    packed = coco_mask.encode(pixels)
    counts = unpacked(packed["counts"].decode())
    assert sum(counts) == pixels.size
    assert np.array_equal(run_lengths(counts, 23, 31), pixels.astype(bool))


@pytest.mark.parametrize("text", ["~~", "0\n", "é"])
def test_text_that_is_no_run_lengths_is_refused(text):
    with pytest.raises(ValueError, match="in run lengths"):
        unpacked(text)
