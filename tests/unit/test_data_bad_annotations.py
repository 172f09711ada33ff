"""Whatever is wrong with an annotation is named by file and box, costs no more than it must, and never crashes."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from annotated import drawn, fill, picture, put, run, samples, sheet, told
from PIL import Image, ImageOps

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, findings_of
from headrace.data.annotations import BadAnnotation, sound
from headrace.data.picture_files import look, turned, upright_pixels
from headrace.data.strategies import SPLITS
from headrace.data.voc import parse

pytestmark = pytest.mark.usefixtures("annotated_tasks")

GOOD = drawn("cat", (1, 1, 10, 10))
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]><annotation><object><name>&j;</name></object></annotation>"
)

# the object beside a good one, what is said of it, what is done; then the boxes that are kept besides [0, 0, 10, 10]
BOXES = {
    "no width": (
        drawn(box=(30, 5, 30, 20)), "cat: xmin 30, ymin 5, xmax 30, ymax 20: the box has no area", "dropped", [],
    ),
    "no height": (
        drawn(box=(5, 20, 30, 20)), "cat: xmin 5, ymin 20, xmax 30, ymax 20: the box has no area", "dropped", [],
    ),
    "upside down": (
        drawn(box=(30, 20, 5, 5)), "cat: xmin 30, ymin 20, xmax 5, ymax 5: the box has no area", "dropped", [],
    ),
    "out on two sides": (
        drawn(box=(-9, 11, 90, 30)),
        "cat: the box [-10, 10, 90, 30] reaches out of the picture of 60 x 40",
        "clipped",
        [[0, 10, 60, 30]],
    ),
    "wholly outside": (
        drawn(box=(71, 11, 90, 30)),
        "cat: the box [70, 10, 90, 30] lies outside of the picture of 60 x 40",
        "dropped",
        [],
    ),
    "not a number": (
        drawn(box=("x", 1, 5, 9)), "cat: xmin x, ymin 1, xmax 5, ymax 9: not four numbers", "dropped", [],
    ),
    "not finite": (
        drawn(box=(1, 1, "inf", "NaN")), "cat: xmin 1, ymin 1, xmax inf, ymax NaN: not four numbers", "dropped", [],
    ),
    "a side is missing": (
        drawn().replace("<xmax>30</xmax>", ""), "cat: xmin 11, ymin 6, xmax missing, ymax 25: not four numbers",
        "dropped", [],
    ),
    "no box at all": ("<object><name>cat</name></object>", "cat: it has no bndbox", "dropped", []),
    "a rotated box": (
        "<object><name>cat</name><robndbox><cx>5</cx></robndbox></object>", "cat: it has no bndbox", "dropped", [],
    ),
    "no name": (drawn(""), "an object without a class", "dropped", []),
    "the same again": (GOOD, "cat: the box [0, 0, 10, 10] a second time", "dropped", []),
    "a name of 10,000 letters": (drawn("x" * 10_000, (9, 9, 9, 9)), f"{'x' * 60}...: xmin 9,", "dropped", []),
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return fill(tmp_path / "data")


@pytest.mark.parametrize("kind", BOXES)
def test_a_bad_box_is_named_and_the_picture_stays_with_its_good_ones(data, split_part, store, kind):
    bad, reason, action, kept = BOXES[kind]
    put(data, "bad", sheet(GOOD, bad))
    result = run(data, split_part, store)
    ((where, given, done),) = told(result)
    assert (where, done) == ("bad.xml#1", action)
    assert given.startswith(reason)
    assert samples(result, store)["bad.jpg"].labels["annotation"]["boxes"] == [[0, 0, 10, 10], *kept]
    assert findings_of(result.summary)[0].where.endswith("Annotations/bad.xml#1")
    assert findings_of(result.summary)[0].action == action


@pytest.mark.parametrize("box", [(0, 0, 60, 40), (1, 1, 61, 41), (1, 1, 60, 40)])
def test_a_set_that_counts_from_zero_or_one_too_far_is_no_mistake(data, split_part, store, box):
    put(data, "edge", sheet(drawn(box=box)))
    result = run(data, split_part, store)
    assert told(result) == []
    assert samples(result, store)["edge.jpg"].labels["annotation"]["boxes"] == [[0, 0, 60, 40]]


@pytest.mark.parametrize(
    ("xml", "content", "reason"),
    [
        ("<annotation><object>", None, r"its annotation .*bad\.xml is broken: no element found"),
        ("", None, r"its annotation .*bad\.xml is broken"),
        (BOMB, None, r"its annotation .*bad\.xml is broken: limit on input amplification"),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", None, r"its annotation .*bad\.xml is broken"),
        ("<html><body/></html>", None, r"its annotation .*bad\.xml is <html>, not <annotation>"),
        (sheet(GOOD), picture(3)[:200], "it cannot be decoded|it is not an image"),
        (sheet(GOOD), b"no picture", "it is not an image that Pillow knows"),
    ],
)
def test_a_picture_whose_annotation_or_file_is_broken_is_left_out_and_named(
    data, split_part, store, xml, content, reason
):
    put(data, "bad", xml, content)
    result = run(data, split_part, store, max_corrupt=0.1)
    (named,) = result.summary["left_out"]["files"]
    assert named["uri"].endswith("JPEGImages/bad.jpg")
    assert re.search(reason, named["reason"])
    assert sum(result.summary["counts"].values()) == 20


def test_an_annotation_without_picture_counts_as_corrupt_and_a_picture_without_annotation_is_ignored(
    data, split_part, store
):
    put(data, "alone", sheet(GOOD), b"")
    put(data, "unlabelled", None)
    result = run(data, split_part, store, max_corrupt=0.1)
    (left,) = result.summary["left_out"]["files"]
    assert (left["uri"].rsplit("/", 1)[-1], left["reason"]) == ("alone.xml", "an annotation without picture")
    (ignored,) = result.summary["ignored"]["files"]
    assert (ignored["uri"].rsplit("/", 1)[-1], ignored["reason"]) == ("unlabelled.jpg", "a picture without annotation")
    with pytest.raises(DataInvalid, match=r"1 of 21 files cannot be used") as error:
        run(data, split_part, store)
    assert error.value.findings[0].where.endswith("alone.xml")


def test_a_size_that_is_not_said_or_not_so_is_told_and_the_pictures_own_holds(data, split_part, store):
    put(data, "mute", sheet(GOOD, size=None))
    put(data, "zero", sheet(GOOD, size=(0, 0)))
    put(data, "other", sheet(drawn(box=(1, 1, 600, 400)), size=(600, 400)))
    result = run(data, split_part, store)
    assert [(where, action.split(" /")[0]) for where, _, action in told(result)] == [
        ("mute.xml", "taken from"),
        ("other.xml", "boxes taken as they are"),
        ("other.xml#0", "clipped"),
        ("zero.xml", "taken from"),
    ]
    assert samples(result, store)["other.jpg"].labels["annotation"]["size"] == [40, 60]
    assert samples(result, store)["other.jpg"].labels["annotation"]["boxes"] == [[0, 0, 60, 40]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pictures_that_exif_turns(orientation):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[5:15, 20:50] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    found = look(file.getvalue())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert (found.size, found.orientation, found.upright) == ((40, 60), orientation, upright.shape)
    assert np.array_equal(upright_pixels(pixels, orientation), upright)
    left, top, right, bottom = (int(side) for side in turned((20, 5, 50, 15), found.size, orientation))
    assert upright.sum() == 255 * 300 == upright[top:bottom, left:right].sum()


def test_a_picture_drawn_on_as_stored_is_told_and_its_boxes_are_turned(data, split_part, store):
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = picture(5, exif=exif)
    put(data, "stored", sheet(drawn(box=(1, 1, 60, 10)), size=(60, 40)), sideways)
    put(data, "upright", sheet(drawn(box=(1, 1, 40, 10)), size=(40, 60)), picture(6, exif=exif))
    result = run(data, split_part, store)
    assert told(result) == [
        ("stored.xml", "drawn on the picture as stored, 60 x 40, which EXIF turns upright", "boxes turned with it")
    ]
    found = {name: samples(result, store)[f"{name}.jpg"].labels["annotation"] for name in ("stored", "upright")}
    assert found["stored"]["size"] == found["upright"]["size"] == [60, 40]
    assert found["stored"]["boxes"] == [[30, 0, 40, 60]]
    assert found["upright"]["boxes"] == [[0, 0, 40, 10]]


def test_equal_pictures_with_other_boxes_are_told_and_stay_on_one_side(data, split_part, store):
    put(data, "cat0again", sheet(drawn("cat", (2, 2, 20, 20))), (data / "JPEGImages" / "cat0.jpg").read_bytes())
    result = run(data, split_part, store)
    (note,) = [finding for finding in result.findings if finding.where == "annotations"]
    assert note.given.startswith("1 pictures equal another and have other boxes")
    assert "cat0again.jpg" in note.given


def test_lists_of_a_split_are_told_and_not_followed(data, split_part, store):
    (data / "ImageSets" / "Main").mkdir(parents=True)
    (data / "ImageSets" / "Main" / "train.txt").write_text("cat0\n")
    (finding,) = [f for f in run(data, split_part, store).findings if f.where == "ImageSets/"]
    assert "ImageSets/Main/train.txt" in finding.given


def test_annotations_beside_their_pictures_are_read_too(tmp_path, split_part, store):
    for number in range(10):
        for split in ("train", "valid"):
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / split / f"{number}.jpg").write_bytes(picture([number, len(split)]))
            (tmp_path / "data" / split / f"{number}.xml").write_text(sheet(GOOD))
    result = run(tmp_path / "data", split_part, store)
    assert sum(result.summary["counts"].values()) == 20
    assert result.summary["left_out"]["count"] == 0


def test_an_annotation_that_fits_two_pictures_is_left_out(data, split_part, store):
    for suffix in ("a", "b"):
        (data / suffix).mkdir()
        (data / suffix / "twice.jpg").write_bytes(picture([9, *suffix.encode()]))
    put(data, "twice", sheet(GOOD), b"")
    result = run(data, split_part, store, max_corrupt=0.1)
    (left,) = result.summary["left_out"]["files"]
    assert left["reason"] == "an annotation of 2 pictures: a/twice.jpg, b/twice.jpg"


def test_data_without_annotations_or_objects_is_refused_with_what_was_found(tmp_path, split_part, store):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.jpg").write_bytes(picture(1))
    with pytest.raises(DataInvalid, match=r"holds no VOC annotation \(1 pictures"):
        run(tmp_path / "none", split_part, store)
    for number in range(9):
        put(tmp_path / "data", f"{number}", sheet(drawn(box=(5, 5, 5, 5))), picture(number))
    with pytest.raises(DataInvalid, match="no picture has an object") as error:
        run(tmp_path / "data", split_part, store)
    assert len(error.value.findings) == 9
    assert error.value.findings[0].where.endswith("0.xml#0")


@pytest.mark.parametrize("seed", range(10))
def test_an_annotation_whose_bytes_are_spoilt_is_read_or_refused(seed):
    rng = np.random.default_rng(seed)
    whole = sheet(GOOD, drawn("dog", difficult=1)).encode()
    read = refused = 0
    for _ in range(200):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)).tolist():
            spoilt[place] = rng.choice(list(b"0123456789-.<>/&xi"))
        try:
            found = parse(bytes(spoilt), "x.xml")
        except BadAnnotation:
            refused += 1
            continue
        read += 1
        for kept in sound(found, (40, 60), lambda uri, reason, action: None):
            left, top, right, bottom = kept.box
            assert 0 <= left < right <= 60
            assert 0 <= top < bottom <= 40
    assert min(read, refused) > 0


def test_a_picture_at_its_own_place_is_nobody_else_s(tmp_path, split_part, store):
    """train/ and test/ use the same names, and one picture of test/ is missing: train's stays train's."""
    data = tmp_path / "data"
    for folder in ("a-test", "train"):
        for number in range(6):
            put(
                data / folder,
                f"{number}",
                sheet(drawn("cat" if folder == "train" else "dog")),
                picture([number, len(folder)]),
            )
    (data / "a-test" / "JPEGImages" / "0.jpg").unlink()
    result = run(data, split_part, store, max_corrupt=0.2)
    assert [named["uri"].endswith("a-test/Annotations/0.xml") for named in result.summary["left_out"]["files"]] == [
        True
    ]
    manifest = Manifest(store, result.fingerprint)
    found = {s.uri(i): s[i] for split in SPLITS for s in [manifest.shard(split, 0, 1)] for i in range(len(s))}
    assert len(found) == 11
    assert all(("train" in uri) == (sample.labels["annotation"]["names"] == ["cat"]) for uri, sample in found.items())
