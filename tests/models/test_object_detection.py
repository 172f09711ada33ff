"""The detection task: what of a picture and its boxes reaches the network, and what a client gets back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import png

from headrace.base.errors import DataInvalid, InvalidInput
from headrace_models.detection.boxes import usual_sizes
from headrace_models.detection.outputs import Detections, DetectorOutput
from headrace_models.layers import build_loss
from headrace_models.package import build_model
from headrace_models.tasks import BadInput, Sample, Schema, Task, build_task, task_from_record
from headrace_models.tasks.detection_metrics import DetectionMetrics

SCHEMA = Schema("annotation", ("cat", "dog"))
Learned = Callable[..., Task]


def picture(
    height: int, width: int, objects: Sequence[tuple[str, list[float]]], name: str = "p", **more: Any
) -> Sample:
    """Black, with objects in white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for _, (x1, y1, x2, y2) in objects:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 255
    annotation = {
        "size": [height, width],
        "boxes": [box for _, box in objects],
        "names": [kind for kind, _ in objects],
        **more,
    }
    return Sample(name, png(pixels), {"annotation": annotation})


CAT, DOG = ("cat", [10.0, 20.0, 60.0, 50.0]), ("dog", [70.0, 60.0, 100.0, 90.0])
PICTURES = [picture(100, 120, [CAT, DOG], "a"), picture(100, 120, [DOG], "b"), picture(100, 120, [], "c")]


@pytest.fixture
def task(learned: Learned) -> Task:
    return learned("object-detection", PICTURES, SCHEMA, image_size=[64, 96])


def bright(image: np.ndarray) -> tuple[int, ...]:
    """The box around the white pixels."""
    rows, columns = np.nonzero(image.max(axis=0) > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


# what the data teaches


def test_the_size_is_the_pictures_own_if_it_is_small_and_at_most_320_otherwise(learned: Learned) -> None:
    def size(*shapes: tuple[int, int]) -> Any:
        samples = [picture(height, width, [("cat", [0, 0, 9, 9])]) for height, width in shapes]
        return learned("object-detection", samples, SCHEMA).model_facts()["image_size"]

    assert size((96, 96)) == (96, 96)
    assert size((480, 640)) == (256, 320)
    assert size((100, 40), (300, 200), (100, 200)) == (96, 192)
    assert size((8, 1000)) == (32, 320)


def test_workers_learn_together_what_one_learns(learned: Learned) -> None:
    alone = learned("object-detection", PICTURES, SCHEMA)
    shared = build_task({"name": "object-detection", "args": {}}, SCHEMA)
    shared.learn([shared.summarise(part) for part in (PICTURES[:1], PICTURES[1:])])
    assert shared.preprocessing.keys() == alone.preprocessing.keys()
    for name, value in alone.preprocessing.items():
        assert np.allclose(shared.preprocessing[name], value), name
    assert alone.loss_facts() == {"classes": ("cat", "dog"), "class_counts": [1, 2]}
    assert task_from_record(alone.to_record()).model_facts() == alone.model_facts()


def test_usual_sizes_are_where_the_sizes_gather() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.normal(mean, 1.0, (50, 2)) for mean in ([10, 20], [40, 40], [90, 30])])
    found = usual_sizes(sizes, 3)
    np.testing.assert_allclose(found, [[10, 20], [40, 40], [90, 30]], atol=1.0)
    shuffled = usual_sizes(sizes[rng.permutation(len(sizes))], 3)
    np.testing.assert_allclose(found, shuffled)
    assert usual_sizes(np.array([[5.0, 6.0]]), 3).tolist() == [[5.0, 6.0]] * 3


def test_data_without_classes_or_without_objects_is_refused(learned: Learned) -> None:
    with pytest.raises(DataInvalid, match="class of objects"):
        build_task({"name": "object-detection"}, Schema("annotation", ()))
    with pytest.raises(DataInvalid, match="no object"):
        learned("object-detection", PICTURES[2:], SCHEMA)
    with pytest.raises(DataInvalid, match="no picture"):
        learned("object-detection", [], SCHEMA)


# samples to batches


