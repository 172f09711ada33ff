"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3), in this process and on one worker.

The learning rate rises with every batch, evenly by its logarithm (Smith's rises evenly), and the loss is watched: it
begins to fall where the rate begins to matter, and explodes where it is too large. What is suggested is the rate at
which it falls fastest, which leaves room below the edge. The weights are thrown away.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headrace.base.errors import InvalidInput, RunFailed
from headrace.data import Manifest
from headrace.store import Store
from headrace.training import components
from headrace.training.batches import Examples, Schedule, seed_of, share_out, training_batches
from headrace.training.checkpoint import seed_everything
from headrace.training.gpu import supplied, to_device
from headrace.training.group import Group
from headrace.training.loop import Trainer
from headrace_models.layers.counting import Counting
from headrace_models.tasks import build_tasks
from headrace_models.tasks.base import Batch, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.9  # of the running mean of the loss; a batch's own loss says little
EXPLODED = 4.0  # times the best smoothed loss: the test ends
SETTLED = 10  # batches before the running mean is one


@dataclass(frozen=True)
class Curve:
    """The smoothed loss at each rate, in the order in which they were tried."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    exploded: bool

    @property
    def lowest(self) -> int:
        """The place of the smallest loss."""
        return min(range(len(self.losses)), key=self.losses.__getitem__)

    @property
    def suggestion(self) -> float:
        """The rate at which the loss falls fastest, before it is lowest.

        Raises:
            RunFailed: it never falls.
        """
        slopes = {
            place: (self.losses[place + 1] - self.losses[place - 1])
            / math.log(self.rates[place + 1] / self.rates[place - 1])
            for place in range(SETTLED, min(self.lowest, len(self.losses) - 2) + 1)
        }
        steepest = min(slopes, key=slopes.__getitem__, default=None)
        if steepest is None or slopes[steepest] >= 0:
            raise RunFailed(
                f"the loss never fell between the learning rates {self.rates[0]:.2g} and {self.rates[-1]:.2g}",
                action="try a wider range (--from, --to) or more --steps; if it stays so, look at data and model",
                code="no-learning-rate",
            )
        return self.rates[steepest]


def smoothed(losses: Sequence[float], beta: float = SMOOTHING) -> list[float]:
    """The running means of LOSSES, corrected for their start at 0 (Kingma & Ba 2014, section 3)."""
    mean, means = 0.0, []
    for place, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        means.append(mean / (1 - beta**place))
    return means


def exploded(means: Sequence[float]) -> bool:
    """Whether the newest of the smoothed losses is EXPLODED times the lowest; of losses that went below zero, whether
    it rose by as many times what had been won."""
    low = min(means)
    return means[-1] > EXPLODED * low if low > 0 else means[-1] - low > EXPLODED * (means[0] - low)


def rates_between(low: float, high: float, steps: int) -> list[float]:
    """STEPS learning rates from LOW to HIGH, each the same factor above the one before."""
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def range_test(store: Store, part: Mapping[str, Any], split_fingerprint: str, rates: Sequence[float]) -> Curve:
    """Train the train step's PART for one batch at each of RATES, or until the loss explodes.

    Parameter groups keep their learning rates' ratios. Schedule, accumulation and moving average take no part.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and part["train"]["gpus_per_worker"] != 0 else "cpu")
    group = Group(0, 1, device)
    manifest = Manifest(store, split_fingerprint)
    shard = manifest.shard("train", 0, 1)
    task = build_tasks(part["tasks"], manifest.schema)
    task.learn([task.summarise(shard)])
    schedule = share_out(int(part["train"]["batch_size"]), [len(shard)])
    with tempfile.TemporaryDirectory(prefix="headrace-lr-") as folder:
        trainer = _trainer(part, task, store, Path(folder), task.request([shard[0]]), group, schedule)
        batches = _batches(Examples(shard, task), task, schedule, int(part["train"]["seed"]))
        losses, exploded = _rise(trainer, batches, rates, device)
    return Curve(tuple(rates[: len(losses)]), tuple(smoothed(losses)), exploded)


def _trainer(
    part: Mapping[str, Any], task: Task, store: Store, folder: Path, example: Any, group: Group, schedule: Schedule
) -> Trainer:
    plain = {"schedule": {"name": "constant", "args": {}}, "accumulate_steps": 1, "ema_decay": None, "compile": False}
    train = {**part["train"], **plain}
    code = components.fetch_code(store, part["model"].get("code"), folder)
    seed_everything(seed_of(train["seed"], "model"))
    model = components.make_model(part["model"], task, code, example, on_init=lambda _: None)
    if isinstance(model, Counting):
        raise InvalidInput(
            f"{type(model).__name__} learns from statistics: it has no learning rate",
            action="headrace run trains it as it is",
        )
    objective = components.make_objective(train, task, group.device)
    return components.make_trainer(train, model, objective, group, schedule, own_code=code is not None)


def _batches(examples: Examples, task: Task, schedule: Schedule, seed: int) -> Iterator[Batch]:
    for epoch in count(1):
        yield from training_batches(examples, task, schedule=schedule, rank=0, seed=seed, epoch=epoch)


def _rise(
    trainer: Trainer, batches: Iterator[Batch], rates: Sequence[float], device: torch.device
) -> tuple[list[float], bool]:
    """(the batches' own losses, whether they exploded)."""
    groups = trainer.optimizer.param_groups
    ratios = [group["lr"] / groups[0]["lr"] for group in groups]
    losses: list[float] = []
    trainer.step_model.train()
    for rate, batch in zip(rates, supplied(batches, device), strict=False):
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] = rate * ratio
        loss, _ = trainer.objective(trainer.step_model, to_device(batch, device))
        if not math.isfinite(loss.item()):
            return losses, True
        losses.append(loss.item())
        means = smoothed(losses)
        if len(losses) > SETTLED and exploded(means):
            return losses, True
        trainer.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        trainer.step()
    return losses, False


def picture(curve: Curve, suggestion: float | None) -> Figure:
    """The curve, with the SUGGESTION made from it, if there is one."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses)
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:orange", linestyle="--", label=f"suggested: {suggestion:.2g}")
        axes.legend()
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed", title="Learning-rate range test")
    low, top = min(curve.losses), max(curve.losses[: curve.lowest + 1])
    room = max(top - low, 1e-3 * abs(top), 1e-6)
    axes.set_ylim(low - 0.1 * room, top + 0.3 * room)  # the explosion itself says nothing
    return figure
