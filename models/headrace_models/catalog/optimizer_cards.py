"""The optimizers that a spec can name, with the arguments and defaults of their papers.

Each is held step by step to its paper's update rule on a quadratic (tests/models/test_optimizers.py); where PyTorch's
form differs from the paper's, the card says how.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from headrace_models.catalog.cards import Arguments, ComponentCard

Decay = Annotated[float, Field(ge=0, lt=1)]


class ParameterGroup(Arguments):
    """Settings of the parameters whose names match; what is left out is as for all."""

    match: str = Field(
        min_length=1, max_length=256, description="Beginning of parameter names (`head.`), or a pattern (`*.bias`)."
    )
    lr: float | None = Field(None, gt=0, description="Their learning rate.")
    weight_decay: float | None = Field(None, ge=0, description="Their weight decay.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.lr is None and self.weight_decay is None:
            raise ValueError("give lr, weight_decay, or both")
        return self


class OptimizerArguments(Arguments):
    """What all optimizers take."""

    lr: float = Field(0.01, gt=0, description="Learning rate: the size of a step.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty: weight_decay * weight is added to the gradient.")
    groups: tuple[ParameterGroup, ...] = Field(
        (),
        max_length=64,
        description="Parameters with an lr or weight_decay of their own: a list of {match, lr, weight_decay}; of those "
        "that match a name the first counts.",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on lr for each layer farther from the output (Howard & Ruder 2018, section 3.1: 1/2.6); "
        "1: all alike.",
    )


class SgdArguments(OptimizerArguments):
    """Arguments of `sgd`."""


class MomentumArguments(OptimizerArguments):
    """Arguments of `momentum`."""

    momentum: float = Field(0.9, gt=0, lt=1, description="Share of the last step that is kept.")
    nesterov: bool = Field(False, description="Look ahead: take the gradient where the momentum leads.")


class AdamArguments(OptimizerArguments):
    """Arguments of `adam`."""

    lr: float = Field(0.001, gt=0, description="Learning rate: the size of a step.")
    betas: tuple[Decay, Decay] = Field(
        (0.9, 0.999), description="Decay of the running means of the gradient and of its square."
    )
    eps: float = Field(1e-8, gt=0, description="Added to the denominator against division by zero.")
    amsgrad: bool = Field(False, description="Use the largest second moment so far (Reddi et al. 2018).")


class AdamWArguments(AdamArguments):
    """Arguments of `adamw`."""

    weight_decay: float = Field(0.01, ge=0, description="lr * weight_decay * weight is taken off each step, decoupled.")


class RmspropArguments(OptimizerArguments):
    """Arguments of `rmsprop`."""

    lr: float = Field(0.001, gt=0, description="Learning rate: the size of a step.")
    alpha: float = Field(0.9, ge=0, lt=1, description="Decay of the running mean of the squared gradient.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator against division by zero.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Share of the last step that is kept.")
    centered: bool = Field(False, description="Divide by the variance instead of the square (Graves 2013, eq. 40).")


class AdagradArguments(OptimizerArguments):
    """Arguments of `adagrad`."""

    lr_decay: float = Field(0.0, ge=0, description="The learning rate is divided by 1 + steps * lr_decay.")
    initial_accumulator: float = Field(0.0, ge=0, description="Where the sum of squared gradients starts.")
    eps: float = Field(1e-10, gt=0, description="Added to the denominator against division by zero.")


class AdadeltaArguments(OptimizerArguments):
    """Arguments of `adadelta`."""

    lr: float = Field(1.0, gt=0, description="Factor on the step; the paper has none, hence 1.")
    rho: float = Field(0.9, gt=0, lt=1, description="Decay of the running means of squared gradients and steps.")
    eps: float = Field(1e-6, gt=0, description="Added under both roots; it sets the size of the first steps.")

    @model_validator(mode="after")
    def _not_too_small(self) -> Self:
        if self.eps < 1e-15:
            raise ValueError("eps below 1e-15 leaves adadelta at its starting point")
        return self


_MODULE = "headrace_models.layers.optimizers"

OPTIMIZERS = (
    ComponentCard(
        "sgd",
        "weight -= lr * gradient",
        f"{_MODULE}:sgd",
        SgdArguments,
        "Robbins & Monro 1951; Bottou 1998",
        kind="optimizer",
    ),
    ComponentCard(
        "momentum",
        "SGD with a velocity (PyTorch's form: lr multiplies the velocity, not the gradient in it)",
        f"{_MODULE}:momentum",
        MomentumArguments,
        "Polyak 1964; Sutskever et al. 2013, eq. 1-4",
        kind="optimizer",
    ),
    ComponentCard(
        "adam",
        "steps scaled by running moments of the gradient, bias-corrected",
        f"{_MODULE}:adam",
        AdamArguments,
        "Kingma & Ba 2014, algorithm 1",
        kind="optimizer",
    ),
    ComponentCard(
        "adamw",
        "Adam with decoupled weight decay (PyTorch's form: the decay is multiplied by lr)",
        f"{_MODULE}:adamw",
        AdamWArguments,
        "Loshchilov & Hutter 2017, algorithm 2",
        kind="optimizer",
    ),
    ComponentCard(
        "rmsprop",
        "steps divided by the root of the running mean square of the gradient",
        f"{_MODULE}:rmsprop",
        RmspropArguments,
        "Tieleman & Hinton 2012, lecture 6e",
        kind="optimizer",
    ),
    ComponentCard(
        "adagrad",
        "steps divided by the root of the sum of all squared gradients",
        f"{_MODULE}:adagrad",
        AdagradArguments,
        "Duchi et al. 2011, figure 1 (diagonal)",
        kind="optimizer",
    ),
    ComponentCard(
        "adadelta",
        "steps in the weights' own units, without a learning rate",
        f"{_MODULE}:adadelta",
        AdadeltaArguments,
        "Zeiler 2012, algorithm 1",
        kind="optimizer",
    ),
)
