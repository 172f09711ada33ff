"""Networks that count rather than descend: hidden Markov models, mixtures, k-means, naive Bayes, nearest neighbours.

They learn by expectation and maximisation (Dempster, Laird & Rubin 1977) or by a part of it: a pass over all training
samples leaves statistics, from which the network sets what it has learned. The trainer takes such a network as it is:
an epoch shows every sample once, adds the statistics up over batches and workers, and calls `maximize`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from headrace_models.tasks.base import Batch


@dataclass(frozen=True)
class Statistics:
    """What one batch, or an epoch of all workers, leaves of its samples.

    Args:
        sums: tensors that add up over batches and workers. Each batch gives the same names and shapes; totals come back
            in double precision (floats) or as 64-bit integers, so that they hardly depend on how samples were dealt
            out.
        kept: rows `[rows, ...]` that are kept as they are: joined over a worker's batches, then over workers in the
            order of their rank. How many rows a batch gives is its own business. Whatever should not depend on the
            number of workers sorts them.
        loss: the sum over the batch's samples of what the network minimises, as it is before this epoch's
            `maximize` (of a mixture: the negative log-likelihood); its mean is `train.loss`. None: there is no such.
    """

    sums: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    loss: Tensor | None = None


class Counting(nn.Module, ABC):
    """A network that learns from statistics. Subclasses write `accumulate`, `maximize` and `forward`.

    What is learned lies in buffers (`register_buffer`): they are what checkpoints and packages hold. Parameters may be
    there (a backbone, whose weights come from `init_from`) and stay as they are. In `accumulate`, `maximize` and
    `forward` alike the network is in evaluation mode; there are no gradients. One that must start from the data (a flat
    start, k-means++) makes that its first epoch, and keeps in a buffer how far it is: a resumed training goes on there.

    `sized_by_data` names the network's own buffers whose shape is known only once it has learned: they begin as any
    tensor of their type, `maximize` assigns others, and loading a checkpoint or a package takes over the shape there.
    """

    sized_by_data: ClassVar[tuple[str, ...]] = ()

    def begin(self, samples: int) -> None:
        """Hear, on every worker, that an epoch begins and how many SAMPLES of all workers it will show.

        Raises:
            InvalidInput: these are more or fewer than the network can learn from.
        """

    @abstractmethod
    def accumulate(self, inputs: tuple[Tensor, ...], batch: Batch) -> Statistics:
        """The statistics of one batch under the network as it is.

        Args:
            inputs: what `forward` would be called with (`task.inputs(batch)`), on the network's device.
            batch: the whole batch, with its labels (`batch["label"]` int64 [batch] of classes).
        """

    @abstractmethod
    def maximize(self, statistics: Statistics) -> None:
        """Set the buffers from an epoch's STATISTICS, those of all workers, on the network's device.

        Each worker calls it with the same statistics and the same random state: what is drawn is the same everywhere.
        """

    @property
    def settled(self) -> bool:
        """Whether another epoch would change nothing: training then ends, however many epochs the spec has left.

        Read after `maximize` and after a checkpoint was loaded, so it must follow from the buffers.
        """
        return False

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self.sized_by_data:
            own, given = getattr(self, name), state_dict.get(prefix + name)
            if isinstance(given, Tensor) and given.shape != own.shape:
                setattr(self, name, torch.empty(given.shape, dtype=own.dtype, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
