"""Learning-rate schedules as pure functions of the step.

Each maker takes its arguments, the training's number of optimizer steps and those of an epoch, and returns the factor
on lr for step 0, 1, ... A function has no state, so a resumed training goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from headrace_models.catalog.schedule_cards import (
    ConstantArguments,
    ExponentialArguments,
    FallArguments,
    InverseSqrtArguments,
    MultiStepArguments,
    OneCycleArguments,
    StepArguments,
    WarmupArguments,
    WarmUpScheduleArguments,
)

Factor = Callable[[int], float]


def _warm_steps(args: WarmupArguments | WarmUpScheduleArguments, steps_per_epoch: int) -> int:
    return args.warmup_steps or round(args.warmup_epochs * steps_per_epoch)


def _warmed(factor: Factor, warm: int) -> Factor:
    """FACTOR, times a linear rise that reaches 1 at the last of WARM steps."""
    return lambda step: factor(step) * min(1.0, (step + 1) / warm) if warm else factor(step)


def constant(args: ConstantArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """1 throughout."""
    return _warmed(lambda step: 1.0, _warm_steps(args, steps_per_epoch))


def warm_up(args: WarmUpScheduleArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """A linear rise, then 1."""
    return _warmed(lambda step: 1.0, _warm_steps(args, steps_per_epoch))


def step_down(args: StepArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """gamma^floor(epoch / every_epochs)."""
    every = args.every_epochs * steps_per_epoch
    return _warmed(lambda step: float(args.gamma ** math.floor(step / every)), _warm_steps(args, steps_per_epoch))


def multi_step(args: MultiStepArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """gamma^(milestones behind)."""
    marks = [epoch * steps_per_epoch for epoch in args.milestones]
    behind: Factor = lambda step: float(args.gamma ** sum(step >= mark for mark in marks))  # noqa: E731
    return _warmed(behind, _warm_steps(args, steps_per_epoch))


def exponential(args: ExponentialArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """gamma^epoch."""
    return _warmed(lambda step: float(args.gamma ** (step / steps_per_epoch)), _warm_steps(args, steps_per_epoch))


def _fall(args: FallArguments, total_steps: int, steps_per_epoch: int, shape: Callable[[float], float]) -> Factor:
    warm = min(_warm_steps(args, steps_per_epoch), total_steps)

    def factor(step: int) -> float:
        done = min(max(0.0, (step - warm) / max(1, total_steps - warm)), 1.0)
        return args.final_factor + (1.0 - args.final_factor) * shape(done)

    return _warmed(factor, warm)


def linear(args: FallArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """A straight line from 1 (after the warm-up) to final_factor."""
    return _fall(args, total_steps, steps_per_epoch, lambda done: 1.0 - done)


def cosine(args: FallArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """Half a cosine from 1 (after the warm-up) to final_factor."""
    return _fall(args, total_steps, steps_per_epoch, lambda done: 0.5 * (1.0 + math.cos(math.pi * done)))


def inverse_sqrt(args: InverseSqrtArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """min((step + 1) / warmup_steps, sqrt(warmup_steps / (step + 1)))."""
    warm = args.warmup_steps
    return lambda step: min((step + 1) / warm, math.sqrt(warm / (step + 1)))


def one_cycle(args: OneCycleArguments, total_steps: int, steps_per_epoch: int) -> Factor:
    """From start_factor up to 1 at the share `rise`, then down to final_factor at the last step, along cosines."""
    last = max(1, total_steps - 1)
    top = args.rise * last

    def between(start: float, end: float, done: float) -> float:
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    def factor(step: int) -> float:
        if step <= top:
            return between(args.start_factor, 1.0, step / top)
        return between(1.0, args.final_factor, (step - top) / (last - top))

    return factor
