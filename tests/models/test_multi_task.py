"""Segmentation, and one network for several tasks: labels, losses, metrics and answers of each."""

from __future__ import annotations

import io
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headrace.base.errors import InvalidInput
from headrace.training.loop import LossTerm, Objective
from headrace_models import catalog
from headrace_models.layers import build_loss
from headrace_models.layers.losses import IGNORED
from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import Sample, Schema, Task, build_tasks, task_from_record
from headrace_models.tasks.base import BadInput, MultiTaskOutput
from headrace_models.tasks.multi_task import MultiTask

CLASSES = ("dark", "light")
SIDE = 16
BOTH = [{"name": "image-classification"}, {"name": "semantic-segmentation"}]
NAMES = tuple(record["name"] for record in BOTH)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def sample(seed: int, side: int = SIDE, **more: Any) -> Sample:
    """A square, dark or light, on grey; its mask says where."""
    rng = np.random.default_rng(seed)
    kind = seed % 2
    size = int(rng.integers(5, 9)) * side // SIDE
    top, left = (int(rng.integers(0, side - size)) for _ in range(2))
    pixels, mask = np.full((side, side), 128.0), np.zeros((side, side))
    pixels[top : top + size, left : left + size] = 230 if kind else 20
    mask[top : top + size, left : left + size] = kind + 1
    said = {"names": [CLASSES[kind]], "boxes": [[left, top, left + size, top + size]], "mask": png(mask), **more}
    return Sample(str(seed), png(pixels + rng.normal(0, 8, pixels.shape).clip(-20, 20)), {"annotation": said})


def made(records: list[dict[str, Any]] = BOTH, samples: int = 8) -> Task:
    task = build_tasks(records, Schema("annotation", CLASSES))
    task.learn([task.summarise([sample(seed) for seed in range(samples)])])
    return task


def batch_of(task: Task, count: int = 8) -> Any:
    return task.collate([task.decode(sample(seed)) for seed in range(count)])


def test_each_task_has_its_labels_of_one_picture() -> None:
    task = made()
    example = task.decode(sample(3))
    assert set(example) == {"image", "label", "mask"}
    assert example["label"] == 1
    assert set(np.unique(example["mask"])) == {0, 2}
    batch = task.collate([example, task.decode(sample(4))])
    assert batch["label"].tolist() == [1, 0]
    assert batch["mask"].shape == (2, SIDE, SIDE)
    assert set(task.card.metrics) >= {"image-classification.accuracy", "semantic-segmentation.iou"}


def test_picture_and_mask_vary_together() -> None:
    task = made([{"name": "image-classification", "args": {"augment": "crop-flip"}}, BOTH[1]])
    moved = 0
    for seed in range(40):
        example = task.decode(sample(5))
        varied = task.augment(example, random.Random(seed))
        inside = varied["image"][0] > 180
        assert (inside == (varied["mask"] == 2)).mean() > 0.97
        moved += not np.array_equal(varied["mask"], example["mask"])
    assert moved > 20


def test_pixels_that_do_not_count_change_neither_loss_nor_metrics() -> None:
    task = made([BOTH[1]])
    mask = np.zeros((SIDE, SIDE))
    mask[:8] = 1
    unknown = mask.copy()
    unknown[:, 8:] = 255
    wrong = unknown.copy()
    wrong[:, 8:] = 255
    batches = [task.collate([task.decode(sample(1, mask=png(each)))]) for each in (unknown, wrong)]
    assert (batches[0]["mask"][0, :, 8:] == IGNORED).all()
    scores = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    other = scores.clone()
    other[..., 8:] = 50 * torch.randn(1, 3, SIDE, 8, generator=torch.Generator().manual_seed(1))
    for name in ("cross-entropy", "dice", "focal"):
        loss = build_loss(name, {}, task)
        given = [float(task.loss(each, batches[0], loss)) for each in (scores, other)]
        assert given[0] == pytest.approx(given[1], rel=1e-5)
    metrics = task.new_metrics()
    metrics.update(other, batches[0])
    assert int(metrics.state().sum()) == SIDE * 8


