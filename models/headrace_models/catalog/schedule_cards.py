"""The learning-rate schedules that a spec can name.

A schedule is a factor on the optimizer's lr, a function of the step with the total number of steps known, so that it
is exact after a resume. Epochs may be fractions; all but one-cycle begin with a linear warm-up if one is asked for.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from headrace_models.catalog.cards import Arguments, ComponentCard


class WarmupArguments(Arguments):
    """A linear warm-up before the schedule proper (Goyal et al. 2017, section 2.2)."""

    warmup_steps: int = Field(0, ge=0, description="Optimizer steps over which lr rises linearly to its value.")
    warmup_epochs: float = Field(0.0, ge=0, description="The same in epochs; give one of the two.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError("give warmup_steps or warmup_epochs, not both")
        return self


class ConstantArguments(WarmupArguments):
    """Arguments of `constant`."""


class WarmUpScheduleArguments(Arguments):
    """Arguments of `warm-up`."""

    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of the rise; 0: use warmup_epochs.")
    warmup_epochs: float = Field(1.0, ge=0, description="Epochs of the rise, unless warmup_steps is given.")


class StepArguments(WarmupArguments):
    """Arguments of `step`."""

    every_epochs: float = Field(30.0, gt=0, description="Epochs between two cuts.")
    gamma: float = Field(0.1, gt=0, lt=1, description="Factor of each cut.")


class MultiStepArguments(WarmupArguments):
    """Arguments of `multi-step`."""

    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        ..., min_length=1, description="Epochs at which lr is cut, rising."
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="Factor of each cut.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        return self


class ExponentialArguments(WarmupArguments):
    """Arguments of `exponential`."""

    gamma: float = Field(0.95, gt=0, lt=1, description="Factor per epoch, applied a little at every step.")


class FallArguments(WarmupArguments):
    """Arguments of `linear` and `cosine`."""

    final_factor: float = Field(0.0, ge=0, lt=1, description="What is left of lr at the end.")


class InverseSqrtArguments(Arguments):
    """Arguments of `inverse-sqrt`."""

    warmup_steps: int = Field(4000, ge=1, description="Optimizer steps over which lr rises to its value.")


class OneCycleArguments(Arguments):
    """Arguments of `one-cycle`."""

    rise: float = Field(0.3, gt=0, lt=1, description="Share of all steps in which lr rises to its value.")
    start_factor: float = Field(0.04, gt=0, lt=1, description="Where lr starts, as a factor.")
    final_factor: float = Field(4e-6, ge=0, lt=1, description="Where lr ends, as a factor.")


_MODULE = "headrace_models.layers.schedules"


def _card(name: str, attribute: str, args: type[Arguments], summary: str, source: str) -> ComponentCard:
    return ComponentCard(name, summary, f"{_MODULE}:{attribute}", args, source, kind="schedule")


SCHEDULES = (
    _card("constant", "Schedule", ConstantArguments, "the same lr throughout", ""),
    _card(
        "warm-up", "Schedule", WarmUpScheduleArguments, "a linear rise, then constant", "Goyal et al. 2017, section 2.2"
    ),
    _card("step", "StepDown", StepArguments, "cut by gamma every so many epochs", "He et al. 2015, section 3.4"),
    _card(
        "multi-step", "MultiStep", MultiStepArguments, "cut by gamma at each milestone", "He et al. 2015, section 4.2"
    ),
    _card(
        "exponential",
        "Exponential",
        ExponentialArguments,
        "gamma to the power of epochs",
        "Szegedy et al. 2015, section 8",
    ),
    _card("linear", "Linear", FallArguments, "a straight line down to the final factor", "Devlin et al. 2018, A.2"),
    _card("cosine", "Cosine", FallArguments, "half a cosine down, no restarts", "Loshchilov & Hutter 2016, eq. 5"),
    _card(
        "inverse-sqrt",
        "InverseSqrt",
        InverseSqrtArguments,
        "a linear rise, then 1/sqrt(step)",
        "Vaswani et al. 2017, eq. 3",
    ),
    _card(
        "one-cycle",
        "OneCycle",
        OneCycleArguments,
        "up to lr and down to almost nothing, both along cosines (momentum is left alone)",
        "Smith & Topin 2017, section 3",
    ),
)
