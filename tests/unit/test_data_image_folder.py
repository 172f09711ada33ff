"""Image folders: every mode is taken, what is broken is named, and what would leak is refused."""

from __future__ import annotations

import io
import os
import shutil

import fsspec
import numpy as np
import pytest
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, classes_table, fingerprint_source, split_data
from headrace.data.formats import AWAITED, FORMATS
from headrace.data.image_folder import problem_of

MODES = ("L", "RGB", "RGBA", "P", "LA", "1", "I;16", "CMYK")
told: list[str] = []


def picture(number, mode="RGB", size=(9, 7), kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def fill(folder, classes=("cat", "dog"), each=10, start=0):
    number = start
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (folder / name / f"{index:03d}.png").write_bytes(picture(number))
            number += 1
    return folder


def run(part, store):
    told.clear()
    return split_data(part, store=store, source_fingerprint=fingerprint_source(part), tell=told.append)


def test_a_folder_is_split_by_class(tmp_path, split_part, store):
    result = run(split_part(fill(tmp_path / "data", each=20)), store)
    assert result.summary["counts"] == {"train": 28, "validation": 6, "test": 6}
    assert classes_table(result.summary) == [
        {"class": "cat", "train": 14, "validation": 3, "test": 3},
        {"class": "dog", "train": 14, "validation": 3, "test": 3},
        {"class": "total", "train": 28, "validation": 6, "test": 6},
    ]
    assert result.findings == ()
    assert told


def test_folders_of_a_task_whose_label_is_a_number_are_called_by_their_numbers(tmp_path, split_part, store):
    data = fill(tmp_path / "data", classes=("0", "2.5", "-1e1", "nan", "many"), each=20)
    result = run(split_part(data, task="tabular-regression", max_corrupt=0.5), store)
    assert result.summary["label_kind"] == "number"
    assert result.summary["counts"] == {"train": 42, "validation": 9, "test": 9}
    manifest = Manifest(store, result.fingerprint)
    samples = [sample for split in ("train", "validation", "test") for sample in manifest.shard(split, 0, 1)]
    assert {sample.labels["label"] for sample in samples} == {0.0, 2.5, -10.0}
    assert all(isinstance(sample.payload, bytes) for sample in samples)
    left_out = {(f["uri"].split("/")[-2], f["reason"]) for f in result.summary["left_out"]["files"]}
    assert left_out == {(name, f"its folder, {name}, is no number") for name in ("nan", "many")}
    assert result.summary["dropped_classes"] == ["many", "nan"]


def test_mixed_sizes_modes_and_formats_are_all_taken(tmp_path, split_part, store):
    data = fill(tmp_path / "data", each=4)
    for index, mode in enumerate(MODES):
        kind, suffix = ("TIFF", "tiff") if mode in ("CMYK", "I;16") else ("PNG", "PNG")
        (data / "cat" / f"{index}.{suffix}").write_bytes(picture(100 + index, mode, (5 + index, 20), kind))
    for index, (kind, suffix) in enumerate([("JPEG", "jpg"), ("BMP", "bmp"), ("WEBP", "webp"), ("GIF", "gif")]):
        (data / "dog" / f"{index}.{suffix}").write_bytes(picture(200 + index, "RGB", (30, 9), kind))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(data / "dog" / "turned.jpeg", exif=exif)
    result = run(split_part(data), store)
    assert result.summary["samples"] == 8 + len(MODES) + 5
    assert result.summary["left_out"]["count"] == 0


def test_a_truncated_file_under_the_limit_is_left_out_and_named(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    (data / "cat" / "000.png").write_bytes(picture(0, size=(60, 60))[:-40])
    result = run(split_part(data, max_corrupt=0.1), store)
    assert result.summary["samples"] == 19
    assert [named["uri"] for named in result.summary["left_out"]["files"]] == [str(data / "cat" / "000.png")]
    assert "truncated" in result.summary["left_out"]["files"][0]["reason"]
    assert any("000.png" in finding.where and finding.action == "left out" for finding in result.findings)


def test_above_the_limit_every_bad_file_is_named_and_nothing_is_written(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    (data / "cat" / "000.png").write_bytes(b"")
    (data / "dog" / "001.png").write_bytes(b"not an image at all")
    (data / "dog" / "002.png").write_bytes(picture(0, size=(60, 60))[:300])
    with pytest.raises(DataInvalid, match=r"3 of 20 files .*15 %.*allows 1 %") as error:
        run(split_part(data), store)
    assert error.value.exit_code == 2
    assert [finding.where.removeprefix(f"{data}/") for finding in error.value.findings] == [
        "cat/000.png",
        "dog/001.png",
        "dog/002.png",
    ]
    assert not store.exists(store.uri("splits"))


def test_an_empty_class_is_named_and_dropped(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    (data / "bird").mkdir()
    (data / "fish").mkdir()
    (data / "fish" / "only.png").write_bytes(b"broken")
    result = run(split_part(data, max_corrupt=0.1), store)
    assert result.summary["dropped_classes"] == ["bird", "fish"]
    assert result.summary["schema"]["classes"] == ["cat", "dog"]
    assert {"class bird", "class fish"} <= {finding.where for finding in result.findings}


def test_other_files_are_counted_and_named_and_nested_folders_belong_to_their_class(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    (data / "README.txt").write_text("about")
    (data / "loose.png").write_bytes(picture(90))
    (data / "cat" / "camera 1" / "day#2").mkdir(parents=True)
    (data / "cat" / "camera 1" / "day#2" / "x.png").write_bytes(picture(91))
    result = run(split_part(data), store)
    assert result.summary["ignored"]["count"] == 2
    assert {f["reason"] for f in result.summary["ignored"]["files"]} == {"not an image", "lies in no class folder"}
    assert result.summary["samples"] == 21
    manifest = Manifest(store, result.fingerprint)
    payloads = [s.payload for split in ("train", "validation", "test") for s in manifest.shard(split, 0, 1)]
    assert picture(91) in payloads


@pytest.mark.parametrize("strategy", ["random", "stratified", "hash"])
def test_equal_content_is_kept_on_one_side_counted_and_named(tmp_path, split_part, store, strategy):
    data = fill(tmp_path / "data", each=30)
    for index in range(12):
        shutil.copy(data / "cat" / f"{index:03d}.png", data / "cat" / f"copy{index}.png")
    result = run(split_part(data, strategy=strategy), store)
    manifest = Manifest(store, result.fingerprint)
    sides = [set(manifest.sample_ids(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    duplicates = result.summary["duplicates"]
    assert (duplicates["samples"], duplicates["groups"], len(duplicates["examples"])) == (12, 12, 12)
    assert [str(data / "cat" / "000.png"), str(data / "cat" / "copy0.png")] in duplicates["examples"]
    assert any(finding.where == "equal content" for finding in result.findings)


@pytest.mark.parametrize("strategy", ["random", "stratified", "hash"])
def test_equal_content_under_two_labels_is_refused_with_both_names(tmp_path, split_part, store, strategy):
    data = fill(tmp_path / "data")
    shutil.copy(data / "cat" / "003.png", data / "dog" / "same.png")
    with pytest.raises(DataInvalid, match="1 files have the content of another") as error:
        run(split_part(data, strategy=strategy), store)
    (finding,) = error.value.findings
    assert finding.where == str(data / "dog" / "same.png")
    assert str(data / "cat" / "003.png") in finding.given


def test_the_same_data_gives_the_same_split_and_a_changed_file_another(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    first = run(split_part(data), store)
    os.utime(data / "cat" / "000.png", ns=(1, 1))
    assert run(split_part(data), store).fingerprint == first.fingerprint
    assert run(split_part(data, seed=1), store).fingerprint != first.fingerprint
    (data / "cat" / "000.png").write_bytes(picture(999))
    assert run(split_part(data), store).fingerprint != first.fingerprint


def test_data_that_changed_since_the_run_started_is_refused(tmp_path, split_part, store):
    part = split_part(fill(tmp_path / "data"))
    before = fingerprint_source(part)
    (tmp_path / "data" / "cat" / "new.png").write_bytes(picture(77))
    with pytest.raises(DataInvalid, match="changed while"):
        split_data(part, store=store, source_fingerprint=before, tell=told.append)


def test_a_shard_tells_of_files_that_are_gone_or_changed_since(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    manifest = Manifest(store, run(split_part(data), store).fingerprint)
    shard = manifest.shard("train", 0, 1)
    os.remove(shard.uri(0))
    with open(shard.uri(1), "ab") as file:
        file.write(b"x")
    with pytest.raises(DataInvalid, match="gone since the split") as gone:
        shard[0]
    assert shard.uri(0) in gone.value.message
    with pytest.raises(DataInvalid, match="has changed since the split") as changed:
        shard[1]
    assert "run again" in changed.value.action


def test_a_predefined_split_is_refused_with_the_way_out(tmp_path, split_part, store):
    fill(tmp_path / "data" / "train")
    fill(tmp_path / "data" / "test", start=50)
    with pytest.raises(DataInvalid, match="split already: train, test") as error:
        run(split_part(tmp_path / "data"), store)
    assert str(tmp_path / "data" / "train") in error.value.action


def test_classes_that_are_called_train_and_test_without_classes_inside_are_classes(tmp_path, split_part, store):
    data = fill(tmp_path / "data", classes=("train", "test"))
    assert run(split_part(data), store).summary["schema"]["classes"] == ["test", "train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "b.png"), "no class folder"),
        (("notes.txt",), "no class folder"),
        (("only/a.png", "only/b.png"), "one class only"),
    ],
)
def test_a_folder_without_two_classes_is_refused(tmp_path, split_part, store, names, message):
    for number, name in enumerate(names):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(picture(number))
    with pytest.raises(DataInvalid, match=message):
        run(split_part(tmp_path / "data"), store)


def test_a_file_is_no_image_folder(tmp_path, split_part, store):
    (tmp_path / "a.png").write_bytes(picture(0))
    with pytest.raises(DataInvalid, match="is a file"):
        run(split_part(tmp_path / "a.png"), store)


def test_columns_and_the_strategies_that_need_them_are_findings_for_a_folder(tmp_path, split_part, store):
    data = fill(tmp_path / "data")
    with pytest.raises(DataInvalid) as error:
        run(split_part(data, label="kind", group="patient"), store)
    assert [finding.where for finding in error.value.findings] == ["data.label", "data.group"]
    for strategy in ("group", "time"):
        with pytest.raises(DataInvalid) as error:
            run(split_part(data, strategy=strategy), store)
        assert [finding.where for finding in error.value.findings] == [f"data.{strategy}"]


def test_fractions_that_are_no_whole_are_a_finding(tmp_path, split_part, store):
    with pytest.raises(DataInvalid) as error:
        run(split_part(fill(tmp_path / "data"), train=0.9), store)
    assert error.value.findings[0].given == "0.9 + 0.15 + 0.15"


def test_tiny_classes_are_told_of(tmp_path, split_part, store):
    data = fill(tmp_path / "data", each=20)
    fill(data, classes=("rare",), each=1, start=500)
    result = run(split_part(data), store)
    assert result.summary["classes"]["rare"] == {"train": 1, "validation": 0, "test": 0}
    assert any("without a sample in test" in finding.where and "rare" in finding.given for finding in result.findings)


def test_a_folder_behind_a_url_is_split_and_read_alike(split_part, store):
    memory = fsspec.filesystem("memory")
    for number in range(20):
        memory.pipe(f"/pets/{'cat' if number % 2 else 'dog'}/{number}.png", picture(number))
    memory.pipe("/pets/cat/broken.png", b"broken")
    part = split_part("memory://pets", max_corrupt=0.1)
    result = run(part, store)
    assert result.summary["left_out"]["files"][0]["uri"] == "memory://pets/cat/broken.png"
    shard = Manifest(store, result.fingerprint).shard("train", 0, 1)
    assert len(shard) == 14
    assert {sample.payload for sample in shard} <= {picture(number) for number in range(20)}
    memory.rm("/pets", recursive=True)


@pytest.mark.parametrize("name", AWAITED)
def test_a_format_of_a_later_release_says_what_can_be_read(tmp_path, split_part, store, name):
    with pytest.raises(DataInvalid, match="not readable in this release") as error:
        run(split_part(tmp_path, format=name), store)
    assert error.value.findings[0].allowed == ", ".join(FORMATS)


def test_a_picture_without_end_is_a_problem_and_a_whole_one_is_not():
    assert problem_of(picture(1)) is None
    assert problem_of(b"") == "the file is empty"
    assert problem_of(picture(1)[:20]) is not None
    assert "Pillow" in (problem_of(b"GIF? no") or "")