def test_iou_is_intersection_over_union_of_all_pixels_over_workers() -> None:
    task = made([BOTH[1]])
    batch = batch_of(task)
    true = batch["mask"].numpy()
    rng = np.random.default_rng(0)
    said = np.where(rng.random(true.shape) < 0.3, rng.integers(0, 3, true.shape), true)
    scores = torch.nn.functional.one_hot(torch.from_numpy(said), 3).movedim(-1, 1).float()
    halves = [task.new_metrics(), task.new_metrics()]
    for half, rows in zip(halves, (slice(0, 3), slice(3, 8)), strict=True):
        half.update(scores[rows], {name: value[rows] for name, value in batch.items()})
    whole = task.new_metrics()
    whole.merge([half.state() for half in halves])
    expected = [((true == k) & (said == k)).sum() / ((true == k) | (said == k)).sum() for k in range(3)]
    assert whole.compute() == pytest.approx({"iou": np.mean(expected), "pixel_accuracy": (true == said).mean()})


def test_losses_count_by_their_task_and_by_learned_uncertainty() -> None:
    """Kendall et al. 2018, eq. 10: s / 2 once a task, however many losses it has."""
    task = made()
    batch = batch_of(task)
    scores = {NAMES[0]: torch.randn(8, 2), NAMES[1]: torch.randn(8, 3, SIDE, SIDE)}
    losses = [("cross-entropy", 1.0, NAMES[0]), ("cross-entropy", 1.0, NAMES[1]), ("dice", 0.5, NAMES[1])]
    terms = tuple(LossTerm(build_loss(name, {}, task.part(whose)), weight, whose) for name, weight, whose in losses)
    objective = Objective(task, terms, torch.device("cpu"), torch.float32)
    first = torch.nn.functional.cross_entropy(scores[NAMES[0]], batch["label"])
    second = torch.nn.functional.cross_entropy(scores[NAMES[1]], batch["mask"])
    second = second + 0.5 * build_loss("dice", {}, task.part(NAMES[1]))(scores[NAMES[1]], batch["mask"])
    plain, _ = objective(lambda image: MultiTaskOutput(scores, {}), batch)
    torch.testing.assert_close(plain, first + second)
    s = {name: torch.tensor([value], requires_grad=True) for name, value in zip(NAMES, (1.5, -0.5), strict=True)}
    weighted, _ = objective(lambda image: MultiTaskOutput(scores, s), batch)
    torch.testing.assert_close(weighted, math.exp(-1.5) * first + 0.75 + math.exp(0.5) * second - 0.25)
    weighted.backward()
    gradient = s[NAMES[1]].grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0], -math.exp(0.5) * second + 0.5)  # zero where exp(s) is twice the loss


def test_no_network_has_a_parameter_that_cannot_be_sharded() -> None:
    """FSDP2 shards along the first dimension: there must be one."""
    model = build_model({"name": "multi-task", "args": {"width": 4, "depth": 2, "loss_weights": "learned"}}, made())
    assert all(parameter.ndim for parameter in model.parameters())


