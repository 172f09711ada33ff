"""Image classification: one class for each picture.

Facts for the network: `num_classes` (also as `num_outputs`), `in_channels` (1 or 3), `image_size` (height, width),
`in_features` (their product). Its input is float32 `[batch, in_channels, height, width]`, each channel normalised to
mean 0 and variance 1 over the training pictures; its output scores `[batch, num_classes]`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from headrace_models.catalog.cards import TaskCard
from headrace_models.catalog.task_cards import TASKS, ImageClassificationArguments
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Metrics, Sample, Signature, TensorSpec
from headrace_models.tasks.classification import Classification
from headrace_models.tasks.grad_cam import grad_cam
from headrace_models.tasks.judging import ClassificationMetrics
from headrace_models.tasks.picture_task import INPUT, Fitted, PictureTask, learn_pixels
from headrace_models.tasks.picture_variation import varied

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ImageClassification(PictureTask, Classification):
    """See the module."""

    card: ClassVar[TaskCard] = next(card for card in TASKS if card.name == "image-classification")
    args: ImageClassificationArguments

    # what the data teaches

    def noted(self, sample: Sample) -> int | None:
        """The class's index."""
        return self.label_of(sample)

    def label_summary(self, noted: Sequence[int | None]) -> dict[str, Any]:
        """How many pictures each class has."""
        return {"class_counts": self.count_labels(noted)}

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Size, channels and normalisation, as the arguments say or from the pictures."""
        pixels = learn_pixels(summaries, self.args.channels)
        self.preprocessing = {
            "image_size": list(self.usual_size(summaries, self.args.image_size)),
            **pixels,
            "class_counts": np.sum([part["class_counts"] for part in summaries], axis=0).tolist(),
        }

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        height, width = self.image_size
        return {
            "num_classes": len(self.classes),
            "num_outputs": len(self.classes),
            **self.picture_facts(),
            "in_features": self.preprocessing["channels"] * height * width,
        }

    # samples to batches

    def labelled(self, sample: Sample, fitted: Fitted) -> Example:
        """`label`, an index."""
        label = self.label_of(sample)
        return {} if label is None else {"label": label}

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The variation that `args.augment` names; what a shift uncovers repeats the edge."""
        chosen = self.args.augment
        return varied(example, chosen, rng) if isinstance(chosen, str) else self.stepped(example, chosen, rng)

    def label_tensors(self, examples: Sequence[Example]) -> Batch:
        """`label` int64 [batch]."""
        return self.label_tensor(examples)

    # judging

    def new_metrics(self) -> Metrics:
        """See `ClassificationMetrics`; with `top5_accuracy`."""
        return ClassificationMetrics(len(self.classes), top=5)

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """`example_predictions`: the pictures with what the model says of them."""
        return {"example_predictions": self._drawn(examples, self.scores(outputs).argmax(dim=1))} if examples else {}

    def explanations(self, model: nn.Module, examples: Sequence[Example]) -> dict[str, Figure]:
        """`grad_cam`, if it is asked for: the pictures under what speaks for the class that each is taken for."""
        if self.args.explain == "none" or not examples:
            return {}
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        (pictures,) = self.inputs({INPUT: self.collate(examples)[INPUT].to(device)})
        maps, said = grad_cam(model, lambda x: self.scores(model(x)), pictures, self.args.explain_layer)
        return {"grad_cam": self._drawn(examples, said, list(maps.cpu().numpy()))}

    def _drawn(self, examples: Sequence[Example], said: torch.Tensor, heat: list[np.ndarray] | None = None) -> Figure:
        from headrace_models.tasks import plots

        names = [self.classes[place] for place in said.tolist()]
        true = [self.classes[example["label"]] if "label" in example else None for example in examples]
        return plots.predicted_pictures([example["image"] for example in examples], true, names, heat)

    # serving

    def signature(self) -> Signature:
        """Encoded pictures (BYTES), or raw pixels: UINT8 of any size with the channels last, or FP32 as the network's
        own size with the channels first, from 0 to 1."""
        shape = (-1, self.preprocessing["channels"], *self.image_size)
        return Signature(
            inputs=(self.encoded_input(),),
            outputs=self.output_specs(),
            alternatives=((self.pixel_input(),), (TensorSpec(INPUT, "FP32", shape),)),
        )

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`; each row of `image` is one picture."""
        given = self.given_pictures(inputs)
        if given.dtype in (np.float32, np.float64, np.float16):
            return {"image": torch.from_numpy(self._floats(given))}
        rows = self.fitted_rows(given, "BYTES (an encoded picture), UINT8, FP32")
        return self.collate([{INPUT: row.pixels} for row in rows])

    def _floats(self, given: np.ndarray) -> np.ndarray:
        wanted = (self.preprocessing["channels"], *self.image_size)
        if given.shape[1:] != wanted:
            raise BadInput(
                f"FP32 pixels have shape [batch, {', '.join(map(str, wanted))}]; given is {list(given.shape)}"
            )
        if not (np.isfinite(given).all() and given.min() >= 0 and given.max() <= 1):
            raise BadInput("FP32 pixels go from 0 to 1; there are others")
        pixels: np.ndarray = np.rint(given * 255).astype(np.uint8)  # 8 bits, as all that the model was trained on
        return pixels
