"""`headrace init` writes a spec of at most ten lines that is valid, the same every time, and never over another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import InvalidInput
from headrace.spec import load_spec
from headrace.spec.yaml_reader import read_yaml
from headrace.steps.init import compose, propose

IMAGES: dict[str, Any] = {
    "source": "pics",
    "format": "image-folder",
    "task": "image-classification",
    "label": None,
    "samples": 150,
    "classes": {"cross": 50, "disc": 100},
    "features": None,
    "id": None,
    "max_corrupt": None,
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("disc", "cross"):
        (tmp_path / "My Pictures" / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("L", (8, 8), shade).save(tmp_path / "My Pictures" / name / f"{shade}.png")
    return tmp_path / "My Pictures"


def test_a_folder_of_pictures_becomes_a_valid_spec_of_ten_lines(pictures: Path) -> None:
    proposal = propose("My Pictures")
    assert proposal.path == Path("my-pictures.yaml")
    assert len(proposal.text.splitlines()) == 10
    assert proposal.notes[0] == "6 images in 2 classes: cross 3, disc 3"
    spec = load_spec(proposal.path)
    assert (spec.name, spec.data.source, spec.model.name) == ("my-pictures", str(pictures), "resnet8")
    assert spec.register_ is not None
    assert spec.deploy is not None


def test_a_folder_of_videos_becomes_a_spec_for_tracking_whose_split_is_by_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for video in range(8):
        for part in ("img1", "gt"):
            (tmp_path / "street" / f"v{video}" / part).mkdir(parents=True)
        (tmp_path / "street" / f"v{video}" / "gt" / "gt.txt").write_text("1,1,1,1,10,20,1,1,1\n2,1,3,1,10,20,1,1,1\n")
        for frame in (1, 2):
            picture = Image.new("RGB", (64, 48), (video, frame, 0))
            picture.save(tmp_path / "street" / f"v{video}" / "img1" / f"{frame:06d}.png")
    proposal = propose("street")
    assert proposal.notes == ("16 frames with 16 objects in 1 classes: pedestrian 16",)
    spec = load_spec(proposal.path)
    assert [task.name for task in spec.tasks] == ["object-tracking"]
    assert (spec.data.format, spec.data.split.strategy, spec.model.name) == ("mot", "group", "yolo")
    assert spec.gate[0].startswith("mota >=")


def test_the_same_folder_gives_the_same_spec(pictures: Path) -> None:
    first = propose("My Pictures", Path("a.yaml")).text
    assert propose(str(pictures), Path("b.yaml")).text == first


def test_a_file_that_is_there_is_not_written_over(pictures: Path) -> None:
    path = propose("My Pictures").path
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="is there already") as caught:
        propose("My Pictures")
    assert "--force" in caught.value.action
    assert path.read_text() == "mine"
    propose("My Pictures", force=True)
    assert path.read_text() != "mine"
    assert [entry.name for entry in path.absolute().parent.iterdir() if entry.name.startswith(".")] == []


def test_a_table_names_its_label_and_columns_whatever_they_are_called() -> None:
    found = {
        **IMAGES,
        "format": "csv",
        "task": "tabular-regression",
        "label": "1e3",
        "features": ["yes", "a: b", 'qu"ote', "null", "größe", "plain"],
        "id": "no",
        "max_corrupt": 0.05,
        "classes": {},
    }
    document = read_yaml(compose("x", found, "./t.csv"))
    assert document.findings == []
    assert document.value["data"] == {
        "source": "./t.csv",
        "format": "csv",
        "label": "1e3",
        "features": found["features"],
        "id": "no",
        "max_corrupt": 0.05,
    }
    assert document.value["gate"] == ["rmse <= champion"]
    assert document.value["model"] == {"name": "mlp"}


def test_annotated_pictures_become_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    proposal = propose("builtin:shapes")
    spec = load_spec(proposal.path)
    assert len(proposal.text.splitlines()) == 10
    assert proposal.notes == ("240 images with 506 objects in 3 classes: circle 171, square 167, triangle 168",)
    assert (spec.tasks[0].name, spec.data.format, spec.data.source) == ("object-detection", "voc", "builtin:shapes")
    assert spec.model.name == "yolo"
    assert spec.gate == ("map50 >= champion - 0.01",)


@pytest.mark.parametrize(("samples", "epochs", "batch_size"), [(10, 40, 32), (1_500, 18, 32), (100_000, 5, 64)])
def test_small_data_gets_more_epochs(samples: int, epochs: int, batch_size: int) -> None:
    train = read_yaml(compose("x", {**IMAGES, "samples": samples}, "./x")).value["train"]
    assert (train["epochs"], train["batch_size"]) == (epochs, batch_size)


def test_many_classes_are_not_all_listed() -> None:
    classes = {f"class{number}": 1 for number in range(30)}
    assert "class7 1, ..." in compose("x", {**IMAGES, "classes": classes}, "./x").splitlines()[0]