@pytest.mark.parametrize("weights", ["fixed", "learned"])
def test_a_small_network_learns_both_and_answers_both_from_its_package(weights: str, tmp_path: Any) -> None:
    task = made(samples=64)
    record = {"name": "multi-task", "args": {"width": 8, "depth": 2, "loss_weights": weights}}
    torch.manual_seed(0)
    model = build_model(record, task)
    terms = tuple(LossTerm(build_loss("cross-entropy", {}, task.part(name)), 1.0, name) for name in NAMES)
    objective = Objective(task, terms, torch.device("cpu"), torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batch = batch_of(task, 64)
    for _ in range(60):
        total, _ = objective(model, batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    learned = {name: float(value) for name, value in model.state_dict().items() if name.startswith("log_variances")}
    assert len(learned) == (2 if weights == "learned" else 0)
    assert all(value < -0.1 for value in learned.values())  # both losses fell far below 1
    example = task.request([sample(100), sample(101)])
    write_package(
        tmp_path / "p",
        task=task,
        model=model.eval(),
        model_record=record,
        code_folder=None,
        provenance={},
        example=example,
    )
    package = load_package(tmp_path / "p")
    unseen = [sample(seed, 32) for seed in range(200, 220)]
    answer = package.predict(package.task.request(unseen))
    assert set(answer) == {"label", "score", "probabilities", "top_labels", "top_scores", "mask"}
    assert np.mean([label == CLASSES[n % 2] for n, label in enumerate(answer["label"])]) >= 0.9
    metrics = package.task.new_metrics()
    test = package.task.collate([package.task.decode(each) for each in unseen])
    metrics.update(package.forward(test), test)
    reached = metrics.compute()
    assert reached["semantic-segmentation.iou"] > 0.8
    assert answer["mask"].shape == (20, SIDE, SIDE)
    assert set(package.task.plots(metrics)) == {
        "image-classification_confusion_matrix",
        "image-classification_precision_recall",
        "image-classification_class_report",
        "semantic-segmentation_iou",
    }
    examples = [package.task.decode(each) for each in unseen]
    assert set(package.task.example_pictures(examples, package.forward(test))) == {
        "example_predictions",
        "example_masks",
    }


def test_a_joined_task_comes_back_from_its_record() -> None:
    task = made()
    again = task_from_record(task.to_record())
    assert again.to_record() == task.to_record()
    assert again.names == NAMES
    assert again.signature() == task.signature()


def test_what_does_not_fit_together_is_told() -> None:
    schema = Schema("annotation", CLASSES)
    with pytest.raises(InvalidInput, match="object-detection cannot be one of several"):
        build_tasks([BOTH[0], {"name": "object-detection"}], schema)
    with pytest.raises(InvalidInput, match="different image_sizes"):
        build_tasks([{**BOTH[0], "args": {"image_size": 32}}, {**BOTH[1], "args": {"image_size": 64}}], schema)
    sizes = build_tasks([BOTH[0], {**BOTH[1], "args": {"image_size": 64}}], schema)
    assert isinstance(sizes, MultiTask)
    assert {part.args.image_size for part in sizes.parts.values()} == {64}  # type: ignore[attr-defined]
    task = made()
    with pytest.raises(InvalidInput, match="resnet8"):
        build_model({"name": "resnet8"}, task)
    with pytest.raises(InvalidInput, match="together"):
        build_model({"name": "multi-task"}, made([BOTH[1]]))
    assert isinstance(task, MultiTask)
    with pytest.raises(InvalidInput, match="gave nothing for semantic-segmentation"):
        task.outputs_of(NAMES[1], torch.zeros(2))
    for bad in ({"mask": b"no picture"}, {"mask": png(np.full((SIDE, SIDE), 9))}, {"mask": png(np.zeros((3, 3)))}):
        with pytest.raises(BadInput, match="mask"):
            task.decode(sample(1, **bad))


def test_the_published_u_net_has_its_shape() -> None:
    """Figure 1: 64 channels doubling four times, 23 convolutions; ours keeps the size of the picture."""
    from headrace_models.segmentation.unet import UNet

    net = UNet(1, 2)
    convolutions = [m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert len(convolutions) == 23
    assert net.contracting.channels == [64, 128, 256, 512, 1024]
    odd = UNet(3, 5, width=4, depth=3).eval()
    assert odd(torch.zeros(1, 3, 37, 50)).shape == (1, 5, 37, 50)
    assert catalog.models()["unet"].suits(["semantic-segmentation"])
