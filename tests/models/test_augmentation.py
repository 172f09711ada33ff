"""Steps of augmentation: torchvision's transforms on pictures, masks and boxes, drawn from the sample's own seed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace_models.catalog import augment_steps as steps
from headrace_models.catalog.task_cards import ImageClassificationArguments
from headrace_models.tasks import Task, build_task, task_from_record
from headrace_models.tasks.augmentation import Augmentation
from headrace_models.tasks.base import Example, Schema
from headrace_models.tasks.multi_task import MultiTask
from headrace_models.tasks.picture_variation import varied

ALL: list[dict[str, Any]] = [
    {"name": "horizontal-flip"},
    {"name": "vertical-flip"},
    {"name": "random-resized-crop", "scale": [0.3, 0.9]},
    {"name": "random-crop"},
    {"name": "random-crop", "padding_mode": "edge"},
    {"name": "rotation", "degrees": 30},
    {"name": "affine", "shear": 10},
    {"name": "perspective", "p": 1},
    {"name": "color-jitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    {"name": "grayscale", "p": 0.5},
    {"name": "gaussian-blur", "p": 1},
    {"name": "random-erasing", "p": 1},
    {"name": "auto-contrast"},
    {"name": "rand-augment"},
    {"name": "trivial-augment"},
]
MOVING = ALL[:8]
SIZE = (48, 64)
FILL = (100, 120, 140)


def augmentation(*chosen: dict[str, Any], size: tuple[int, int] = SIZE, channels: int = 3) -> Augmentation:
    args = ImageClassificationArguments.model_validate({"augment": list(chosen)})
    assert not isinstance(args.augment, str)
    return Augmentation(args.augment, size, FILL[:channels])


def picture(channels: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(30, 220, (channels, *size), dtype=np.uint8)


def ids(step: dict[str, Any]) -> str:
    return "-".join([step["name"], *(["edge"] if "padding_mode" in step else [])])


# what is drawn


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", ALL, ids=ids)
def test_a_step_depends_on_the_seed_it_is_given_and_on_nothing_else(step: dict[str, Any], channels: int) -> None:
    made, pixels = augmentation(step, channels=channels), picture(channels)
    before = pixels.copy()
    torch.manual_seed(1)
    first = [made({"image": pixels}, random.Random(seed))["image"] for seed in range(30)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = [made({"image": pixels}, random.Random(seed))["image"] for seed in reversed(range(30))][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(pixels, before)
    assert {(image.shape, image.dtype) for image in first} == {(pixels.shape, np.dtype(np.uint8))}
    colourless = channels == 1 and step["name"] == "grayscale"
    assert (len({image.tobytes() for image in first}) > 1) is not colourless


def test_another_thread_that_draws_from_the_global_generator_changes_nothing_and_is_not_changed() -> None:
    made, pixels = augmentation(*ALL), picture()
    torch.manual_seed(5)
    wanted = [made({"image": pixels}, random.Random(seed))["image"] for seed in range(20)]
    drawn_alone = [torch.rand(1).item() for _ in range(2000)]
    torch.manual_seed(5)
    drawn: list[float] = []
    other = threading.Thread(target=lambda: drawn.extend(torch.rand(1).item() for _ in range(2000)))
    other.start()
    found = [made({"image": pixels}, random.Random(seed))["image"] for seed in range(20)]
    other.join()
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert drawn == drawn_alone


def test_a_step_is_done_as_often_as_its_p_says() -> None:
    made, pixels = augmentation({"name": "vertical-flip", "p": 0.25}), picture()
    done = [not np.array_equal(made({"image": pixels}, random.Random(n))["image"], pixels) for n in range(2000)]
    assert 0.22 < np.mean(done) < 0.28
    never = augmentation(*({**step, "p": 0} for step in ALL))
    assert np.array_equal(never({"image": pixels}, random.Random(0))["image"], pixels)


def test_steps_are_torchvisions_with_their_arguments_in_their_order() -> None:
    chosen = [ALL[5], {"name": "color-jitter", "brightness": 0.4}, {"name": "random-erasing", "p": 1}]
    found = augmentation(*chosen)({"image": picture()}, random.Random(7))["image"]
    torch.manual_seed(random.Random(7).getrandbits(63))
    smooth = InterpolationMode.BILINEAR
    wanted = torch.from_numpy(picture())
    for transform in (
        v2.RandomRotation(30, smooth, fill=FILL),
        v2.ColorJitter(0.4),
        v2.RandomErasing(1.0, value=FILL),
    ):
        wanted = transform.transform(wanted, transform.make_params([wanted]))
    assert np.array_equal(found, wanted.numpy())


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("flip", [{"name": "horizontal-flip"}]),
        ("shift", [{"name": "random-crop", "padding": 2, "padding_mode": "edge"}]),
        ("crop-flip", [{"name": "horizontal-flip"}, {"name": "random-crop", "padding": 2, "padding_mode": "edge"}]),
    ],
)
def test_the_named_variations_are_lists_of_steps_made_fast(name: str, chosen: list[dict[str, Any]]) -> None:
    example = {"image": picture(size=(16, 16)), "mask": picture(1, (16, 16))[0]}
    made = augmentation(*chosen, size=(16, 16))

    def outcomes(vary: Callable[[random.Random], Example]) -> set[bytes]:
        found = [vary(random.Random(seed)) for seed in range(600)]
        return {each["image"].tobytes() + each["mask"].tobytes() for each in found}

    ours, theirs = outcomes(lambda rng: varied(example, name, rng)), outcomes(lambda rng: made(example, rng))
    assert ours == theirs
    assert len(ours) == {"flip": 2, "shift": 25, "crop-flip": 50}[name]


# masks and boxes follow


def scene(seed: int = 0) -> Example:
    """A bright rectangle of class 1 on a grey ground, with its mask and box, and a proposal that is padding."""
    rng = random.Random(seed)
    height, width = SIZE
    left, top = rng.randint(8, width - 30), rng.randint(8, height - 26)
    box = [left, top, left + rng.randint(12, 20), top + rng.randint(10, 16)]
    image, mask = np.full((3, *SIZE), 60, np.uint8), np.zeros(SIZE, np.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 250
    mask[box[1] : box[3], box[0] : box[2]] = 1
    boxes = np.array([box], np.float32)
    return {
        "image": image,
        "mask": mask,
        "boxes": boxes,
        "labels": np.array([0]),
        "ignore": np.array([False]),
        "crowd": np.array([False]),
        "proposals": np.concatenate([boxes, np.zeros((1, 4), np.float32)]),
    }


@pytest.mark.parametrize("step", MOVING, ids=ids)
def test_masks_and_boxes_follow_what_moves(step: dict[str, Any]) -> None:
    made = augmentation(step)
    kept = 0
    for seed in range(60):
        example = scene(seed)
        found = made(example, random.Random(seed))
        bright, masked = found["image"].min(axis=0) > 200, found["mask"] == 1
        assert set(np.unique(found["mask"])) <= {0, 1, 255}
        assert (bright != masked)[found["mask"] != 255].mean() < 0.03  # the smooth edge
        assert len(found["boxes"]) == len(found["labels"]) == len(found["ignore"]) == len(found["crowd"])
        assert found["proposals"][1].tolist() == [0, 0, 0, 0]
        if len(found["boxes"]):
            kept += 1
            x1, y1, x2, y2 = found["boxes"][0]
            assert 0 <= x1 < x2 <= SIZE[1]
            assert 0 <= y1 < y2 <= SIZE[0]
            rows, columns = np.nonzero(masked)
            if len(rows) and step["name"] != "perspective":
                edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(found["boxes"][0], edges, atol=1.6)
            np.testing.assert_allclose(found["proposals"][0], found["boxes"][0])
        else:
            assert not masked.any()
    assert kept > 40


def test_what_comes_into_view_has_the_mean_colour_and_does_not_count_in_a_mask() -> None:
    found = augmentation({"name": "rotation", "degrees": 180})(scene(), random.Random(4))
    new = found["mask"] == 255
    assert new.sum() > 100
    assert (found["image"][:, new] == np.array(FILL)[:, None]).mean() > 0.8
    edge = augmentation({"name": "random-crop", "padding": 9, "padding_mode": "edge"})(scene(), random.Random(4))
    assert not (edge["mask"] == 255).any()


def test_an_object_of_which_little_is_left_is_ignored_and_one_that_is_gone_vanishes() -> None:
    crop = augmentation({"name": "random-resized-crop", "scale": [0.2, 0.5]}, {"name": "affine", "scale": [0.5, 0.6]})
    seen = set()
    for seed in range(200):
        example = scene(seed)
        found = crop(example, random.Random(seed))
        seen.add((len(found["boxes"]), bool(found["ignore"].any())))
        left = (found["mask"] == 1).sum()
        assert bool(len(found["boxes"])) == bool(left) or left <= 4  # a sliver is less than a pixel
    assert seen == {(0, False), (1, False), (1, True)}


def test_pixels_alone_leave_masks_and_boxes_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    example = scene()
    found = augmentation(*ALL[8:13])(example, random.Random(0))
    assert found.keys() == example.keys()
    for name in ("mask", "boxes", "labels", "ignore", "crowd", "proposals"):
        assert np.array_equal(found[name], example[name]), name
    assert not recwarn.list


def test_a_picture_without_objects_is_varied_as_well() -> None:
    example = scene() | {"boxes": np.zeros((0, 4), np.float32), "proposals": np.zeros((2, 4), np.float32)}
    example |= {name: example[name][:0] for name in ("labels", "ignore", "crowd")}
    for seed in range(20):
        found = augmentation(*MOVING)(example, random.Random(seed))
        assert found["boxes"].shape == (0, 4)
        assert not found["proposals"].any()


# the tasks that have it


def prepared(name: str, augment: Any, classes: tuple[str, ...] = ("a", "b")) -> Task:
    task = build_task({"name": name, "args": {"augment": augment}}, Schema("annotation", classes))
    task.preprocessing = {"image_size": list(SIZE), "channels": 3, "mean": [0.4, 0.5, 0.6], "std": [1.0] * 3}
    return task


@pytest.mark.parametrize(
    "name", ["image-classification", "semantic-segmentation", "object-detection", "object-tracking"]
)
def test_every_task_on_pictures_takes_steps_and_keeps_them_in_its_record(name: str) -> None:
    task = prepared(name, ["horizontal-flip", {"name": "rotation", "degrees": 20}])
    again = task_from_record(json.loads(json.dumps(task.to_record())))
    example = scene() | {"tracks": np.array([1]), "label": 0}
    found = [each.augment(example, random.Random(3)) for each in (task, again)]
    assert not np.array_equal(found[0]["image"], example["image"])
    for key in example:
        assert np.array_equal(found[0][key], found[1][key])
    assert len({task.augment(example, random.Random(n))["image"].tobytes() for n in range(20)}) == 20


def test_joined_tasks_vary_picture_and_mask_together_and_refuse_what_a_mask_cannot_follow() -> None:
    parts = [prepared("image-classification", [{"name": "rotation"}]), prepared("semantic-segmentation", "none")]
    joined = MultiTask(parts)
    found = joined.augment(scene(), random.Random(1))
    assert ((found["image"].min(axis=0) > 200) != (found["mask"] == 1)).mean() < 0.03
    with pytest.raises(SpecInvalid, match=r"semantic-segmentation.*rand-augment"):
        MultiTask([prepared("image-classification", ["rand-augment"]), prepared("semantic-segmentation", "none")])


EXTREMES: list[dict[str, Any]] = [
    {"name": "random-resized-crop", "scale": [0.001, 0.001], "ratio": [0.001, 10]},
    {"name": "random-resized-crop", "scale": [1, 1], "ratio": [10, 10]},
    {"name": "random-crop", "padding": 512},
    {"name": "random-crop", "padding": 64, "padding_mode": "edge"},
    {"name": "rotation", "degrees": 180},
    {"name": "affine", "degrees": 180, "translate": 1, "scale": [0.001, 10], "shear": 80},
    {"name": "perspective", "p": 1, "distortion_scale": 1},
    {"name": "color-jitter", "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5},
    {"name": "gaussian-blur", "p": 1, "kernel_size": 15, "sigma": [0.001, 10]},
    {"name": "random-erasing", "p": 1, "scale": [1, 1], "ratio": [10, 10]},
    {"name": "random-erasing", "p": 1, "scale": [0, 0], "ratio": [0.001, 0.001]},
    {"name": "rand-augment", "num_ops": 8, "magnitude": 30},
]


@pytest.mark.parametrize("step", EXTREMES, ids=lambda step: step["name"])
def test_the_smallest_picture_survives_the_strongest_setting(step: dict[str, Any]) -> None:
    made = augmentation(step, size=(8, 8))
    box = np.array([[1, 1, 6, 7], [0, 0, 8, 8]], np.float32)
    example: Example = {"image": picture(size=(8, 8))}
    if step["name"] != "rand-augment":
        marks = {name: np.zeros(2, bool) for name in ("ignore", "crowd")}
        example |= {"mask": np.zeros((8, 8), np.uint8), "boxes": box, "labels": np.arange(2), "proposals": box, **marks}
    for seed in range(400):
        found = made(example, random.Random(seed))
        assert found["image"].shape == (3, 8, 8)
        assert all(np.isfinite(found.get(name, 0)).all() for name in ("boxes", "proposals"))


@pytest.mark.parametrize(("scale", "least", "most"), [(0.5, 0, 0), (1.0, 10, 225)])
def test_corners_that_make_no_picture_are_drawn_again_and_others_are_torchvisions(
    scale: float, least: int, most: int
) -> None:
    made = augmentation({"name": "perspective", "p": 1, "distortion_scale": scale}, size=(8, 8))
    theirs = v2.RandomPerspective(scale, 1.0, InterpolationMode.BILINEAR, fill=FILL)
    shown, again = torch.from_numpy(picture(size=(8, 8))), 0
    for seed in range(300):
        torch.manual_seed(random.Random(seed).getrandbits(63))
        ours = made({"image": shown.numpy()}, random.Random(seed))["image"]
        try:
            again += not np.array_equal(ours, theirs.transform(shown, theirs.make_params([shown])).numpy())
        except RuntimeError:  # three corners on a line
            again += 1
    assert least <= again <= most  # measured at 1: 166


def test_a_blur_wider_than_the_picture_is_refused_before_anything_is_drawn() -> None:
    step = {"name": "gaussian-blur", "kernel_size": 17, "p": 0}
    with pytest.raises(InvalidInput, match=r"kernel_size 17.*image_size of 9.*8x32.*to 15"):
        augmentation(step, size=(8, 32))
    augmentation(step, size=(9, 32))
    for size in (8, [32, 8]):
        with pytest.raises(SpecInvalid) as raised:
            build_task(
                {"name": "image-classification", "args": {"image_size": size, "augment": [step]}},
                Schema("label", ("a", "b")),
            )
        assert "kernel_size 17" in str(raised.value.findings[0])


def test_names_and_arguments_that_are_none_are_told_with_the_nearest() -> None:
    for given, said in (
        (["horizontal-flop"], "horizontal-flip"),
        ([{"name": "rotation", "degree": 3}], "degree"),
        ([{"name": "random-crop", "padding": "wide"}], "padding"),
        ([{"name": "affine", "scale": [2, 1]}], "smaller one first"),
        ([{"name": "color-jitter"}], "brightness"),
        ([{"name": "gaussian-blur", "kernel_size": 4}], "odd"),
    ):
        with pytest.raises(SpecInvalid) as raised:
            prepared("image-classification", given)
        assert said in str(raised.value.findings[0]), given
    for name in ("object-detection", "semantic-segmentation"):
        with pytest.raises(SpecInvalid, match="rand-augment"):
            prepared(name, ["rand-augment"])


def test_ranges_that_are_not_given_are_torchvisions() -> None:
    crop, erase, blur = v2.RandomResizedCrop(8), v2.RandomErasing(), v2.GaussianBlur(3)
    assert (steps.RandomResizedCrop().scale, steps.RandomResizedCrop().ratio) == (crop.scale, crop.ratio)
    assert (steps.RandomErasing().scale, steps.RandomErasing().ratio) == (erase.scale, erase.ratio)
    assert steps.GaussianBlur().sigma == tuple(blur.sigma)
    automatic = v2.RandAugment()
    assert (steps.RandAugment().num_ops, steps.RandAugment().magnitude) == (automatic.num_ops, automatic.magnitude)