def test_boxes_go_along_when_a_picture_is_stretched(task: Task) -> None:
    example = task.decode(PICTURES[0])
    assert example["image"].shape == (3, 64, 96)
    np.testing.assert_allclose(example["boxes"], [[8, 12.8, 48, 32], [56, 38.4, 80, 57.6]], rtol=1e-6)
    assert example["labels"].tolist() == [0, 1]
    assert example["size"].tolist() == [100, 120]
    assert "boxes" not in task.decode(Sample("bare", PICTURES[0].payload))


def test_a_picture_turned_by_its_exif_is_boxed_upright(learned: Learned) -> None:
    import io

    from PIL import Image

    upright = Image.new("RGB", (60, 30))
    upright.paste((255, 255, 255), (40, 5, 55, 25))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    sample = Sample("t", buffer.getvalue(), {"annotation": {"boxes": [[40, 5, 55, 25]], "names": ["cat"]}})
    example = learned("object-detection", [sample], SCHEMA, image_size=[32, 64]).decode(sample)
    np.testing.assert_allclose(bright(example["image"]), example["boxes"][0], atol=1.0)


@pytest.mark.parametrize("augment", ["none", "flip", "flips", "flip-zoom", "flips-zoom"])
def test_boxes_survive_augmentation(learned: Learned, augment: str) -> None:
    sample = picture(100, 120, [("cat", [20.0, 10.0, 50.0, 70.0])])
    task = learned("object-detection", [sample], SCHEMA, image_size=[100, 120], augment=augment)
    example = task.decode(sample)
    proposals = np.concatenate([example["boxes"], np.zeros((1, 4), np.float32)])
    seen = set()
    for seed in range(40):
        varied = task.augment({**example, "proposals": proposals}, random.Random(seed))
        assert varied["image"].shape == example["image"].shape
        assert varied["image"].dtype == np.uint8
        np.testing.assert_allclose(bright(varied["image"]), varied["boxes"][0], atol=1.5)
        np.testing.assert_allclose(varied["proposals"], [varied["boxes"][0], [0, 0, 0, 0]])
        seen.add(tuple(np.round(varied["boxes"][0]).tolist()))
    assert len(seen) >= {"none": 1, "flip": 2, "flips": 4}.get(augment, 30)
    assert len(seen) <= {"none": 1, "flip": 2, "flips": 4}.get(augment, 40)
    again = [task.augment(example, random.Random(3))["image"] for _ in range(2)]
    assert np.array_equal(*again)


