"""The format mot: videos as MOTChallenge lays them out, and what is wrong with them told by file and line."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace.data import Manifest, fingerprint_source, split_data
from headrace.spec import load_spec


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, shade, 90)).save(file, "PNG")
    return file.getvalue()


def make_sequence(root: Path, name: str, truth: str, frames: int = 3, folder: str = "img1") -> Path:
    sequence = root / name
    (sequence / folder).mkdir(parents=True)
    (sequence / "gt").mkdir()
    for frame in range(1, frames + 1):
        shade = (sum(map(ord, name)) * 7 + frame) % 256
        (sequence / folder / f"{frame:06d}.png").write_bytes(picture(shade))
    (sequence / "gt" / "gt.txt").write_text(truth)
    return sequence


@pytest.fixture
def split(split_part: Any, store: Any) -> Callable[..., Any]:
    def made(source: str, strategy: str = "group") -> Any:
        part = split_part(source, format="mot", task="object-tracking", strategy=strategy)
        told = fingerprint_source(part)
        result = split_data(part, store=store, source_fingerprint=told, tell=lambda text: None)
        return result, Manifest(store, result.fingerprint)

    return made


def frames_of(manifest: Manifest) -> dict[tuple[str, int], tuple[str, dict[str, Any]]]:
    """(split, annotation) by sequence and frame."""
    found = {}
    for side in ("train", "validation", "test"):
        for sample in manifest.shard(side, 0, 1):
            said = sample.labels["annotation"]
            found[said["sequence"], said["frame"]] = side, said
    return found


WALK = "1,1,1,1,10,20,1,1,1\n2,1,3,1,10,20,1,1,1\n3,1,5,1,10,20,1,1,1\n"


def test_frames_have_their_boxes_tracks_and_place(tmp_path: Path, split: Callable[..., Any]) -> None:
    for n in range(6):
        make_sequence(tmp_path / "data", f"s{n}", WALK + "2,7,11,6,4,4,0,3,1\n")
    result, manifest = split(str(tmp_path / "data"))
    found = frames_of(manifest)
    assert len(found) == 18
    said = found["s0", 2][1]
    assert said["boxes"] == [[2, 0, 12, 20], [10, 5, 14, 9]]  # the files count from 1
    assert said["names"] == ["pedestrian", "car"]
    assert said["tracks"] == [1, 7]
    assert said["difficult"] == [False, True]  # the seventh value says that it does not count
    assert said["size"] == [48, 64]
    assert found["s0", 1][1]["tracks"] == [1]
    assert list(manifest.schema.classes) == ["car", "pedestrian"]
    assert result.summary["samples"] == 18


def test_a_video_lies_on_one_side_without_a_word_in_the_spec(tmp_path: Path, split: Callable[..., Any]) -> None:
    for n in range(8):
        make_sequence(tmp_path / "data", f"s{n}", WALK)
    _, manifest = split(str(tmp_path / "data"))
    sides: dict[str, set[str]] = {}
    for (sequence, _), (side, _) in frames_of(manifest).items():
        sides.setdefault(sequence, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "validation", "test"}
    with pytest.raises(DataInvalid, match="a video"):
        split(str(tmp_path / "data"), "random")


def test_class_names_may_lie_beside(tmp_path: Path, split: Callable[..., Any]) -> None:
    for n in range(6):
        sequence = make_sequence(tmp_path / "data", f"s{n}", "1,1,1,1,10,20,1,2,1\n")
        (sequence / "gt" / "labels.txt").write_text("cat\ndog\n")
    assert list(split(str(tmp_path / "data"))[1].schema.classes) == ["dog"]


def test_the_2015_layout_and_another_folder_of_frames(tmp_path: Path, split: Callable[..., Any]) -> None:
    for n in range(6):
        sequence = make_sequence(tmp_path / "data", f"s{n}", "1,1,1,1,10,20,1,-1,-1,-1\n", folder="frames")
        (sequence / "seqinfo.ini").write_text("[Sequence]\nname=s\nimDir=frames\nframeRate=25\n")
    _, manifest = split(str(tmp_path / "data"))
    assert len(frames_of(manifest)) == 18
    assert list(manifest.schema.classes) == ["pedestrian"]


BAD = {
    "words": ("one,two\n", "is not a frame, a track and a box"),
    "too few": ("1,1,5\n", "is not a frame, a track and a box"),
    "infinite": ("1,1,inf,1,10,20\n", "is not a frame, a track and a box"),
    "class nan": ("1,9,1,1,10,20,1,nan,1\n", "is not a frame, a track and a box"),
    "class inf": ("1,9,1,1,10,20,1,inf,1\n", "is not a frame, a track and a box"),
    "twice": ("1,1,9,9,10,20,1,1,1\n", "track 1 a second time in frame 1"),
    "no number": ("1,-1,9,9,10,20,1,1,1\n", "-1 is no number of a track"),
    "no frame": ("99,1,1,1,10,20,1,1,1\n", "a box of frame 99, which is not there"),
    "no area": ("1,9,1,1,0,20,1,1,1\n", "has no area"),
    "outside": ("1,9,500,1,10,20,1,1,1\n", "lies outside of the picture"),
    "reaches out": ("1,9,60,1,30,20,1,1,1\n", "reaches out of the picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_told_by_file_and_line_and_costs_itself(
    case: str, tmp_path: Path, split: Callable[..., Any]
) -> None:
    for n in range(6):
        make_sequence(tmp_path / "data", f"s{n}", WALK)
    line, reason = BAD[case]
    make_sequence(tmp_path / "data", "sx", WALK + line)
    result, manifest = split(str(tmp_path / "data"))
    assert len(frames_of(manifest)) == 21
    told = [finding for finding in result.findings if "sx/gt/gt.txt#4" in str(finding)]
    assert told, result.findings
    assert reason in str(told[0])


def test_no_sequence_is_refused_with_the_layout(tmp_path: Path, split: Callable[..., Any]) -> None:
    (tmp_path / "data" / "s" / "img1").mkdir(parents=True)
    (tmp_path / "data" / "s" / "img1" / "000001.png").write_bytes(picture(1))
    with pytest.raises(DataInvalid, match="no MOT sequence") as refused:
        split(str(tmp_path / "data"))
    assert "SEQUENCE/gt/gt.txt" in str(refused.value.action)


def test_the_built_in_videos_are_the_same_everywhere_and_hold_what_they_say(split: Callable[..., Any]) -> None:
    _, manifest = split("builtin:shape-tracks")
    found = frames_of(manifest)
    assert len(found) == 40 * 16
    tracks = {(sequence, track) for (sequence, _), (_, said) in found.items() for track in said["tracks"]}
    assert len(tracks) >= 80
    hidden = sum(len(found[key][1]["tracks"]) < len(found[key[0], 1][1]["tracks"]) for key in found)
    assert hidden > 0  # an object is not annotated while others cover it
    assert set(manifest.schema.classes) == {"circle", "square", "triangle"}


def test_the_spec_splits_videos_by_itself(tmp_path: Path) -> None:
    spec = "name: t\ntask: object-tracking\ndata: {source: 'builtin:shape-tracks'}\nmodel: yolo\n"
    (tmp_path / "spec.yaml").write_text(spec)
    data = load_spec(tmp_path / "spec.yaml").to_record()["data"]
    assert data["format"] == "mot"
    assert data["split"]["strategy"] == "group"
