"""Weights of another model: torchvision's give torchvision's outputs, and a head of other classes starts anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import png
from safetensors.torch import save_file
from torchvision.models import Weights, WeightsEnum

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import sha256_of_file
from headrace.spec import load_spec
from headrace.steps.first_weights import with_stored_weights
from headrace.store import Store
from headrace.training.components import make_model
from headrace.training.heads import head_of_others
from headrace.training.initialise import Matching
from headrace_models.package import build_model, write_package
from headrace_models.tasks import Sample, Schema, Task, build_tasks

PICTURES = {"image_size": [64, 96], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
HEADS = {  # weights that a head of other classes has anew
    "resnet18": ("fc.weight", "fc.bias"),
    "alexnet": ("classifier.6.weight", "classifier.6.bias"),
    "vgg11": ("classifier.6.weight", "classifier.6.bias"),
    "googlenet": ("aux1.fc2.weight", "aux1.fc2.bias", "aux2.fc2.weight", "aux2.fc2.bias", "fc.weight", "fc.bias"),
}
ENUMS = {"resnet18": "ResNet18", "alexnet": "AlexNet", "vgg11": "VGG11", "googlenet": "GoogLeNet"}


def task_of(classes: Sequence[str], tasks: Sequence[str] = ("image-classification",)) -> Task:
    """The task of pictures of CLASSES, as if it had seen some."""
    label = "label" if len(tasks) == 1 and tasks[0] == "image-classification" else "annotation"
    task = build_tasks([{"name": name} for name in tasks], Schema(label, tuple(classes)))
    for part in getattr(task, "parts", {"": task}).values():
        part.preprocessing = {**PICTURES, "image_size": [32, 32]}
    return task


def numbered(count: int) -> Task:
    task = task_of([f"{number:04d}" for number in range(count)])
    task.preprocessing = dict(PICTURES)
    return task


def begun(part: Mapping[str, Any], task: Task) -> tuple[torch.nn.Module, Matching]:
    """The model PART for TASK as a training begins with it, and what was taken of its `init_from`."""
    heard: list[Matching] = []
    model = make_model(part, task, None, {}, on_init=heard.append)
    (matching,) = heard
    return model, matching


def published(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """torchvision's network NAME, its random weights saved in FOLDER as if torch.hub had downloaded them."""
    hub = folder / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    torch.manual_seed(0)
    args = {"init_weights": False, "transform_input": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **args).eval()
    torch.save(network.state_dict(), folder / "saved.pth")
    file = hub / f"{name}-{sha256_of_file(folder / 'saved.pth')[:8]}.pth"
    (folder / "saved.pth").rename(file)

    class Published(WeightsEnum):
        IMAGENET1K_V1 = Weights(url=f"https://example.invalid/{file.name}", transforms=lambda x: x, meta={})

    monkeypatch.setattr(torchvision.models, f"{ENUMS[name]}_Weights", Published)
    return network


@pytest.mark.parametrize("name", list(HEADS))
def test_torchvisions_weights_give_torchvisions_outputs_and_a_head_of_ten_classes_starts_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = published(name, tmp_path, monkeypatch)
    spec = load_spec(
        {
            "name": "fine",
            "task": "image-classification",
            "data": {"source": "builtin:digits"},
            "model": {"name": name, "init_from": f"torchvision:{ENUMS[name]}_Weights.IMAGENET1K_V1"},
        }
    ).to_record()
    part = with_stored_weights(spec, Store(str(tmp_path / "store")), lambda reference: None)["model"]
    model, matching = begun(part, numbered(1000))
    assert (matching.reshaped, matching.missing, matching.unused) == ((), (), ())
    assert set(matching.loaded) == set(theirs.state_dict())
    x = torch.randn(1, 3, *PICTURES["image_size"])
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(x), theirs(x), rtol=1e-4, atol=1e-5)
    del model
    model, matching = begun(part, numbered(10))
    assert set(matching.reshaped) == set(HEADS[name])
    assert f"{len(HEADS[name])} initialised anew because of another shape" in str(matching)
    body = {key for key in theirs.state_dict() if key not in HEADS[name]}
    assert set(matching.loaded) == body
    assert all(torch.equal(model.state_dict()[key], theirs.state_dict()[key]) for key in body)


# the head of other classes


