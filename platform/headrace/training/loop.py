"""The training loop: plain PyTorch, one epoch at a time, and generic over tasks and models.

Read `Trainer.epoch` first. Each optimizer step sees `accumulate_steps` global batches; gradients are the exact mean
over all their samples also where workers hold batches of different sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from headrace.base.errors import RunFailed
from headrace.training.batches import Examples, Schedule, training_batches
from headrace.training.compiling import compiled_step
from headrace.training.gpu import supplied, to_device
from headrace.training.group import Group
from headrace.training.progress import Teller
from headrace.training.sharding import is_sharded, shares_of_state, unsharded, whole
from headrace.training.state import MovingAverage, Weights, weights_of
from headrace_models.tasks.base import Batch, Metrics, Task, WithAuxiliary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# On a GPU reading a loss waits for all work before it, so a loss that is not a number is looked for only this often.
CHECK_EVERY = 50


@dataclass(frozen=True)
class LossTerm:
    """One term of the objective: what `build_loss` gave, its weight, and whose outputs it judges."""

    function: Any
    weight: float
    task: str = ""  # of several


@dataclass(frozen=True)
class Objective:
    """The weighted sum of the task's losses, computed in the precision that was asked for."""

    task: Task
    terms: tuple[LossTerm, ...]
    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, Any]:
        """(mean loss of the batch, auxiliary outputs included; the model's outputs without them)."""
        with self.autocast():
            outputs = model(*self.task.inputs(batch))
            losses: dict[str, torch.Tensor] = {}
            for term in self.terms:
                value = term.weight * self.task.loss_of(term.task, outputs, batch, term.function)
                losses[term.task] = losses[term.task] + value if term.task in losses else value
            loss = self.task.joined_loss(losses, outputs)
        return loss, outputs.main if isinstance(outputs, WithAuxiliary) else outputs


