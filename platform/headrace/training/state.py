"""The small state machines of a training: the moving average of weights, the best epoch, early stopping.

Pure apart from the tensors they hold; each can be written into a checkpoint and read back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from headrace.training.sharding import is_share, own_part, share_of

Weights = dict[str, torch.Tensor]


def weights_of(model: torch.nn.Module) -> Weights:
    """A copy of all parameters and buffers on the CPU, under the model's own names."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()}


class MovingAverage:
    """Exponential moving average of a model's weights (Polyak & Juditsky 1992).

    At each update average += (1 - decay) (weight - average).

    The first updates use the smaller decay (1 + updates) / (10 + updates), so that the average forgets the
    initialisation quickly. Buffers that are not floating (counters) are copied.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._buffers = [name for name, _ in model.named_buffers() if name in self._average]

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the model's weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for name, value in model.state_dict().items():
            average = self._average[name]
            if average.is_floating_point():
                averages.append(own_part(average))
                values.append(own_part(value.detach()))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def buffers(self) -> list[torch.Tensor]:
        """What of the average is no parameter: each worker has seen its own, and they are to be made one."""
        return [self._average[name] for name in self._buffers]

    def state(self) -> dict[str, Any]:
        """For a checkpoint; shares of a sharded model are shares here, where they lie."""
        average = {name: value if is_share(value) else value.cpu() for name, value in self._average.items()}
        return {"updates": self.updates, "average": average}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.updates = int(state["updates"])
        for name, value in state["average"].items():
            self._average[name].copy_(share_of(value, self._average[name]))

    def copy_to(self, model: torch.nn.Module) -> None:
        """Make the average the weights of MODEL."""
        model.load_state_dict(self._average)


@dataclass(frozen=True)
class Watched:
    """A metric of the history and which way is better."""

    metric: str
    direction: Literal["max", "min"]

    def better(self, new: float, old: float, by: float = 0.0) -> bool:
        """Whether NEW beats OLD by more than BY."""
        return new > old + by if self.direction == "max" else new < old - by


def watched(name: str | None, directions: Mapping[str, Literal["max", "min"]], primary: str) -> Watched:
    """The metric called NAME (None: PRIMARY) as the history names it; losses are better when smaller."""
    bare = (name or primary).removeprefix("validation.")
    return Watched(f"validation.{bare}", directions.get(bare, "min"))


History = list[dict[str, Any]]  # one {"epoch": 1.., "metrics": {name: value}} an epoch


def best_epoch(history: Sequence[Mapping[str, Any]], metric: Watched) -> int:
    """The epoch with the best METRIC, the earliest of equals; the last where none was measured."""
    best: tuple[int, float] | None = None
    for entry in history:
        value = entry["metrics"].get(metric.metric)
        if value is not None and (best is None or metric.better(value, best[1])):
            best = (int(entry["epoch"]), float(value))
    if best is not None:
        return best[0]
    return int(history[-1]["epoch"]) if history else 0


def should_stop(history: Sequence[Mapping[str, Any]], metric: Watched, patience: int, min_delta: float) -> bool:
    """Whether METRIC has not got better by more than MIN_DELTA for PATIENCE epochs."""
    reference: float | None = None
    waited = 0
    for entry in history:
        value = entry["metrics"].get(metric.metric)
        if value is None:
            continue
        if reference is None or metric.better(float(value), reference, min_delta):
            reference, waited = float(value), 0
        else:
            waited += 1
    return waited >= patience
