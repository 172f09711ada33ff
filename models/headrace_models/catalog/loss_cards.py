"""The losses that a spec can name. Which of them a task can use stands in the task's card.

All are means over samples (never over class weights), so that the mean over workers weighted by their samples is the
mean of the whole batch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace_models.catalog.cards import Arguments, ComponentCard, NoArguments
from headrace_models.catalog.detection_cards import DETECTION_LOSSES

PositiveFloat = Annotated[float, Field(gt=0)]

ClassWeights = Annotated[
    Literal["balanced"] | dict[str, PositiveFloat] | None,
    Field(
        description="What a sample of a class counts: `balanced` (samples / (classes * samples of the class), so that "
        "every class counts alike), a mapping of class name to weight (1 for those not named), or null."
    ),
]


class CrossEntropyArguments(Arguments):
    """Arguments of `cross-entropy`."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target probability that is spread evenly over all classes."
    )
    class_weights: ClassWeights = None


class FocalArguments(Arguments):
    """Arguments of `focal`."""

    gamma: float = Field(2.0, ge=0, description="How strongly well-classified samples are played down; 0 is none.")
    class_weights: ClassWeights = None


class HingeArguments(Arguments):
    """Arguments of `hinge`."""

    margin: float = Field(1.0, gt=0, description="By how much the true class must lead every other one.")
    power: Literal[1, 2] = Field(1, description="1: hinge; 2: squared hinge.")
    class_weights: ClassWeights = None


class SmoothL1Arguments(Arguments):
    """Arguments of `smooth-l1`."""

    beta: float = Field(1.0, gt=0, description="Residual at which it turns from quadratic to linear.")


class HuberArguments(Arguments):
    """Arguments of `huber`."""

    delta: float = Field(1.0, gt=0, description="Residual at which it turns from quadratic to linear.")


_MODULE = "headrace_models.layers.losses"

LOSSES = (
    ComponentCard(
        "cross-entropy",
        "-log of the true class's softmax probability",
        f"{_MODULE}:CrossEntropy",
        CrossEntropyArguments,
        "Bishop 2006, eq. 4.108; label smoothing: Szegedy et al. 2015, section 7",
        kind="loss",
    ),
    ComponentCard(
        "focal",
        "cross-entropy times (1 - p)^gamma: easy samples count less",
        f"{_MODULE}:Focal",
        FocalArguments,
        "Lin et al. 2017, eq. 4",
        kind="loss",
    ),
    ComponentCard(
        "hinge",
        "multi-class hinge: mean over wrong classes of max(0, margin - true score + its score)",
        f"{_MODULE}:Hinge",
        HingeArguments,
        "Weston & Watkins 1999, eq. 1",
        kind="loss",
    ),
    ComponentCard(
        "dice",
        "1 - the overlap of softmax probabilities and truth, of each sample's places and classes together",
        f"{_MODULE}:Dice",
        NoArguments,
        "Milletari et al. 2016, section 3",
        kind="loss",
    ),
    ComponentCard(
        "ctc",
        "-log of the probability of a sequence, over all its alignments with the frames (class 0 is the blank)",
        f"{_MODULE}:Ctc",
        NoArguments,
        "Graves et al. 2006, eq. 8 and 12",
        kind="loss",
    ),
    ComponentCard(
        "mse",
        "squared error; on classes the Brier score of the softmax",
        f"{_MODULE}:SquaredError",
        NoArguments,
        "Legendre 1805; on classes: Brier 1950",
        kind="loss",
    ),
    ComponentCard(
        "l2",
        "half the squared error, whose gradient is the residual",
        f"{_MODULE}:HalfSquaredError",
        NoArguments,
        "Bishop 2006, eq. 3.12",
        kind="loss",
    ),
    ComponentCard("l1", "absolute error", f"{_MODULE}:AbsoluteError", NoArguments, "Laplace 1774", kind="loss"),
    ComponentCard(
        "smooth-l1",
        "quadratic below beta, linear above, slope 1",
        f"{_MODULE}:SmoothL1",
        SmoothL1Arguments,
        "Girshick 2015, eq. 3",
        kind="loss",
    ),
    ComponentCard(
        "huber",
        "quadratic below delta, linear above, slope delta",
        f"{_MODULE}:Huber",
        HuberArguments,
        "Huber 1964, section 1",
        kind="loss",
    ),
    *DETECTION_LOSSES,
)