def groups_of(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """BATCHES in lists of SIZE, the last one maybe shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


class Trainer:
    """A model with everything that changes its weights by gradients; a `Learner`.

    Args:
        model: on its device, its frozen parameters marked; sharded already, if it is to be.
        optimizer, scheduler: the scheduler steps once an optimizer step.
        accumulate_steps: batches whose mean gradient makes one optimizer step.
        clip_norm: the largest norm of the gradient, if there is one.
        average: the moving average of the weights, if there is one.
        compiled: the training step goes through torch.compile; the model is judged and kept as it is.
        idle_parameters: there may be parameters that take no part in a loss. DDP then walks the graph of each step for
            them; without, it would wait for their gradients for ever, and raises.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        group: Group,
        *,
        accumulate_steps: int = 1,
        clip_norm: float | None = None,
        average: MovingAverage | None = None,
        compiled: bool = False,
        idle_parameters: bool = False,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.group = group
        self.accumulate_steps = accumulate_steps
        self.clip_norm = clip_norm
        self.average = average
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=objective.dtype is torch.float16)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.replica: torch.nn.Module = model
        self.sharded = is_sharded(model)
        self.settled = False  # another step always changes something
        if group.world > 1 and not self.sharded:
            # Statistics of batch norm are averaged once an epoch (`Group.average_buffers`) and not copied from the
            # first worker at every step.
            self.replica = DistributedDataParallel(
                model,
                device_ids=[group.device] if group.device.type == "cuda" else None,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=idle_parameters,
            )

        self.step_model = compiled_step(self.replica, group.device) if compiled else self.replica

    def batches(self, examples: Examples, schedule: Schedule, *, seed: int, epoch: int) -> Iterator[Batch]:
        """This worker's batches of an epoch: as many as every other worker has."""
        return training_batches(
            examples, self.objective.task, schedule=schedule, rank=self.group.rank, seed=seed, epoch=epoch
        )

    def shown(self, schedule: Schedule) -> int:
        """How many samples all workers together see in an epoch."""
        return schedule.batches * schedule.global_size

    def epoch(self, epoch: int, batches: Iterable[Batch], schedule: Schedule, teller: Teller, epochs: int) -> float:
        """Train on one epoch's BATCHES; returns the mean loss over all workers' samples.

        Raises:
            RunFailed: the loss is not a finite number.
        """
        self.step_model.train()
        weight = schedule.weight(self.group.rank)
        losses = torch.zeros((), dtype=torch.float64 if self.group.device.type == "cpu" else torch.float32)
        losses = losses.to(self.group.device)
        done = 0
        for group in groups_of(supplied(batches, self.group.device), self.accumulate_steps):
            for place, batch in enumerate(group):
                done += 1
                last = place == len(group) - 1
                with nullcontext() if last else self._without_reduction():
                    loss, _ = self.objective(self.step_model, to_device(batch, self.group.device))
                    losses += loss.detach()
                    self._check(losses, epoch, done, schedule.batches)
                    self.scaler.scale(loss * (weight / len(group))).backward()  # type: ignore[no-untyped-call]
            self.step()
            teller.tell("training", epoch=epoch, epochs=epochs, batch=done, batches=schedule.batches)
        self.group.average_buffers(self.model.buffers())
        if self.average is not None:
            self.group.average_buffers(self.average.buffers())
        size = schedule.sizes[self.group.rank]
        total, samples = self.group.total([losses.item() * size, done * size])
        return total / samples

    def _without_reduction(self) -> AbstractContextManager[Any]:
        return self.replica.no_sync() if isinstance(self.replica, DistributedDataParallel) else nullcontext()

    def step(self) -> None:
        """Change the weights by the gradients that have come together, and forget these."""
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scaler.get_scale() < scale:  # float16 overflowed: no step was made, a smaller scale is tried next
            return
        self.scheduler.step()
        if self.average is not None:
            self.average.update(self.model)

    def _check(self, losses: torch.Tensor, epoch: int, step: int, steps: int) -> None:
        if self.group.device.type == "cuda" and step % CHECK_EVERY and step != steps:
            return
        value = losses.item()
        if not math.isfinite(value):
            raise RunFailed(
                f"the training loss became {value} in epoch {epoch}, at batch {step} of {steps}",
                action="lower train.optimizer.lr, set train.clip_norm (1.0 is a good start), or use "
                "train.precision: float32; look for infinite values in the data if it happens at once",
                code="loss-not-finite",
            )

    @property
    def learning_rate(self) -> float:
        """The present learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def whole_weights(self) -> AbstractContextManager[None]:
        """Within the block the model runs on this worker alone, also where its weights are sharded."""
        return unsharded(self.model) if self.sharded else nullcontext()

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Within the block the model has the weights that are judged and kept: the moving average, if there is one."""
        if self.average is None:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.average.copy_to(self.model)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    # checkpoints: on the first worker whole tensors, whatever the workers hold; all workers call these alike

    def weights(self) -> Weights:
        """A copy of the model's weights on the CPU of the first worker; nothing on the others."""
        if not self.sharded:
            return weights_of(self.model) if self.group.first else {}
        gathered: Weights = whole(self.model.state_dict(), keep=self.group.first)
        return gathered if self.group.first else {}

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint; on the other workers there are no tensors in it if the model is sharded."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average is not None else None,
        }
        return dict(whole(state, keep=self.group.first)) if self.sharded else state

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.optimizer.load_state_dict(shares_of_state(state["optimizer"], self.optimizer))
        self.scheduler.load_state_dict(dict(state["schedule"]))
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.load(state["average"])


@torch.inference_mode()
def judge(
    model: torch.nn.Module,
    objective: Objective | None,
    task: Task,
    batches: Iterable[Batch],
    group: Group,
    teller: Teller | None = None,
) -> tuple[Metrics, float | None, int]:
    """(metrics over all workers' batches, mean loss or None, samples). Every sample counts once."""
    model.eval()
    metrics = task.new_metrics()
    total, samples = 0.0, 0
    for batch in supplied(batches, group.device):
        size = len(next(iter(batch.values())))
        moved = to_device(batch, group.device)
        if objective is not None:
            loss, outputs = objective(model, moved)
            total += loss.item() * size
        else:
            outputs = model(*task.inputs(moved))
        metrics.update(outputs, moved)
        samples += size
        if teller is not None:
            teller.tell("validating" if objective is not None else "evaluating")
    gathered = group.gather((metrics.state(), total, samples))
    metrics.merge([state for state, _, _ in gathered])
    everyone = sum(count for _, _, count in gathered)
    loss_sum = sum(part for _, part, _ in gathered)
    return metrics, loss_sum / everyone if objective is not None and everyone else None, everyone
