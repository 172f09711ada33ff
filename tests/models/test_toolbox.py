"""What a spec names is what is built: each tool of the training toolbox, and the activations of each zoo model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from conftest import Split, load_digit_scenes
from torch import nn

from headrace.spec import load_spec
from headrace_models import catalog
from headrace_models.layers import build_activation, build_loss, build_optimizer, build_schedule, losses
from headrace_models.package import build_model
from headrace_models.tasks import Task, build_tasks

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
LOSSES = {
    "cross-entropy": losses.CrossEntropy,
    "focal": losses.Focal,
    "hinge": losses.Hinge,
    "dice": losses.Dice,
    "mse": losses.SquaredError,
}
WITH_ACTIVATION = [card.name for card in catalog.models().values() if "activation" in card.args.model_fields]


@pytest.fixture(scope="module")
def tasks(digits: Split, shapes: Split) -> Mapping[str, Task]:
    """Tasks that have learned a few samples, by the names that they join."""
    scenes = load_digit_scenes()
    data = {
        "image-classification": digits,
        "object-detection": shapes,
        "semantic-segmentation": scenes,
        "image-classification+semantic-segmentation": scenes,
    }
    found = {}
    for names, (samples, _, schema) in data.items():
        task = build_tasks([{"name": name, "args": {}} for name in names.split("+")], schema)
        task.learn([task.summarise(samples[:40])])
        found[names] = task
    return found


def record(model: Any = "resnet8", **train: Any) -> Mapping[str, Any]:
    spec = {"name": "t", "task": "image-classification", "data": {"source": "builtin:digits"}, "model": model}
    return load_spec({**spec, "train": train}).to_record()


@pytest.mark.parametrize("name", catalog.optimizers())
def test_the_optimizer_that_a_spec_names_is_built(name: str) -> None:
    named = record(optimizer={"name": name, "lr": 0.0625})["train"]["optimizer"]
    built = build_optimizer(named["name"], named["args"], [("w", torch.zeros(2, requires_grad=True))])
    assert type(built) is OPTIMIZERS[name]
    assert [group["lr"] for group in built.param_groups] == [0.0625]
    assert (built.param_groups[0].get("momentum", 0) > 0) == (name == "momentum")


@pytest.mark.parametrize("name", catalog.schedules())
def test_the_schedule_that_a_spec_names_is_built(name: str) -> None:
    needed = {"milestones": [1]} if name == "multi-step" else {}
    named = record(schedule={"name": name, **needed})["train"]["schedule"]
    optimizer = build_optimizer("sgd", {"lr": 1.0}, [("w", torch.zeros(2, requires_grad=True))])
    built = build_schedule(named["name"], named["args"], optimizer, total_steps=100, steps_per_epoch=10)
    card = catalog.schedules()[name]
    factor = card.load()(catalog.arguments(card, needed), 100, 10)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    assert rates == pytest.approx([factor(step) for step in range(100)])


@pytest.mark.parametrize("name", catalog.tasks()["image-classification"].losses)
def test_the_loss_that_a_spec_names_is_built(name: str, tasks: Mapping[str, Task]) -> None:
    (named,) = record(loss=name)["train"]["losses"]
    assert type(build_loss(named["name"], named["args"], tasks[named["task"]])) is LOSSES[name]


@pytest.mark.parametrize("model", WITH_ACTIVATION)
def test_the_activation_that_a_spec_names_stands_in_the_network_and_the_default_does_not(
    model: str, tasks: Mapping[str, Task]
) -> None:
    card = catalog.models()[model]
    task = tasks["+".join(card.tasks) if card.together else card.tasks[0]]
    default = card.args.model_fields["activation"].default
    other = "mish" if default != "mish" else "elu"

    def kinds(args: Mapping[str, Any]) -> set[type[nn.Module]]:
        return {type(module) for module in build_model({"name": model, "args": args}, task).modules()}

    usual, named = type(build_activation(default)), type(build_activation(other))
    assert usual in kinds(card.debug)
    built = kinds({**card.debug, "activation": other})
    assert named in built
    assert usual not in built
