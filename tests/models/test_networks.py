"""Networks have their published sizes, and learn at full size: forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace_models import catalog
from headrace_models.classification.cifar_resnet import resnet8, resnet20
from headrace_models.classification.resnet import resnet18
from headrace_models.package import build_model
from headrace_models.tabular.mlp import Mlp
from headrace_models.tasks import Schema, Task, build_task


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def pictures() -> Task:
    task = build_task({"name": "image-classification"}, Schema("label", ("a", "b", "c")))
    task.preprocessing = {"image_size": [16, 12], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    return task


def test_networks_have_their_published_number_of_parameters() -> None:
    assert size(resnet20(10, 3)) == 269_722 == catalog.models()["resnet20"].parameters
    assert size(resnet18(1000)) == 11_689_512 == catalog.models()["resnet18"].parameters


def test_projections_add_only_what_two_1x1_convolutions_and_their_norms_have() -> None:
    added = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert size(resnet20(10, 3, shortcut="B")) - size(resnet20(10, 3)) == added


def test_the_layers_of_resnet20_are_twenty() -> None:
    layers = [m for m in resnet20(10, 3).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 20
    assert len([m for m in resnet8(10, 3).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]) == 8


@pytest.mark.parametrize(
    ("network", "shape", "outputs"),
    [
        (resnet20(10, 3), (2, 3, 32, 32), 10),
        (resnet8(10, 1), (2, 1, 8, 8), 10),
        (resnet8(4, 3, shortcut="B", activation="silu"), (2, 3, 15, 9), 4),
        (resnet18(1000), (1, 3, 224, 224), 1000),
        (resnet18(5, in_channels=1, activation="gelu"), (2, 1, 64, 64), 5),
        (Mlp(3 * 4 * 4, 7, hidden=(5,), batch_norm=True, dropout=0.1), (2, 3, 4, 4), 7),
        (Mlp(6, 1, hidden=()), (2, 6), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_full_size_network_goes_forward_and_backward(
    network: nn.Module, shape: tuple[int, ...], outputs: int
) -> None:
    network.train()
    if shape[0] == 1:
        network.eval()
    scores = network(torch.randn(shape))
    assert scores.shape == (shape[0], outputs)
    scores.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_option_a_halves_the_picture_and_fills_new_channels_with_zeros() -> None:
    block = next(m for m in resnet8(10, 3).modules() if type(m).__name__ == "PadShortcut")
    x = torch.randn(1, 16, 5, 6)
    y = block(x)
    assert y.shape == (1, 32, 3, 3)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()


@pytest.mark.parametrize("activation", list(catalog.activations()))
def test_every_activation_goes_into_every_network_that_takes_one(activation: str, pictures: Task) -> None:
    for name in ("mlp", "resnet8"):
        network = build_model({"name": name, "args": {"activation": activation}}, pictures).eval()
        assert network(torch.randn(2, 3, 16, 12)).shape == (2, 3)
    relus = [m for m in resnet18(3, activation="tanh").modules() if isinstance(m, nn.ReLU)]
    assert relus == []


def test_the_facts_of_the_task_shape_the_network(pictures: Task) -> None:
    facts = pictures.model_facts()
    assert facts == {
        "num_classes": 3,
        "num_outputs": 3,
        "in_channels": 3,
        "image_size": (16, 12),
        "in_features": 576,
    }
    mlp = build_model({"name": "mlp", "args": {"hidden": [4]}}, pictures)
    assert size(mlp) == 576 * 4 + 4 + 4 * 3 + 3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "resnet9"}, "there is no model called 'resnet9'"),
        ({"name": "resnet8", "args": {"widht": 4}}, "did you mean width"),
        ({"name": "my_model:Net"}, "no folder is given"),
    ],
)
def test_what_cannot_be_built_is_said(model: dict[str, Any], message: str, pictures: Task) -> None:
    with pytest.raises((InvalidInput, SpecInvalid)) as raised:
        build_model(model, pictures)
    assert message in f"{raised.value.message} {raised.value.action}"


def test_a_network_for_pictures_is_refused_for_tables() -> None:
    task = build_task({"name": "tabular-classification"}, Schema("y", ("a", "b"), {"x": "number"}))
    with pytest.raises(InvalidInput) as raised:
        build_model({"name": "resnet8"}, task)
    assert "image-classification, not tabular-classification" in raised.value.message
    assert "mlp" in raised.value.action
