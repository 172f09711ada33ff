"""The models of the zoo, as cards."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.cards import Arguments, ModelCard
from headrace_models.catalog.classification_cards import CLASSIFICATION_MODELS
from headrace_models.catalog.detection_cards import DETECTION_MODELS
from headrace_models.catalog.segmentation_cards import SEGMENTATION_MODELS

Width = Annotated[int, Field(ge=1, le=65_536)]


class MlpArguments(Arguments):
    """Arguments of `mlp`."""

    hidden: tuple[Width, ...] = Field((128, 64), max_length=32, description="Width of each hidden layer.")
    activation: ActivationName = "relu"
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of hidden values dropped while training.")
    batch_norm: bool = Field(False, description="Normalise each hidden layer over the batch.")


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
    *CLASSIFICATION_MODELS,
    *DETECTION_MODELS,
    *SEGMENTATION_MODELS,
)
