"""The models of the zoo, as cards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.cards import Arguments, ModelCard

Width = Annotated[int, Field(ge=1, le=65_536)]


class MlpArguments(Arguments):
    """Arguments of `mlp`."""

    hidden: tuple[Width, ...] = Field((128, 64), max_length=32, description="Width of each hidden layer.")
    activation: ActivationName = "relu"
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of hidden values dropped while training.")
    batch_norm: bool = Field(False, description="Normalise each hidden layer over the batch.")


class CifarResNetArguments(Arguments):
    """Arguments of `resnet8` and `resnet20`."""

    width: int = Field(16, ge=1, le=1024, description="Channels of the first stage; it doubles twice.")
    activation: ActivationName = "relu"
    shortcut: Literal["A", "B"] = Field(
        "A", description="Where the shape changes: A subsamples and pads with zeros (no parameters), B projects by 1x1."
    )


class ResNetArguments(Arguments):
    """Arguments of `resnet18`."""

    activation: ActivationName = "relu"
    zero_init_residual: bool = Field(False, description="Start with every block as identity (Goyal et al. 2017, 5.1).")


_CIFAR = "headrace_models.classification.cifar_resnet"

MODELS = (
    ModelCard(
        "mlp",
        "fully connected layers over the flattened input",
        "headrace_models.tabular.mlp:Mlp",
        MlpArguments,
        "Rumelhart et al. 1986",
        tasks=("image-classification", "tabular-classification", "tabular-regression"),
        debug={"hidden": [16]},
        metric="iris: accuracy ≥ .93; digits: accuracy ≥ .95",
    ),
    ModelCard(
        "resnet8",
        "CIFAR-style residual network of 8 layers",
        f"{_CIFAR}:resnet8",
        CifarResNetArguments,
        "He et al. 2015, section 4.2, n = 1",
        tasks=("image-classification",),
        debug={"width": 8},
        metric="digits: accuracy ≥ .98",
    ),
    ModelCard(
        "resnet20",
        "CIFAR-style residual network of 20 layers",
        f"{_CIFAR}:resnet20",
        CifarResNetArguments,
        "He et al. 2015, section 4.2, n = 3",
        tasks=("image-classification",),
        parameters=269_722,
        debug={"width": 4},
        metric="CIFAR-10, 164 epochs: accuracy .9125 (published)",
    ),
    ModelCard(
        "resnet18",
        "residual network of 18 layers for 224x224 pictures (torchvision's)",
        "headrace_models.classification.resnet:resnet18",
        ResNetArguments,
        "He et al. 2015, table 1",
        tasks=("image-classification",),
        parameters=11_689_512,
        metric="ImageNet: top-1 accuracy .698 (published, torchvision)",
    ),
)
