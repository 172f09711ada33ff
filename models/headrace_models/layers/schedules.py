"""Learning-rate schedules as pure functions of the step.

Each is made of its arguments, the training's number of optimizer steps and those of an epoch, and gives the factor on
lr for step 0, 1, ... It has no state, so a resumed training goes on exactly.
"""

from __future__ import annotations

import math
from typing import Any


class Schedule:
    """The constant schedule, and the base of the others: `factor` after a linear warm-up that the arguments ask for.

    Args:
        args: the card's arguments.
        total_steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of one epoch.
    """

    def __init__(self, args: Any, total_steps: int, steps_per_epoch: int) -> None:
        self.args = args
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        epochs = getattr(args, "warmup_epochs", 0.0)
        self.warm_steps: int = getattr(args, "warmup_steps", 0) or round(epochs * steps_per_epoch)

    def __call__(self, step: int) -> float:
        """The factor on lr for STEP, counted from 0; the warm-up's rise reaches 1 at its last step."""
        rise = min(1.0, (step + 1) / self.warm_steps) if self.warm_steps else 1.0
        return rise * self.factor(step)

    def factor(self, step: int) -> float:
        """The schedule proper: 1."""
        return 1.0


class StepDown(Schedule):
    """gamma^floor(epoch / every_epochs)."""

    def factor(self, step: int) -> float:
        """See the class."""
        return float(self.args.gamma ** math.floor(step / (self.args.every_epochs * self.steps_per_epoch)))


class MultiStep(Schedule):
    """gamma^(milestones behind)."""

    def factor(self, step: int) -> float:
        """See the class."""
        behind = sum(step >= epoch * self.steps_per_epoch for epoch in self.args.milestones)
        return float(self.args.gamma**behind)


class Exponential(Schedule):
    """gamma^epoch, epochs being fractions."""

    def factor(self, step: int) -> float:
        """See the class."""
        return float(self.args.gamma ** (step / self.steps_per_epoch))


class Linear(Schedule):
    """A straight line from 1, after the warm-up, to final_factor at total_steps."""

    def shape(self, done: float) -> float:
        """From 1 at 0 to 0 at 1."""
        return 1.0 - done

    def factor(self, step: int) -> float:
        """See the class."""
        done = (step - self.warm_steps) / max(1, self.total_steps - self.warm_steps)
        final: float = self.args.final_factor
        return final + (1.0 - final) * self.shape(min(max(0.0, done), 1.0))


class Cosine(Linear):
    """Half a cosine from 1, after the warm-up, to final_factor at total_steps."""

    def shape(self, done: float) -> float:
        """From 1 at 0 to 0 at 1."""
        return 0.5 * (1.0 + math.cos(math.pi * done))


class InverseSqrt(Schedule):
    """min((step + 1) / warmup_steps, sqrt(warmup_steps / (step + 1)))."""

    def factor(self, step: int) -> float:
        """See the class; the base multiplies the rise in."""
        return min(1.0, math.sqrt(self.warm_steps / (step + 1)))


class OneCycle(Schedule):
    """From start_factor to 1 at the share `rise` of the steps, then to final_factor at the last one, along cosines."""

    def factor(self, step: int) -> float:
        """See the class."""
        last = max(1, self.total_steps - 1)
        top = self.args.rise * last
        if step <= top:
            return _between(self.args.start_factor, 1.0, step / top)
        return _between(1.0, self.args.final_factor, min(1.0, (step - top) / (last - top)))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))
