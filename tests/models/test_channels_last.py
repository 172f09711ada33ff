"""Every network of the zoo computes the same with its convolutions' weights channels last, as they are on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from conftest import Split, load_digit_scenes
from torch import nn

from headrace.training.components import make_objective
from headrace_models import catalog
from headrace_models.package import build_model
from headrace_models.tasks import Task, build_tasks
from headrace_models.tasks.base import Batch

FULL_SIZE_ONLY = {"ssd300-vgg16", "faster-rcnn-resnet50-fpn"}  # no small size: their layers are those of the others
WITHOUT_GRADIENTS = {"nearest-neighbours"}


@pytest.fixture(scope="module")
def prepared(digits: Split, shapes: Split) -> Mapping[tuple[str, ...], tuple[Task, Batch]]:
    """Tasks that have learned a few samples, with a batch of four."""
    scenes = load_digit_scenes()
    selective = {"proposals": "selective-search"}
    data: dict[tuple[str, ...], tuple[Split, dict[str, Any]]] = {
        ("image-classification",): (digits, {}),
        ("object-detection",): (shapes, {}),
        ("object-detection", "proposals"): (shapes, selective),
        ("semantic-segmentation",): (scenes, {}),
        ("image-classification", "semantic-segmentation"): (scenes, {}),
    }
    found = {}
    for names, ((samples, _, schema), args) in data.items():
        task = build_tasks([{"name": name, "args": args} for name in names if name != "proposals"], schema)
        task.learn([task.summarise(samples[:8])])
        found[names] = task, task.collate([task.decode(sample) for sample in samples[:4]])
    return found


def computed(model: nn.Module, task: Task, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    """The loss of BATCH and the gradients."""
    losses = [{"task": name, "name": task.part(name).card.losses[0], "args": {}, "weight": 1.0} for name in task.names]
    objective = make_objective({"losses": losses, "precision": "float32"}, task, torch.device("cpu"))
    torch.manual_seed(0)
    loss, _ = objective(model.train(), batch)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", [name for name in catalog.models() if name not in FULL_SIZE_ONLY | WITHOUT_GRADIENTS])
def test_loss_and_gradients_are_the_same(name: str, prepared: Mapping[tuple[str, ...], tuple[Task, Batch]]) -> None:
    card = catalog.models()[name]
    names = card.tasks if card.together else card.tasks[:1]
    task, batch = prepared[(*names, "proposals") if card.proposals else names]
    torch.manual_seed(0)
    model = build_model({"name": name, "args": card.debug}, task)
    other = build_model({"name": name, "args": card.debug}, task)
    other.load_state_dict(model.state_dict())
    turned = 0
    for module in other.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)
            turned += module.weight.shape[1] > 1
    assert turned or not any(isinstance(module, nn.Conv2d) for module in model.modules())
    loss, gradients = computed(model, task, batch)
    loss_too, gradients_too = computed(other, task, batch)
    assert loss_too == pytest.approx(loss, rel=1e-3)
    assert gradients
    for one, two in zip(gradients, gradients_too, strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), dim=0) > 0.99 or one.norm() < 1e-5
