"""The task seam: everything about a kind of problem that is not the network.

The trainer, the evaluator and the server are generic over `Task` and never name a model or a task. Serving decodes with
the very functions that training decoded with, so there is no skew between them.

Life of a task:
    training    task = Task(args, schema)          on each worker
                part = task.summarise(samples)     over the worker's own shard of the training split
                task.learn([part, ...])            the same parts in the same order on every worker: same preprocessing
                task.decode → task.augment → task.collate → model → task.total_loss / task.new_metrics
    packaging   task.to_record()                   JSON, stored in the package's headrace.json
    serving     task = Task.from_record(record)    task.preprocess → model → task.postprocess

Shapes are written [batch, channels, height, width]. This module may be imported without torch.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from headrace_models.catalog.cards import Arguments, TaskCard

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure

SHOWN = 16  # test samples that are drawn with what the model says of them
Example = dict[str, Any]  # one decoded sample: small arrays, uint8 where possible, so that it can be cached
Batch = dict[str, "torch.Tensor"]
Arrays = dict[str, "np.ndarray"]  # named arrays as requests and answers carry them; BYTES are dtype object


class WithAuxiliary(NamedTuple):
    """What a network may return while it trains: its output, and outputs of auxiliary heads that share the target.

    Each auxiliary output goes through the task's loss like the main one and counts by its weight. In evaluation and in
    serving a network returns the main output alone.
    """

    main: Any
    auxiliary: tuple[tuple[float, Any], ...]  # (weight, outputs)


class MultiTaskOutput(NamedTuple):
    """What a network gives that does several tasks at once."""

    outputs: dict[str, Any]  # by the task's name, as a network for that task alone would give them
    log_variances: dict[str, torch.Tensor]  # [1], of the tasks whose losses count by learned uncertainty


class BadInput(ValueError):
    """A request or sample that cannot be decoded; the message is one sentence for whoever sent it."""


@dataclass(frozen=True)
class Sample:
    """One row of a manifest together with what its URI holds.

    `payload` is bytes (one file: an image, a sound) or a mapping of column to value (a row of a table).
    """

    sample_id: str
    payload: bytes | Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """What the manifest knows of the data before a byte of it is decoded. Plain values only.

    `label`: the label column's name. `classes`: its values in order, for labels that are classes, as strings.
    `columns`: the feature columns of a table and their kinds (`number`, `category`), in order; empty elsewhere.
    """

    label: str | None = None
    classes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values. Columns are pairs, so that their order survives a canonical form."""
        return {"label": self.label, "classes": list(self.classes), "columns": [list(c) for c in self.columns.items()]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Schema:
        """The inverse of `to_record`."""
        return cls(record.get("label"), tuple(record.get("classes") or ()), dict(record.get("columns") or ()))


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of the V2 protocol. `shape` has -1 for the batch and other free sizes."""

    name: str
    datatype: str  # BYTES, FP32, INT64, UINT8, ...
    shape: tuple[int, ...]
    content: str = ""  # what BYTES hold: "image" (an encoded picture), "text" (UTF-8)

    def to_record(self) -> dict[str, Any]:
        """As V2 metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """What a served model takes and gives.

    `inputs` are the tensors a client should send. `alternatives` are other inputs accepted under the same names (raw
    pixels instead of an encoded image): a request must match `inputs` or one of the alternatives as a whole.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    alternatives: tuple[tuple[TensorSpec, ...], ...] = ()

    def to_record(self) -> dict[str, Any]:
        """As it stands in a package's headrace.json."""

        def listed(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
            return [{**spec.to_record(), "content": spec.content} for spec in specs]

        return {
            "inputs": listed(self.inputs),
            "outputs": listed(self.outputs),
            "alternatives": [listed(specs) for specs in self.alternatives],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Signature:
        """The inverse of `to_record`."""

        def specs(items: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(i["name"], i["datatype"], tuple(i["shape"]), i.get("content") or "") for i in items)

        return cls(
            specs(record["inputs"]),
            specs(record["outputs"]),
            tuple(specs(items) for items in record.get("alternatives") or ()),
        )


class Metrics(ABC):
    """Accumulates what is needed to judge one split, on each worker for its own shard."""

    @abstractmethod
    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in one batch: the model's outputs and the batch they belong to."""

    @abstractmethod
    def state(self) -> Any:
        """What has been accumulated, as picklable plain values and arrays."""

    @abstractmethod
    def merge(self, states: Sequence[Any]) -> None:
        """Replace what this holds by the sum of STATES (those of all workers, in rank order)."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Every metric of the task's card by name. Finite numbers only."""


class Task(ABC):
    """One kind of problem. Subclasses set `card`."""

    card: ClassVar[TaskCard]

    def __init__(self, args: Arguments, schema: Schema, preprocessing: Mapping[str, Any] | None = None) -> None:
        self.args = args
        self.schema = schema
        self.preprocessing: dict[str, Any] = dict(preprocessing or {})

    def to_record(self) -> dict[str, Any]:
        """This task with all it learned, as plain JSON values."""
        return {
            "name": self.card.name,
            "args": self.args.model_dump(mode="json"),
            "schema": self.schema.to_record(),
            "preprocessing": self.preprocessing,
        }

    # what the data teaches

    @abstractmethod
    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Mergeable statistics of one worker's training samples (sizes, sums, counts) as plain values."""

    @abstractmethod
    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Set `preprocessing` (plain JSON values) from the summaries of all workers, in rank order."""

    @abstractmethod
    def model_facts(self) -> dict[str, Any]:
        """What a network must know of this task: num_classes, in_channels, image_size, in_features, ..."""

    def loss_facts(self) -> dict[str, Any]:
        """What a loss may ask of this task: classes and how many training samples each has, where there are classes."""
        return {}

    # samples to batches

    @abstractmethod
    def decode(self, sample: Sample) -> Example:
        """Decode one sample with its labels. Raises BadInput."""

    def augment(self, example: Example, rng: random.Random) -> Example:
        """A random variation of a training example; RNG is seeded by (seed, epoch, sample): resumable."""
        return example

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack decoded examples into tensors on the CPU."""

    @abstractmethod
    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The model's positional inputs: normalised floats, on the batch's device."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """The mean loss of the batch, a scalar. LOSS is what the loss card's target built."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tasks: its own, or of those that are joined in it."""
        return (self.card.name,)

    def part(self, name: str) -> Task:
        """The task called NAME: this one, or one of those that are joined in it."""
        return self

    def loss_of(self, name: str, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """`total_loss` of the task called NAME."""
        return self.total_loss(outputs, batch, loss)

    def joined_loss(self, losses: Mapping[str, torch.Tensor], outputs: Any) -> torch.Tensor:
        """What is minimised, from the weighted sum of the LOSSES of each task by its name."""
        (loss,) = losses.values()
        return loss

    def total_loss(self, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """`loss` of OUTPUTS, plus that of the auxiliary ones by their weights where a network gives `WithAuxiliary`."""
        if not isinstance(outputs, WithAuxiliary):
            return self.loss(outputs, batch, loss)
        total = self.loss(outputs.main, batch, loss)
        for weight, auxiliary in outputs.auxiliary:
            total = total + weight * self.loss(auxiliary, batch, loss)
        return total

    # judging

    @abstractmethod
    def new_metrics(self) -> Metrics:
        """An empty accumulator."""

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """Pictures of an evaluation by file stem ("confusion_matrix")."""
        return {}

    def to_show(self, count: int, label: Callable[[int], Any]) -> Sequence[int]:
        """Which of the test split's COUNT samples `example_pictures` is to draw; LABEL gives that of one, as the
        manifest has it (annotations as JSON text)."""
        return range(min(SHOWN, count))

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """Pictures of the examples `to_show` with what the model says of them ("example_predictions"); bytes are a
        GIF."""
        return {}

    def explanations(self, model: torch.nn.Module, examples: Sequence[Example]) -> dict[str, Figure]:
        """More pictures of the same examples, for which MODEL itself is asked ("grad_cam"); it is in evaluation mode
        and is left as it was. Raises InvalidInput where it is none that can be asked: a note, no failure."""
        return {}

    # serving

    @abstractmethod
    def signature(self) -> Signature:
        """What the served model takes and gives."""

    @abstractmethod
    def preprocess(self, inputs: Arrays) -> Batch:
        """A request's arrays as a batch. Raises BadInput naming what is wrong and what is allowed."""

    @abstractmethod
    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """The model's outputs for BATCH (what `preprocess` gave) as the signature's output arrays, the batch along
        axis 0. What an answer needs of the request, such as the size of the picture that was sent, is in BATCH."""

    @abstractmethod
    def request(self, samples: Sequence[Sample]) -> Arrays:
        """Samples as the arrays a client would send (`inputs` of the signature)."""
