"""The activations that a spec can name.

Every zoo model with an `activation` argument takes these names; the ones with a shape parameter use the value of the
paper unless a model builds them itself with `build_activation(name, args)`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from headrace_models.catalog.cards import Arguments, ComponentCard, NoArguments
from headrace_models.catalog.names import listed, nearest


class LeakyReluArguments(Arguments):
    """Arguments of `leaky-relu`."""

    negative_slope: float = Field(0.01, ge=0, lt=1, description="Slope below zero.")


class EluArguments(Arguments):
    """Arguments of `elu`."""

    alpha: float = Field(1.0, gt=0, description="The value that it approaches far below zero, negated.")


class SoftplusArguments(Arguments):
    """Arguments of `softplus`."""

    beta: float = Field(1.0, gt=0, description="Sharpness: the larger, the closer to relu.")


class GeluArguments(Arguments):
    """Arguments of `gelu`."""

    approximate: str = Field("none", pattern="^(none|tanh)$", description="none: exact; tanh: the paper's fast form.")


def _card(name: str, attribute: str, summary: str, source: str, args: type[Arguments] = NoArguments) -> ComponentCard:
    return ComponentCard(name, summary, f"torch.nn:{attribute}", args, source, kind="activation")


ACTIVATIONS = (
    _card("relu", "ReLU", "max(0, x)", "Nair & Hinton 2010, section 2"),
    _card("leaky-relu", "LeakyReLU", "x, or slope·x below zero", "Maas et al. 2013, section 2", LeakyReluArguments),
    _card("elu", "ELU", "x, or alpha·(exp(x) - 1) below zero", "Clevert et al. 2015, eq. 15", EluArguments),
    _card("selu", "SELU", "scaled elu that keeps mean 0 and variance 1", "Klambauer et al. 2017, eq. 2"),
    _card("gelu", "GELU", "x·Φ(x), Φ the normal distribution function", "Hendrycks & Gimpel 2016", GeluArguments),
    _card("silu", "SiLU", "x·sigmoid(x), also known as swish", "Elfwing et al. 2017; Ramachandran et al. 2017"),
    _card("mish", "Mish", "x·tanh(softplus(x))", "Misra 2019"),
    _card("hardswish", "Hardswish", "x·relu6(x + 3)/6, a cheap silu", "Howard et al. 2019, section 5.2"),
    _card("relu6", "ReLU6", "min(max(0, x), 6)", "Howard et al. 2017"),
    _card("sigmoid", "Sigmoid", "1/(1 + exp(-x))", "Rumelhart et al. 1986"),
    _card("tanh", "Tanh", "the hyperbolic tangent", "LeCun et al. 1998, section 4.4"),
    _card("hardsigmoid", "Hardsigmoid", "relu6(x + 3)/6, a cheap sigmoid", "Howard et al. 2019, section 5.2"),
    _card("softplus", "Softplus", "log(1 + exp(beta·x))/beta, a smooth relu", "Dugas et al. 2001", SoftplusArguments),
    _card("softsign", "Softsign", "x/(1 + |x|)", "Glorot & Bengio 2010, section 3"),
    _card("identity", "Identity", "x", ""),
)

ACTIVATION_NAMES = tuple(card.name for card in ACTIVATIONS)


def _known(name: str) -> str:
    if name not in ACTIVATION_NAMES:
        raise PydanticCustomError(
            "unknown_name",
            "{allowed}",
            {"allowed": listed(name, ACTIVATION_NAMES), "nearest": next(iter(nearest(name, ACTIVATION_NAMES)), "")},
        )
    return name


ActivationName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "enum": list(ACTIVATION_NAMES)}),
    Field(description="Name of the activation between layers."),
]
"""The type of a model's `activation` argument."""
