"""Training by counting: an epoch shows every sample once, adds statistics up over all workers, and maximises.

Read `CountingTrainer.epoch`. It is the E step over all data and the M step of Dempster, Laird & Rubin 1977; what both
are is the network's business (`headrace_models.layers.counting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from headrace.base.errors import RunFailed
from headrace.training.batches import Examples, Schedule, seed_of, whole_batches
from headrace.training.checkpoint import random_states, seed_everything, set_random_states
from headrace.training.gpu import to_device
from headrace.training.group import Group
from headrace.training.loop import Objective
from headrace.training.progress import Teller
from headrace.training.state import Weights, weights_of
from headrace.training.statistics import Totals, on, with_nan
from headrace_models.layers.counting import Counting, Statistics
from headrace_models.tasks.base import Batch


class CountingTrainer:
    """A network that learns from statistics, among its peers; a `Learner`.

    Args:
        model: on the group's device, the same on all workers.
        objective: what validation measures as its loss; nothing minimises it.
        seed: of what `maximize` draws.
    """

    sharded = False
    learning_rate = None

    def __init__(self, model: Counting, objective: Objective, group: Group, *, seed: int) -> None:
        self.model = model
        self.objective = objective
        self.group = group
        self.seed = seed

    @property
    def settled(self) -> bool:
        """Whether another epoch would change nothing."""
        return self.model.settled

    def batches(self, examples: Examples, schedule: Schedule, *, seed: int, epoch: int) -> Iterator[Batch]:
        """This worker's samples, each once: where workers differ in number, none is shown twice to make up for it."""
        return whole_batches(
            examples, self.objective.task, size=schedule.sizes[self.group.rank], seed=seed, epoch=epoch
        )

    def shown(self, schedule: Schedule) -> int:
        """All training samples."""
        return sum(schedule.counts)

    @torch.no_grad()
    def epoch(
        self, epoch: int, batches: Iterable[Batch], schedule: Schedule, teller: Teller, epochs: int
    ) -> float | None:
        """Learn from one epoch's BATCHES.

        Returns the mean over all samples of what the network minimises, as it was before; None if it has no such.

        Raises:
            InvalidInput: the network cannot learn from so many samples, or batches or workers gave statistics that
                cannot be put together.
            RunFailed: the loss is not a finite number, or maximising left values that are no numbers.
        """
        self.model.eval()
        self.model.begin(self.shown(schedule))
        rank = self.group.rank
        count = -(-schedule.counts[rank] // schedule.sizes[rank])
        totals = Totals()
        for done, batch in enumerate(batches, start=1):
            moved = to_device(batch, self.group.device)
            inputs = self.objective.task.inputs(moved)
            totals.add(self.model.accumulate(inputs, moved), len(next(iter(batch.values()))))
            teller.tell("training", epoch=epoch, epochs=epochs, batch=done, batches=count)
        statistics, samples = totals.everyones(self.group)
        loss = None if statistics.loss is None else statistics.loss.item() / samples
        if loss is not None and not math.isfinite(loss):
            raise RunFailed(
                f"the training loss became {loss} in epoch {epoch}",
                action="look for values in the data that are infinite or far from all others, and see how the model "
                "keeps its variances and probabilities above zero",
                code="loss-not-finite",
            )
        self._maximize(epoch, on(statistics, self.group.device))
        return loss

    def _maximize(self, epoch: int, statistics: Statistics) -> None:
        """As all workers do it: with the same random state, whatever theirs was and is again afterwards."""
        states = random_states()
        seed_everything(seed_of(self.seed, "maximize", epoch))
        self.model.maximize(statistics)
        set_random_states(states)
        self._lay_out()
        if (name := with_nan(self.model.state_dict().items())) is not None:
            raise RunFailed(
                f"after epoch {epoch} the model's {name} holds values that are not numbers",
                action="see how the model divides by counts that may be zero",
                code="not-a-number",
            )

    def _lay_out(self) -> None:
        """Let buffers lie as a checkpoint gives them back: sums over other strides differ in their last bits."""
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.contiguous())

    def whole_weights(self) -> AbstractContextManager[None]:
        """Every worker has all weights anyway."""
        return nullcontext()

    def judged_weights(self) -> AbstractContextManager[None]:
        """The model's own."""
        return nullcontext()

    def weights(self) -> Weights:
        """A copy of what was learned, on the CPU of the first worker; nothing on the others."""
        return weights_of(self.model) if self.group.first else {}

    def state(self) -> dict[str, Any]:
        """Nothing: all that an epoch leaves lies in the model."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
