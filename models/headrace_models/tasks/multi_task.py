"""Several tasks on the same pictures, with one network (`task: [image-classification, semantic-segmentation]`).

The picture is decoded, varied and normalised once; each task has its own labels, losses, metrics (`TASK.METRIC`), plots
and outputs. The network gives `MultiTaskOutput`. Trainer, evaluator and server treat this as one task.

Facts for the network: `in_channels`, `image_size`, and `tasks`: the facts of each task by its name.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headrace.base.errors import InvalidInput
from headrace_models import catalog
from headrace_models.catalog.cards import NoArguments, TaskCard
from headrace_models.catalog.picture_arguments import SHARED
from headrace_models.tasks.base import Arrays, Batch, Example, Metrics, MultiTaskOutput, Sample, Signature, Task
from headrace_models.tasks.picture_task import PictureTask, summaries_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = ("image_size", "channels", "mean", "std")  # of the preprocessing: the same for all tasks


def joined_card(cards: Sequence[TaskCard]) -> TaskCard:
    """The card of the tasks of CARDS together."""
    metrics = {f"{card.name}.{name}": better for card in cards for name, better in card.metrics.items()}
    return TaskCard(
        "+".join(card.name for card in cards),
        " and ".join(card.summary for card in cards),
        f"{__name__}:MultiTask",
        metrics=metrics,
        losses=tuple(dict.fromkeys(loss for card in cards for loss in card.losses)),
        formats=tuple(name for name in cards[0].formats if all(name in card.formats for card in cards)),
        label_kind="annotation",
        masks=any(card.masks for card in cards),
    )


class MultiTask(Task):
    """See the module.

    Args:
        parts: the tasks, in the order of the spec.

    Raises:
        InvalidInput: a task cannot be joined, or what two say of the picture differs.
    """

    def __init__(self, parts: Sequence[Task]) -> None:
        for part in parts:
            if not isinstance(part, PictureTask) or not part.card.composes:
                raise InvalidInput(
                    f"{part.card.name} cannot be one of several tasks",
                    action="make a spec of its own for it, or join image-classification and semantic-segmentation",
                )
        super().__init__(NoArguments(), parts[0].schema)
        self.parts: dict[str, PictureTask] = {part.card.name: part for part in parts if isinstance(part, PictureTask)}
        self.card = joined_card([part.card for part in parts])  # type: ignore[misc]  # no class has this one
        self.leader = next(iter(self.parts.values()))
        for name in SHARED:
            self._agreed(name)

    def _agreed(self, name: str) -> None:
        """Give all tasks what one says of the argument NAME. Raises SpecInvalid where another cannot have it."""
        given = {getattr(part.args, name) for part in self.parts.values()} - {None, "none"}
        if len(given) > 1:
            raise InvalidInput(
                f"the tasks want different {name}s: {', '.join(map(str, given))}",
                action="they see the same picture: say it once, or the same",
            )
        if given:
            for part in self.parts.values():
                said = {**dict(part.args), name: next(iter(given))}
                part.args = catalog.arguments(part.card, said, f"tasks.{part.card.name}.args")

    def to_record(self) -> dict[str, Any]:
        """`name`, and the records of all `tasks`."""
        return {"name": self.card.name, "tasks": [part.to_record() for part in self.parts.values()]}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(self.parts)

    def part(self, name: str) -> Task:
        """The task called NAME."""
        return self.parts[name]

    # what the data teaches

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """The summary of each task."""
        return dict(zip(self.parts, summaries_of(list(self.parts.values()), samples), strict=True))

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Each task learns its own; size and normalisation are the first one's."""
        for name, part in self.parts.items():
            part.learn([summary[name] for summary in summaries])
            part.preprocessing.update({key: self.leader.preprocessing[key] for key in PIXELS})

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        return {**self.leader.picture_facts(), "tasks": {n: part.model_facts() for n, part in self.parts.items()}}

    # samples to batches

    def decode(self, sample: Sample) -> Example:
        """The picture, and the labels of all tasks."""
        fitted = self.leader.fitted_sample(sample)
        example: Example = {"image": fitted.pixels}
        for part in self.parts.values():
            example.update(part.labelled(sample, fitted))
        return example

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The variation that the tasks' `augment` names, of picture and labels alike."""
        return self.leader.augment(example, rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The pictures, and the labels of all tasks."""
        batch = self.leader.collate(examples)
        for part in self.parts.values():
            batch.update(part.label_tensors(examples))
        return batch

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """The normalised pictures."""
        return self.leader.inputs(batch)

    # outputs

    def outputs_of(self, name: str, outputs: Any) -> Any:
        """What the network gives for the task NAME.

        Raises:
            InvalidInput: nothing.
        """
        if isinstance(outputs, MultiTaskOutput) and name in outputs.outputs:
            return outputs.outputs[name]
        raise InvalidInput(
            f"the model gave nothing for {name}",
            action="return headrace_models.tasks.base.MultiTaskOutput({task: scores, ...}, {})",
        )

    def loss(self, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """Not defined: a loss judges one task (`loss_of`)."""
        raise NotImplementedError("a loss judges one of the tasks")

    def loss_of(self, name: str, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """The mean LOSS of the task NAME."""
        return self.parts[name].total_loss(self.outputs_of(name, outputs), batch, loss)

    def joined_loss(self, losses: Mapping[str, torch.Tensor], outputs: Any) -> torch.Tensor:
        """The sum of LOSSES, each by the uncertainty s that the network has of its task, if it learns one:
        exp(-s) loss + s / 2 (Kendall et al. 2018, eq. 10)."""
        total = torch.zeros((), device=next(iter(losses.values())).device)
        for name, loss in losses.items():
            log_variance = outputs.log_variances.get(name)
            if log_variance is None:
                total = total + loss
            else:
                total = total + (torch.exp(-log_variance) * loss + log_variance / 2).squeeze()
        return total

    # judging

    def new_metrics(self) -> MultiTaskMetrics:
        """See `MultiTaskMetrics`."""
        return MultiTaskMetrics(self)

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """Those of all tasks, each name after its task's."""
        assert isinstance(metrics, MultiTaskMetrics)
        return {
            f"{name}_{stem}": figure
            for name, part in self.parts.items()
            for stem, figure in part.plots(metrics.parts[name]).items()
        }

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """Those of all tasks."""
        if not examples:
            return {}
        drawn: dict[str, Figure | bytes] = {}
        for name, part in self.parts.items():
            drawn.update(part.example_pictures(examples, self.outputs_of(name, outputs)))
        return drawn

    def explanations(self, model: nn.Module, examples: Sequence[Example]) -> dict[str, Figure]:
        """Those of all tasks, each of the network as one for it alone."""
        drawn: dict[str, Figure] = {}
        for name, part in self.parts.items():
            handle = model.register_forward_hook(partial(self._alone, name))
            try:
                drawn.update(part.explanations(model, examples))
            finally:
                handle.remove()
        return drawn

    def _alone(self, name: str, model: nn.Module, given: Any, outputs: Any) -> Any:
        return self.outputs_of(name, outputs)

    # serving

    def signature(self) -> Signature:
        """The picture; the outputs of all tasks."""
        first = self.leader.signature()
        outputs = tuple(spec for part in self.parts.values() for spec in part.signature().outputs)
        return Signature(first.inputs, outputs, first.alternatives)

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`."""
        return self.leader.preprocess(inputs)

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """The answers of all tasks."""
        answers: dict[str, Any] = {}
        for name, part in self.parts.items():
            answers.update(part.postprocess(self.outputs_of(name, outputs), batch))
        return answers

    def request(self, samples: Sequence[Sample]) -> Arrays:
        """The encoded pictures."""
        return self.leader.request(samples)


class MultiTaskMetrics(Metrics):
    """The metrics of each task, under `TASK.METRIC`."""

    def __init__(self, task: MultiTask) -> None:
        self._task = task
        self.parts = {name: part.new_metrics() for name, part in task.parts.items()}

    def update(self, outputs: Any, batch: Batch) -> None:
        """See `Metrics.update`."""
        for name, metrics in self.parts.items():
            metrics.update(self._task.outputs_of(name, outputs), batch)

    def state(self) -> Any:
        """See `Metrics.state`."""
        return {name: metrics.state() for name, metrics in self.parts.items()}

    def merge(self, states: Sequence[Any]) -> None:
        """See `Metrics.merge`."""
        for name, metrics in self.parts.items():
            metrics.merge([state[name] for state in states])

    def compute(self) -> dict[str, float]:
        """See `Metrics.compute`."""
        return {f"{name}.{metric}": v for name, part in self.parts.items() for metric, v in part.compute().items()}
