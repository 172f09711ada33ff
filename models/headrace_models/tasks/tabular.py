"""Tables: a class or a number for each row.

Facts for the network: `in_features` (inputs after encoding), `num_outputs` (classes, or 1), and `num_classes` where
there are classes. Its input is float32 `[batch, in_features]`; its output scores `[batch, num_classes]`, or the
standardised target `[batch, 1]` or `[batch]`. See `headrace_models.tasks.columns` for how columns become inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from headrace.base.errors import DataInvalid, InvalidInput
from headrace_models.catalog.cards import Arguments, TaskCard
from headrace_models.catalog.task_cards import TASKS, TabularArguments
from headrace_models.tasks import columns
from headrace_models.tasks.base import (
    Arrays,
    BadInput,
    Batch,
    Example,
    Metrics,
    Sample,
    Schema,
    Signature,
    Task,
    TensorSpec,
)
from headrace_models.tasks.classification import Classification
from headrace_models.tasks.judging import RegressionMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headrace_models.layers.losses import Loss


class Tabular(Task):
    """What both tabular tasks share: features, and requests with one input a column."""

    args: TabularArguments

    def __init__(self, args: Arguments, schema: Schema, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__(args, schema, preprocessing)
        if not schema.columns:
            raise DataInvalid(f"{self.card.name} needs a feature column or more", action="check data.features")
        self._encoder: columns.Encoder | None = None

    @property
    def encoder(self) -> columns.Encoder:
        """What was learned, as a function of rows."""
        if self._encoder is None:
            self._encoder = columns.Encoder(self.preprocessing["columns"])
        return self._encoder

    def learn_columns(self, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """How each column becomes inputs."""
        if sum(part["count"] for part in summaries) == 0:
            raise DataInvalid("the training split holds no row", action="check data.split and data.source")
        self._encoder = None
        return columns.learn(summaries, self.schema.columns, self.args.max_categories)

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The encoded rows."""
        return (batch["features"],)

    def features(self, examples: Sequence[Example]) -> torch.Tensor:
        """float32 `[batch, in_features]`."""
        return torch.from_numpy(np.stack([example["features"] for example in examples]))

    # serving

    def input_sets(self) -> tuple[tuple[TensorSpec, ...], ...]:
        """FP64 and BYTES columns `[batch]` first; then all numbers as FP32 or INT64, and columns as `[batch, 1]`."""
        return tuple(
            tuple(
                TensorSpec(name, datatype, shape)
                if kind == "number"
                else TensorSpec(name, "BYTES", shape, content="text")
                for name, kind in self.schema.columns.items()
            )
            for shape in ((-1,), (-1, 1))
            for datatype in ("FP64", "FP32", "INT64")
        )

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`; each input is a column, the batch along axis 0."""
        wanted = list(self.schema.columns)
        if unknown := sorted(set(inputs) - set(wanted)):
            raise BadInput(f"there is no column {unknown[0]!r}; the columns are {', '.join(wanted)}")
        if missing := [name for name in wanted if name not in inputs]:
            raise BadInput(f"the column {missing[0]!r} is missing; the columns are {', '.join(wanted)}")
        flat = {name: _flat(name, inputs[name], self.schema.columns[name]) for name in wanted}
        counts = {len(array) for array in flat.values()}
        if len(counts) != 1 or counts == {0}:
            raise BadInput(f"all columns must have the same number of rows, at least 1; given are {sorted(counts)}")
        return {"features": torch.from_numpy(self.encoder.rows(flat, counts.pop()))}

    def request(self, samples: Sequence[Sample]) -> Arrays:
        """One array a column: FP64 with NaN for missing numbers, text with "" for missing categories."""
        rows = [_row(sample) for sample in samples]
        arrays: Arrays = {}
        for name, kind in self.schema.columns.items():
            if kind == "number":
                arrays[name] = np.array([columns.number(row.get(name), name) for row in rows], dtype=np.float64)
            else:
                arrays[name] = np.empty(len(rows), dtype=object)
                arrays[name][:] = [columns.text(row.get(name)) or "" for row in rows]
        return arrays


class TabularClassification(Tabular, Classification):
    """One class for each row."""

    card: ClassVar[TaskCard] = next(card for card in TASKS if card.name == "tabular-classification")

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Moments of numbers, counts of categories and classes."""
        labels: list[int | None] = []

        def rows() -> Iterable[Mapping[str, Any]]:
            for sample in samples:
                labels.append(self.label_of(sample))
                yield _row(sample)

        summary = columns.summarise(rows(), self.schema.columns)
        return {"count": len(labels), "class_counts": self.count_labels(labels), **summary}

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """The columns' encoding and the classes' counts."""
        self.preprocessing = {
            "columns": self.learn_columns(summaries),
            "class_counts": np.sum([part["class_counts"] for part in summaries], axis=0).tolist(),
        }

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        classes = len(self.classes)
        return {"in_features": self.encoder.width, "num_outputs": classes, "num_classes": classes}

    def decode(self, sample: Sample) -> Example:
        """`{"features": float32 [in_features], "label": int}`; no label where the sample has none."""
        example: Example = {"features": self.encoder.row(_row(sample))}
        label = self.label_of(sample)
        return example if label is None else {**example, "label": label}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`{"features": float32 [batch, in_features], "label": int64 [batch]}`."""
        return {"features": self.features(examples), **self.label_tensor(examples)}

    def signature(self) -> Signature:
        """One input a column; label, score and probabilities."""
        first, *rest = self.input_sets()
        return Signature(first, self.output_specs(), tuple(rest))


class TabularRegression(Tabular):
    """One number for each row. The network learns the target standardised; metrics and answers are in its own unit."""

    card: ClassVar[TaskCard] = next(card for card in TASKS if card.name == "tabular-regression")

    def _target(self, sample: Sample) -> float | None:
        value = sample.labels.get(self.schema.label or "label")
        if value is None:
            return None
        target = columns.number(value, self.schema.label or "label")
        if target != target:
            raise BadInput(f"the label of {sample.sample_id} is missing or not finite")
        return target

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Moments of numbers and of the target, counts of categories."""
        moments = columns.Moments()
        count = 0

        def rows() -> Iterable[Mapping[str, Any]]:
            nonlocal count
            for sample in samples:
                count += 1
                target = self._target(sample)
                if target is not None:
                    moments.add(target)
                yield _row(sample)

        summary = columns.summarise(rows(), self.schema.columns)
        return {"count": count, "target": moments.to_record(), **summary}

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """The columns' encoding and the target's mean and scale."""
        moments = columns.Moments.merged(part["target"] for part in summaries)
        self.preprocessing = {
            "columns": self.learn_columns(summaries),
            "target": {"mean": moments.mean, "scale": moments.scale},
        }

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        return {"in_features": self.encoder.width, "num_outputs": 1}

    def decode(self, sample: Sample) -> Example:
        """`{"features": float32 [in_features], "target": float}`, standardised; no target where there is no label."""
        example: Example = {"features": self.encoder.row(_row(sample))}
        target = self._target(sample)
        if target is None:
            return example
        learned = self.preprocessing["target"]
        return {**example, "target": (target - learned["mean"]) / learned["scale"]}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`{"features": float32 [batch, in_features], "target": float32 [batch]}`."""
        targets = [example.get("target") for example in examples]
        labels = {} if None in targets else {"target": torch.tensor(targets, dtype=torch.float32)}
        return {"features": self.features(examples), **labels}

    def values(self, outputs: Any) -> torch.Tensor:
        """The network's OUTPUTS as `[batch]`.

        Raises:
            InvalidInput: they are anything but `[batch]` or `[batch, 1]`.
        """
        if isinstance(outputs, torch.Tensor) and (outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)):
            return outputs.flatten()
        given = f"shape {list(outputs.shape)}" if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        raise InvalidInput(
            f"the model gave {given}, where one value a row, [batch, 1], is wanted",
            action="let the last layer have `num_outputs` outputs",
        )

    def loss(self, outputs: Any, batch: Batch, loss: Loss) -> torch.Tensor:
        """The mean LOSS of the standardised values."""
        mean: torch.Tensor = loss(self.values(outputs), batch["target"])
        return mean

    def new_metrics(self) -> Metrics:
        """See `RegressionMetrics`."""
        learned = self.preprocessing["target"]
        return RegressionMetrics(learned["mean"], learned["scale"])

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """Predictions over true values."""
        from headrace_models.tasks import plots

        assert isinstance(metrics, RegressionMetrics)
        return {"predicted_by_true": plots.predicted_by_true(metrics, self.schema.label or "value")}

    def signature(self) -> Signature:
        """One input a column; `prediction` in the target's unit."""
        first, *rest = self.input_sets()
        return Signature(first, (TensorSpec("prediction", "FP64", (-1,)),), tuple(rest))

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """The prediction in the target's unit."""
        learned = self.preprocessing["target"]
        standard = self.values(outputs).double().cpu().numpy()
        return {"prediction": standard * learned["scale"] + learned["mean"]}


def _row(sample: Sample) -> Mapping[str, Any]:
    if isinstance(sample.payload, bytes):
        raise BadInput(f"{sample.sample_id} is a file, not a row of a table")
    return sample.payload


def _flat(name: str, array: np.ndarray, kind: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise BadInput(f"the column {name!r} has shape {list(array.shape)}; allowed: [batch] or [batch, 1]")
    if kind == "number" and array.dtype.kind not in "fiubO":
        raise BadInput(f"the column {name!r} has type {array.dtype}; allowed are numbers")
    return array
