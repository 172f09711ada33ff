"""What the epochs of a training need of whatever changes a model's weights: `Trainer`, by gradients, or
`CountingTrainer`, by statistics. All else (order, judging, checkpoints, history, early stop) is one and the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from headrace.training.batches import Examples, Schedule
from headrace.training.loop import Objective
from headrace.training.progress import Teller
from headrace.training.state import Weights
from headrace_models.tasks.base import Batch


class Learner(Protocol):
    """A model with everything that changes its weights; all workers call it alike."""

    @property
    def model(self) -> torch.nn.Module:
        """What learns, on the group's device."""

    @property
    def objective(self) -> Objective:
        """What validation measures as its loss."""

    @property
    def sharded(self) -> bool:
        """Whether the weights lie in shares on the workers."""

    @property
    def learning_rate(self) -> float | None:
        """The present learning rate, where there is one."""

    @property
    def settled(self) -> bool:
        """Whether another epoch would change nothing."""

    def batches(self, examples: Examples, schedule: Schedule, *, seed: int, epoch: int) -> Iterator[Batch]:
        """This worker's batches of an epoch."""

    def shown(self, schedule: Schedule) -> int:
        """How many samples all workers together see in an epoch."""

    def epoch(
        self, epoch: int, batches: Iterable[Batch], schedule: Schedule, teller: Teller, epochs: int
    ) -> float | None:
        """Learn from one epoch's BATCHES; the mean loss over all workers' samples, where there is one."""

    def whole_weights(self) -> AbstractContextManager[None]:
        """Within the block the model runs on this worker alone, also where its weights are sharded."""

    def judged_weights(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that are judged and kept."""

    def weights(self) -> Weights:
        """A copy of the model's weights on the CPU of the first worker; nothing on the others."""

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
