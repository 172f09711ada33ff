"""What all classification has in common, whatever is classified: labels, loss, metrics, plots and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from headrace.base.errors import DataInvalid, InvalidInput
from headrace_models.catalog.cards import Arguments
from headrace_models.tasks.base import Arrays, BadInput, Batch, Metrics, Sample, Schema, Task, TensorSpec
from headrace_models.tasks.judging import ClassificationMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headrace_models.layers.losses import Loss

TOLD = 5  # classes that an answer tells by name, the likeliest first


class Classification(Task):
    """Outputs of the network are scores `[batch, classes]`; labels are indices, `batch["label"]` `[batch]`."""

    def __init__(self, args: Arguments, schema: Schema, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__(args, schema, preprocessing)
        if len(schema.classes) < 2:
            raise DataInvalid(
                f"{self.card.name} needs two classes or more; the data has {len(schema.classes)}"
                + (f" ({schema.classes[0]})" if schema.classes else ""),
                action="check data.source and data.label",
            )
        self.classes = schema.classes
        self._index = {name: place for place, name in enumerate(schema.classes)}

    # labels

    def label_of(self, sample: Sample) -> int | None:
        """The class's index, or None for a sample without a label.

        Raises:
            BadInput: the label is none of the classes.
        """
        value = sample.labels.get(self.schema.label or "label")
        if value is None:
            return None
        if isinstance(value, Mapping):  # an annotation, whose objects are all of one class
            value = next(iter(value["names"]), None)
        if str(value) not in self._index:
            raise BadInput(f"the label {value!r} of {sample.sample_id} is none of the {len(self.classes)} classes")
        return self._index[str(value)]

    def count_labels(self, labels: Iterable[int | None]) -> list[int]:
        """How many of LABELS each class has."""
        counts = [0] * len(self.classes)
        for label in labels:
            if label is not None:
                counts[label] += 1
        return counts

    def loss_facts(self) -> dict[str, Any]:
        """The classes, and the training samples of each."""
        return {"classes": self.classes, "class_counts": self.preprocessing.get("class_counts") or ()}

    # outputs

    def scores(self, outputs: Any) -> torch.Tensor:
        """The network's OUTPUTS if they are scores `[batch, classes]`.

        Raises:
            InvalidInput: they are anything else.
        """
        if isinstance(outputs, torch.Tensor) and outputs.ndim == 2 and outputs.shape[1] == len(self.classes):
            return outputs
        given = f"shape {list(outputs.shape)}" if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        raise InvalidInput(
            f"the model gave {given}, where scores of shape [batch, {len(self.classes)}] are wanted",
            action="let the last layer have `num_classes` outputs, and no softmax after it",
        )

    def loss(self, outputs: Any, batch: Batch, loss: Loss) -> torch.Tensor:
        """The mean LOSS; one over values compares the probabilities with 0 and 1."""
        scores, label = self.scores(outputs), batch["label"]
        if loss.takes == "classes":
            return cast("torch.Tensor", loss(scores, label))
        wanted = torch.nn.functional.one_hot(label, len(self.classes)).float()
        return cast("torch.Tensor", loss(scores.float().softmax(dim=1), wanted))

    def new_metrics(self) -> Metrics:
        """See `ClassificationMetrics`."""
        return ClassificationMetrics(len(self.classes))

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """The confusion matrix, the precision-recall curves, and a table of the classes' own measures."""
        from headrace_models.tasks import plots

        assert isinstance(metrics, ClassificationMetrics)
        return {
            "confusion_matrix": plots.confusion_matrix(metrics, self.classes),
            "precision_recall": plots.precision_recall(metrics, self.classes),
            "class_report": plots.class_report(metrics, self.classes),
        }

    def output_specs(self) -> tuple[TensorSpec, ...]:
        """label, score, probabilities, top_labels, top_scores."""
        told = min(TOLD, len(self.classes))
        return (
            TensorSpec("label", "BYTES", (-1,), "text"),
            TensorSpec("score", "FP32", (-1,)),
            TensorSpec("probabilities", "FP32", (-1, len(self.classes))),
            TensorSpec("top_labels", "BYTES", (-1, told), "text"),
            TensorSpec("top_scores", "FP32", (-1, told)),
        )

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """The likeliest class (`label`, str), its probability (`score`), and those of all classes in order; the TOLD
        likeliest classes, or all if there are fewer, and their probabilities, the likeliest first. Equally likely ones
        come in the order of the classes, so that `label` is the class that the metrics judge."""
        given = self.scores(outputs)
        probabilities = given.float().softmax(dim=1)
        ranked = given.double().log_softmax(dim=1).sort(dim=1, descending=True, stable=True).indices[:, :TOLD]
        scores, places = probabilities.gather(1, ranked).cpu().numpy(), ranked.cpu().numpy()
        labels = np.array(self.classes, dtype=object)[places]
        return {
            "label": np.ascontiguousarray(labels[:, 0]),
            "score": np.ascontiguousarray(scores[:, 0]),
            "probabilities": probabilities.cpu().numpy(),
            "top_labels": labels,
            "top_scores": scores,
        }

    def label_tensor(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`{"label": int64 [batch]}` where all EXAMPLES have one, else nothing."""
        labels = [example.get("label") for example in examples]
        return {} if None in labels else {"label": torch.tensor(labels, dtype=torch.int64)}
