"""What the tests of models share: one torch thread, real data as samples, and the plainest training loop."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets

from headrace.data import builtin_digit_scenes, builtin_digits, builtin_shapes
from headrace_models.layers import build_loss, build_optimizer, build_schedule
from headrace_models.package import build_model
from headrace_models.tasks import Sample, Schema, Task, build_task

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))  # for `import zoo`

Split = tuple[list[Sample], list[Sample], Schema]


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "PNG") if mode else Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def halves(samples: list[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    order = list(samples)
    random.Random(0).shuffle(order)
    cut = int(len(order) * share)
    return order[:cut], order[cut:]


def load_digits() -> Split:
    """scikit-learn's 1,797 digits as PNG files: 70 % to train on, 30 % to judge."""
    data = datasets.load_digits()
    samples = [
        Sample(f"d{place}", png(np.rint(image * (255 / 16)).astype(np.uint8)), {"label": str(label)})
        for place, (image, label) in enumerate(zip(data.images, data.target, strict=True))
    ]
    return *halves(samples, 0.7), Schema("label", tuple("0123456789"))


def load_shapes() -> Split:
    """`builtin:shapes`, 240 pictures with circles, squares and triangles: 70 % to train on, 30 % to judge."""
    samples = []
    for number in range(builtin_shapes.PICTURES):
        pixels, objects = builtin_shapes.scene(random.Random(f"shapes/{number}"))
        annotation = {
            "size": list(pixels.shape[:2]),
            "boxes": [[each.left, each.top, each.right, each.bottom] for each in objects],
            "names": [each.name for each in objects],
        }
        samples.append(Sample(f"s{number}", png(pixels), {"annotation": annotation}))
    return *halves(samples, 0.7), Schema("annotation", builtin_shapes.CLASSES)


def load_digit_scenes() -> Split:
    """`builtin:digit-scenes`, a digit with its mask in each of 1,797 pictures: 70 % to train on, 30 % to judge."""
    files, classes = builtin_digit_scenes.contents(), tuple("0123456789")
    samples = []
    for number, row in enumerate(builtin_digits.digits().astype(int)):
        mask = files[f"SegmentationClass/{number:05d}.png"]
        rows, columns = np.nonzero(np.asarray(Image.open(io.BytesIO(mask))))
        box = [int(edge) for edge in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        side = builtin_digit_scenes.SIDE
        annotation = {"size": [side, side], "boxes": [box], "names": [classes[row[-1]]], "mask": mask}
        samples.append(Sample(f"g{number}", files[f"JPEGImages/{number:05d}.png"], {"annotation": annotation}))
    return *halves(samples, 0.7), Schema("annotation", classes)


@pytest.fixture(scope="session")
def shapes() -> Split:
    """See `load_shapes`."""
    return load_shapes()


@pytest.fixture(scope="session")
def digits() -> Split:
    """See `load_digits`."""
    return load_digits()


def table(data: Any, label: str) -> list[Sample]:
    names = [name.replace(" ", "_") for name in data.feature_names]
    return [
        Sample(f"r{place}", dict(zip(names, map(float, row), strict=True)), {label: value})
        for place, (row, value) in enumerate(zip(data.data, data.target, strict=True))
    ]


@pytest.fixture(scope="session")
def tables() -> dict[str, Split]:
    """iris and wine with their classes, diabetes with its number."""
    found: dict[str, Split] = {}
    for name in ("iris", "wine"):
        data = getattr(datasets, f"load_{name}")()
        samples = [
            Sample(s.sample_id, s.payload, {"kind": str(data.target_names[s.labels["kind"]])})
            for s in table(data, "kind")
        ]
        columns = dict.fromkeys(samples[0].payload, "number")
        found[name] = *halves(samples, 0.7), Schema("kind", tuple(map(str, data.target_names)), columns)
    data = datasets.load_diabetes()
    samples = table(data, "progression")
    columns = dict.fromkeys(samples[0].payload, "number")
    found["diabetes"] = *halves(samples, 0.7), Schema("progression", (), columns)
    return found


@pytest.fixture(scope="session")
def learned() -> Callable[..., Task]:
    """A task that has learned its samples on one worker."""

    def make(name: str, samples: Sequence[Sample], schema: Schema, **args: Any) -> Task:
        task = build_task({"name": name, "args": args}, schema)
        task.learn([task.summarise(samples)])
        return task

    return make


@pytest.fixture(scope="session")
def fit() -> Callable[..., tuple[torch.nn.Module, dict[str, float]]]:
    """Train by hand and judge: (network, metrics on the samples held back)."""

    def run(
        task: Task,
        train: Sequence[Sample],
        test: Sequence[Sample],
        model: dict[str, Any],
        *,
        epochs: int,
        batch: int = 64,
        optimizer: dict[str, Any] | None = None,
        loss: str | None = None,
        schedule: str = "constant",
    ) -> tuple[torch.nn.Module, dict[str, float]]:
        torch.manual_seed(0)
        network = build_model(model, task)
        wanted = optimizer or {"name": "adam", "args": {"lr": 0.003}}
        tuner = build_optimizer(wanted["name"], wanted["args"], network.named_parameters())
        judge = build_loss(loss or task.card.losses[0], {}, task)
        examples = [task.decode(sample) for sample in train]
        steps = -(-len(examples) // batch)
        rate = build_schedule(schedule, {}, tuner, total_steps=steps * epochs, steps_per_epoch=steps)
        for epoch in range(epochs):
            order = np.random.default_rng([0, epoch]).permutation(len(examples))
            for start in range(0, len(order), batch):
                rows = task.collate([examples[place] for place in order[start : start + batch]])
                tuner.zero_grad()
                task.total_loss(network(*task.inputs(rows)), rows, judge).backward()
                tuner.step()
                rate.step()
        network.eval()
        metrics = task.new_metrics()
        with torch.inference_mode():
            rows = task.collate([task.decode(sample) for sample in test])
            metrics.update(network(*task.inputs(rows)), rows)
        return network, metrics.compute()

    return run