def test_what_a_zoom_cuts_off_is_ignored_or_gone(learned: Learned) -> None:
    corners: list[tuple[str, list[float]]] = [("cat", [0.0, 0.0, 30.0, 20.0]), ("dog", [90.0, 80.0, 120.0, 100.0])]
    sample = picture(100, 120, corners)
    task = learned("object-detection", [sample], SCHEMA, image_size=[100, 120], augment="flip-zoom")
    counts = set()
    for seed in range(300):
        varied = task.augment(task.decode(sample), random.Random(seed))
        boxes = varied["boxes"]
        assert len(boxes) == len(varied["labels"]) == len(varied["ignore"]) == len(varied["crowd"])
        assert (boxes >= 0).all()
        assert (boxes <= [120, 100, 120, 100]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        counts.add((len(boxes), bool(varied["ignore"].any())))
        task.collate([varied])
    assert {(0, False), (1, False), (1, True), (2, False)} <= counts | {(0, False)}
    assert {number for number, _ in counts} >= {1, 2}


def test_a_batch_is_padded_and_marks_what_does_not_count(task: Task) -> None:
    marked = picture(100, 120, [CAT, DOG], difficult=[True, False], crowd=[False, True])
    batch = task.collate([task.decode(marked), task.decode(PICTURES[1]), task.decode(PICTURES[2])])
    assert next(iter(batch)) == "image"
    assert batch["labels"].tolist() == [[0, 1], [1, -1], [-1, -1]]
    assert batch["ignore"].tolist() == [[True, True], [False, False], [False, False]]
    assert batch["crowd"].tolist() == [[False, True], [False, False], [False, False]]
    image, targets = task.inputs(batch)
    assert image.dtype == torch.float32
    assert targets.wanted.tolist() == [[False, False], [True, False], [False, False]]
    assert len(task.inputs(task.collate([task.decode(Sample("bare", PICTURES[0].payload))]))) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ["cat", "wolf"]}, "'wolf', which is none of the 2 classes"),
        ({"boxes": [[0, 0, 9, 9]]}, "not one for each name"),
        ({"boxes": [[0, 0, 9, 9], [5, 5, 5, 9]]}, "boxes that are none"),
    ],
)
def test_an_annotation_that_cannot_be_is_named(task: Task, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        task.decode(picture(100, 120, [CAT, DOG], **change))


# losses and pictures


def test_a_model_that_is_no_detector_is_told_what_is_wanted(task: Task) -> None:
    batch = task.collate([task.decode(PICTURES[0])])
    loss = build_loss("detection", {}, task)
    for outputs, said in (
        (torch.zeros(1, 3), "DetectorOutput"),
        (DetectorOutput(None, None), "no losses"),
    ):
        with pytest.raises(InvalidInput, match=said):
            task.loss(outputs, batch, loss)
    with pytest.raises(InvalidInput, match="no detections"):
        task.postprocess(DetectorOutput({}, None), batch)
    with pytest.raises(InvalidInput, match="does not fit"):
        build_loss("cross-entropy", {}, task)


def test_pictures_of_an_evaluation_are_drawn_also_of_pictures_without_objects(task: Task) -> None:
    torch.manual_seed(0)
    network = build_model({"name": "yolo", "args": {"width": 4, "score_threshold": 0.0}}, task).eval()
    examples = [task.decode(sample) for sample in PICTURES]
    batch = task.collate(examples)
    with torch.inference_mode():
        outputs = network(*task.inputs(batch))
    metrics = task.new_metrics()
    metrics.update(outputs, batch)
    figures = {**task.plots(metrics), **task.example_pictures(examples, outputs)}
    assert set(figures) == {"precision_recall", "average_precision", "example_predictions"}
    for figure in figures.values():
        figure.canvas.draw()
    drawn = figures["example_predictions"].axes[0].patches
    assert sum(patch.get_linestyle() == "--" for patch in drawn) == 2
    for figure in task.plots(DetectionMetrics(2)).values():  # nothing measured
        figure.canvas.draw()


# serving


def test_boxes_come_back_in_pixels_of_the_picture_that_was_sent(task: Task) -> None:
    batch = task.preprocess(task.request([PICTURES[0], picture(50, 240, [])]))
    detections = Detections(
        torch.tensor([[[8.0, 12.8, 48.0, 32.0], [0, 0, 0, 0]], [[48.0, 32.0, 96.0, 64.0], [0, 0, 96, 64]]]),
        torch.tensor([[0.9, 0.0], [0.8, 0.7]]),
        torch.tensor([[0, -1], [1, 0]]),
    )
    answer = task.postprocess(DetectorOutput(None, detections), batch)
    np.testing.assert_allclose(answer["boxes"][0, 0], CAT[1], rtol=1e-5)
    np.testing.assert_allclose(answer["boxes"][1], [[120, 25, 240, 50], [0, 0, 240, 50]], rtol=1e-5)
    assert answer["labels"].tolist() == [["cat", ""], ["dog", "cat"]]
    assert answer["count"].tolist() == [1, 2]
    dtypes = {name: array.dtype for name, array in answer.items()}
    assert dtypes == {"boxes": np.float32, "scores": np.float32, "labels": np.dtype(object), "count": np.int64}
    assert [spec.name for spec in task.signature().outputs] == list(answer)


def test_encoded_and_raw_pictures_make_the_same_batch(task: Task) -> None:
    encoded = task.preprocess(task.request(PICTURES[:1]))
    pixels = np.zeros((1, 100, 120, 3), np.uint8)
    for _, (x1, y1, x2, y2) in (CAT, DOG):
        pixels[0, int(y1) : int(y2), int(x1) : int(x2)] = 255
    raw = task.preprocess({"image": pixels})
    assert set(raw) == set(encoded) == {"image", "size"}
    assert all(torch.equal(raw[name], encoded[name]) for name in raw)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "wanted is one named 'image'"),
        ({"image": np.zeros((0,), object)}, "no picture"),
        ({"image": np.zeros((1, 3, 64, 96), np.float32)}, "allowed: BYTES"),
        ({"image": np.array([b"no picture"], object)}, "picture 0"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(task: Task, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        task.preprocess(inputs)