@pytest.mark.parametrize(
    ("model", "tasks", "head"),
    [
        ({"name": "resnet8"}, ("image-classification",), {"head.weight", "head.bias"}),
        (
            {"name": "googlenet", "args": {"width": 0.0625}},
            ("image-classification",),
            {f"{part}.{kind}" for part in ("fc", "aux1.fc2", "aux2.fc2") for kind in ("weight", "bias")},
        ),
        (
            {"name": "unet", "args": {"width": 2, "depth": 1}},
            ("semantic-segmentation",),
            {"expanding.scores.weight", "expanding.scores.bias"},
        ),
        (
            {"name": "multi-task", "args": {"width": 2, "depth": 1, "loss_weights": "learned"}},
            ("image-classification", "semantic-segmentation"),
            {
                *(f"heads.image-classification.1.{kind}" for kind in ("weight", "bias")),
                *(f"heads.semantic-segmentation.scores.{kind}" for kind in ("weight", "bias")),
            },
        ),
    ],
)
def test_a_head_is_what_depends_on_the_number_of_classes(
    model: dict[str, Any], tasks: tuple[str, ...], head: set[str]
) -> None:
    own, others = task_of("abc", tasks), task_of("xyz", tasks)
    shapes = {name: tuple(value.shape) for name, value in build_model(model, own).state_dict().items()}
    assert head_of_others(model, own, None, {}, shapes, others.to_record()) == head
    assert head_of_others(model, own, None, {}, shapes, own.to_record()) == set()


def packed(task: Task, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a resnet8 for TASK, whose package is written to FOLDER."""
    record = {"name": "resnet8", "args": {"width": 4}}
    torch.manual_seed(7)
    model = build_model(record, task).eval()
    example = task.request([Sample("one", png(np.zeros((32, 32, 3), np.uint8)), {})])
    write_package(folder, task=task, model=model, model_record=record, code_folder=None, provenance={}, example=example)
    return model.state_dict()


def test_the_head_of_a_package_of_other_classes_starts_anew_though_its_shape_fits(tmp_path: Path) -> None:
    given = packed(task_of("abc"), tmp_path)
    part = {"name": "resnet8", "args": {"width": 4}, "init_from": str(tmp_path)}
    model, matching = begun(part, task_of("xyz"))
    assert matching.other_classes == ("head.weight", "head.bias")
    assert "2 initialised anew because their classes are others (head.weight, head.bias)" in str(matching)
    own = model.state_dict()
    assert {name for name in given if not torch.equal(own[name], given[name])} == {"head.weight", "head.bias"}
    model, matching = begun(part, task_of("abc"))
    assert set(matching.loaded) == set(given)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in given.items())


THREE = """
from torch import nn


class Three(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        if num_classes != 3:
            raise ValueError(f"made for 3 classes, not for {num_classes}")
        self.head = nn.Linear(4, num_classes)
"""


def test_a_network_made_for_one_number_of_classes_is_matched_by_shape_and_told_so(tmp_path: Path) -> None:
    (tmp_path / "three.py").write_text(THREE)
    given = {"head.weight": torch.rand(3, 4), "head.bias": torch.rand(3)}
    base = tmp_path / "base"
    base.mkdir()
    save_file(given, base / "model.safetensors")
    (base / "headrace.json").write_text(json.dumps({"task": task_of("abc").to_record()}))
    part = {"name": "three:Three", "args": {}, "init_from": str(base)}
    heard: list[Matching] = []
    model = make_model(part, task_of("xyz"), tmp_path, {}, on_init=heard.append)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in given.items())
    (matching,) = heard
    assert set(matching.loaded) == set(given)
    assert "what its head is cannot be told" in str(matching)
    assert "made for 3 classes, not for 4" in str(matching)
    assert all(isinstance(names, list) for names in matching.to_record().values())


def test_a_package_that_says_nothing_of_classes_is_taken_by_shape_and_a_torn_one_refused(tmp_path: Path) -> None:
    given = packed(task_of("abc"), tmp_path)
    part = {"name": "resnet8", "args": {"width": 4}, "init_from": str(tmp_path)}
    for text in ("{}", '{"task": {"name": "mine", "schema": {}}}', '{"task": {"name": "mine"}}'):
        (tmp_path / "headrace.json").write_text(text)
        assert set(begun(part, task_of("xyz"))[1].loaded) == set(given)
    (tmp_path / "headrace.json").write_text('{"task"')
    with pytest.raises(InvalidInput, match=r"headrace\.json is no JSON"):
        begun(part, task_of("xyz"))


def test_asking_for_the_head_draws_no_random_numbers(tmp_path: Path) -> None:
    packed(task_of("abc"), tmp_path)
    part = {"name": "resnet8", "args": {"width": 4}, "init_from": str(tmp_path)}
    heads = []
    for classes in ("xyz", "abc"):
        torch.manual_seed(1)
        begun(part, task_of(classes))
        heads.append(torch.rand(3))
    assert torch.equal(*heads)


def test_weights_that_are_no_finite_numbers_are_not_taken(tmp_path: Path) -> None:
    task = task_of("abc")
    state = build_model({"name": "resnet8", "args": {"width": 4}}, task).state_dict()
    state["head.weight"] = torch.full_like(state["head.weight"], torch.nan)
    save_file(state, tmp_path / "w.safetensors")
    part = {"name": "resnet8", "args": {"width": 4}, "init_from": str(tmp_path / "w.safetensors")}
    model, matching = begun(part, task)
    assert matching.not_finite == ("head.weight",)
    assert torch.isfinite(model.state_dict()["head.weight"]).all()
    assert "1 initialised anew because the given ones are no finite numbers (head.weight)" in str(matching)
