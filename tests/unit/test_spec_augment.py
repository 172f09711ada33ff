"""`task.augment` as a name or a list of steps: the same canonical form, and mistakes with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.base.errors import SpecInvalid
from headrace.spec import load_spec

SPEC = """
version: 1
name: a
task: {{name: {task}, augment: {augment}}}
data: {{source: "{source}", format: {layout}}}
model: {model}
train: {{epochs: 1}}
"""
DATA = {
    "image-classification": ("builtin:digits", "image-folder", "resnet8"),
    "object-detection": ("builtin:shapes", "voc", "yolo"),
    "object-tracking": ("builtin:shape-tracks", "mot", "yolo"),
    "semantic-segmentation": ("builtin:digit-scenes", "voc", "unet"),
}


def load(folder: Path, augment: str, task: str = "image-classification") -> object:
    source, layout, model = DATA[task]
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(task=task, augment=augment, source=source, layout=layout, model=model))
    return load_spec(path).tasks[0].args["augment"]


def test_a_step_is_its_name_or_a_mapping_and_both_are_one(tmp_path: Path) -> None:
    short = load(tmp_path, "[horizontal-flip, {name: affine, scale: [0.8, 1]}]")
    assert short == load(tmp_path, "[{name: horizontal-flip}, {scale: [0.8, 1.0], name: affine}]")
    assert short == [{"name": "horizontal-flip"}, {"name": "affine", "scale": [0.8, 1.0]}]
    assert load(tmp_path, "crop-flip") == "crop-flip"


@pytest.mark.parametrize("task", DATA)
def test_every_task_on_pictures_takes_steps(tmp_path: Path, task: str) -> None:
    assert load(tmp_path, "[vertical-flip]", task) == [{"name": "vertical-flip"}]


@pytest.mark.parametrize(
    ("augment", "where", "action"),
    [
        ("[rotation, horizontal-flop]", "task.augment[1]", "write `horizontal-flip`"),
        ("[{name: gausian-blur}]", "task.augment[0]", "write `gaussian-blur`"),
        ("[{name: rotation, degree: 3}]", "task.augment[0].degree", "write `degrees`"),
        ("[{name: random-resized-crop, scales: [1, 1]}]", "task.augment[0].scales", "write `scale`"),
        ("[flip, {name: affine, scale: 3}]", "task.augment[1].scale", "write a list: [3]"),
        ("[{name: affine, scale: [1.2, 1]}]", "task.augment[0].scale", "smaller one first"),
        ('[{name: random-crop, padding: "4"}]', "task.augment[0].padding", "without quotes"),
        ("[{name: color-jitter}]", "task.augment[0]", "brightness, contrast, saturation, hue"),
        ("[{p: 0.5}]", "task.augment[0]", "take one of these"),
        ("[3]", "task.augment[0]", "take one of these"),
        ("flop", "task.augment", "write `flip`"),
        ("rotation", "task.augment", "write a list: [rotation]"),
        ("{name: rotation}", "task.augment", "write a list"),
    ],
)
def test_a_mistake_is_told_where_it_is_with_what_is_allowed(
    tmp_path: Path, augment: str, where: str, action: str
) -> None:
    with pytest.raises(SpecInvalid) as raised:
        load(tmp_path, augment)
    found = {finding.where: finding for finding in raised.value.findings}
    assert where in found
    assert action in found[where].action


@pytest.mark.parametrize("task", ["image-classification", "semantic-segmentation"])
def test_a_blur_wider_than_the_size_that_is_written_is_refused(tmp_path: Path, task: str) -> None:
    steps = "[{{name: gaussian-blur, kernel_size: 63}}], image_size: {}"
    for fits in ("32", "[32, 200]", "null"):
        assert load(tmp_path, steps.format(fits), task)
    for size in ("24", "[200, 24]"):
        with pytest.raises(SpecInvalid) as raised:
            load(tmp_path, steps.format(size), task)
        (finding,) = raised.value.findings
        assert finding.where == "task.augment"
        assert "kernel_size 63, which needs an image_size of 32" in finding.action


@pytest.mark.parametrize("task", ["object-detection", "object-tracking", "semantic-segmentation"])
def test_what_boxes_and_masks_cannot_follow_is_refused(tmp_path: Path, task: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        load(tmp_path, "[trivial-augment]", task)
    assert "trivial-augment" not in raised.value.findings[0].allowed


def test_a_trackers_arguments_are_told_from_its_own(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    source, layout, model = DATA["object-tracking"]
    text = SPEC.format(task="object-tracking", augment="flip", source=source, layout=layout, model=model)
    path.write_text(text.replace("augment: flip", "tracker: {name: sort, max_agee: 3}"))
    with pytest.raises(SpecInvalid) as raised:
        load_spec(path)
    (finding,) = raised.value.findings
    assert finding.where == "task.tracker.max_agee"
    assert finding.action == "write `max_age`"
    assert "buffer" not in finding.allowed
