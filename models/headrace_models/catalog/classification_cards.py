"""The networks and feature classifiers for pictures, as cards.

`parameters` is the size at the source's own shape: 3 channels, 1000 classes and 224 pixels, or CIFAR-10's. Accuracies
on digits are the least that the small size of examples/zoo reaches; docs/models/zoo.md has what each did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.cards import Arguments, ModelCard

Factor = Annotated[
    float,
    Field(gt=0, le=8, description="Factor on all channels and hidden values; 1 is the published size."),
]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class AlexNetArguments(Arguments):
    """Arguments of `alexnet`."""

    width: Factor = 1.0
    activation: ActivationName = "relu"
    dropout: Dropout = Field(0.5, description="Share of the classifier's inputs dropped while training.")


class VggArguments(Arguments):
    """Arguments of `vgg11`, `vgg13`, `vgg16` and `vgg19`."""

    width: Factor = 1.0
    batch_norm: bool = Field(False, description="Normalise after each convolution; trains the deep ones from scratch.")
    activation: ActivationName = "relu"
    dropout: Dropout = Field(0.5, description="Share of the classifier's hidden values dropped while training.")


class GoogLeNetArguments(Arguments):
    """Arguments of `googlenet`."""

    width: Factor = 1.0
    auxiliary: bool = Field(
        True, description="Train with the two auxiliary classifiers, each loss counting 0.3; serving uses neither."
    )
    activation: ActivationName = "relu"
    dropout: Dropout = Field(0.2, description="Share of the last features dropped while training (the paper: 0.4).")


class ResNetArguments(Arguments):
    """Arguments of `resnet18` to `resnet152`."""

    width: Factor = 1.0
    activation: ActivationName = "relu"
    zero_init_residual: bool = Field(False, description="Start with every block as identity (Goyal et al. 2017, 5.1).")


class CifarResNetArguments(Arguments):
    """Arguments of `resnet8`, `resnet20`, `resnet32`, `resnet44` and `resnet56`."""

    width: int = Field(16, ge=1, le=1024, description="Channels of the first stage; it doubles twice.")
    activation: ActivationName = "relu"
    shortcut: Literal["A", "B"] = Field(
        "A", description="Where the shape changes: A subsamples and pads with zeros (no parameters), B projects by 1x1."
    )


Feature = Literal["hog", "lbp", "colour-histogram", "glcm"]


class FeatureArguments(Arguments):
    """Arguments of `low-level-features`."""

    features: tuple[Feature, ...] = Field(
        ("hog",),
        min_length=1,
        max_length=4,
        description="What is measured of a picture. hog: shapes (Dalal & Triggs 2005); lbp: fine texture (Ojala et al. "
        "2002); colour-histogram: colours (Swain & Ballard 1991); glcm: coarse texture (Haralick et al. 1973).",
    )
    cell: int | None = Field(
        None, ge=1, le=256, description="Pixels of a HOG cell's side; null: a quarter of the shorter side, 2 to 8."
    )


class NeighbourArguments(FeatureArguments):
    """Arguments of `nearest-neighbours`."""

    k: int = Field(5, ge=1, le=1000, description="How many of the nearest training samples vote.")
    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="What near means, of features scaled to mean 0 and variance 1."
    )
    weights: Literal["uniform", "distance"] = Field(
        "uniform", description="How much a neighbour's vote counts: as much as any, or 1 / its distance."
    )
    smoothing: float = Field(
        1.0, gt=0, le=1000, description="Votes spread evenly over all classes, so that none has probability 0."
    )
    most_samples: int = Field(
        50_000,
        ge=1,
        le=100_000_000,
        description="More training samples are refused: each replica keeps all of them, 4 bytes a feature.",
    )


_HERE = "headrace_models.classification"
_TASKS = ("image-classification",)
_DIGITS = "digits: accuracy ≥ .97"
_THIN = {"width": 0.125, "zero_init_residual": True}


def _vgg(layers: int, configuration: str, parameters: int, published: str) -> ModelCard:
    return ModelCard(
        f"vgg{layers}",
        f"{layers} layers: 3x3 convolutions, pools, three linear layers",
        f"{_HERE}.vgg:vgg{layers}",
        VggArguments,
        f"Simonyan & Zisserman 2014, table 1, configuration {configuration}",
        tasks=_TASKS,
        parameters=parameters,
        debug={"width": 0.125, "batch_norm": True, "dropout": 0.0},
        metric=f"{_DIGITS}; ImageNet: top-1 {published} (published, torchvision)",
    )


def _resnet(layers: int, parameters: int, published: str, debug: Mapping[str, Any]) -> ModelCard:
    return ModelCard(
        f"resnet{layers}",
        f"residual network of {layers} layers for pictures of about 224 pixels",
        f"{_HERE}.resnet:resnet{layers}",
        ResNetArguments,
        "He et al. 2015, table 1",
        tasks=_TASKS,
        parameters=parameters,
        debug=debug,
        metric=f"{_DIGITS}; ImageNet: top-1 {published} (published, torchvision)",
    )


def _cifar(layers: int, n: int, parameters: int | None, expect: str, width: int) -> ModelCard:
    return ModelCard(
        f"resnet{layers}",
        f"CIFAR-style residual network of {layers} layers",
        f"{_HERE}.cifar_resnet:resnet{layers}",
        CifarResNetArguments,
        f"He et al. 2015, section 4.2, n = {n}",
        tasks=_TASKS,
        parameters=parameters,
        debug={"width": width},
        metric=expect,
    )


CLASSIFICATION_MODELS = (
    ModelCard(
        "low-level-features",
        "HOG, LBP, colour histograms or GLCM texture, and a linear layer: an SVM with the loss hinge, else softmax",
        f"{_HERE}.features:FeatureClassifier",
        FeatureArguments,
        "Dalal & Triggs 2005; Ojala et al. 2002; Swain & Ballard 1991; Haralick et al. 1973",
        tasks=_TASKS,
        metric=f"{_DIGITS} with HOG",
    ),
    ModelCard(
        "nearest-neighbours",
        "k-nearest neighbours on HOG, LBP, colour histograms or GLCM texture; one epoch, without gradients",
        f"{_HERE}.neighbours:NearestNeighbours",
        NeighbourArguments,
        "Cover & Hart 1967; Dudani 1976 (votes by distance)",
        tasks=_TASKS,
        learns="statistics",
        begins_anew=True,
        metric=f"{_DIGITS} with HOG",
    ),
    _cifar(8, 1, None, "digits: accuracy ≥ .98", 16),
    _cifar(20, 3, 269_722, f"{_DIGITS}; CIFAR-10, 164 epochs: accuracy .9125 (published)", 8),
    _cifar(32, 5, 464_154, f"{_DIGITS}; CIFAR-10, 164 epochs: accuracy .9249 (published)", 8),
    _cifar(44, 7, 658_586, f"{_DIGITS}; CIFAR-10, 164 epochs: accuracy .9283 (published)", 8),
    _cifar(56, 9, 853_018, f"{_DIGITS}; CIFAR-10, 164 epochs: accuracy .9303 (published)", 8),
    _resnet(18, 11_689_512, ".698", {"width": 0.25}),
    _resnet(34, 21_797_672, ".733", _THIN),
    _resnet(50, 25_557_032, ".761", _THIN),
    _resnet(101, 44_549_160, ".774", _THIN),
    _resnet(152, 60_192_808, ".783", _THIN),
    ModelCard(
        "alexnet",
        "five convolutions and three large linear layers, in one tower",
        f"{_HERE}.alexnet:AlexNet",
        AlexNetArguments,
        "Krizhevsky et al. 2012, section 3.5; one tower: Krizhevsky 2014",
        tasks=_TASKS,
        parameters=61_100_840,
        debug={"width": 0.25, "dropout": 0.0},
        metric=f"{_DIGITS}; ImageNet: top-1 .565 (published, torchvision)",
    ),
    _vgg(11, "A", 132_863_336, ".690"),
    _vgg(13, "B", 133_047_848, ".699"),
    _vgg(16, "D", 138_357_544, ".716"),
    _vgg(19, "E", 143_667_240, ".724"),
    ModelCard(
        "googlenet",
        "inception modules, 22 layers deep, with two auxiliary classifiers (6,624,904 parameters without them)",
        f"{_HERE}.googlenet:GoogLeNet",
        GoogLeNetArguments,
        "Szegedy et al. 2014, table 1",
        tasks=_TASKS,
        parameters=13_004_888,
        debug={"width": 0.125},
        metric=f"{_DIGITS}; ImageNet: top-1 .698 (published, torchvision)",
    ),
)
