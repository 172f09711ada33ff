"""Semantic segmentation: a class for each pixel.

Class 0 is the background, class k the kth of the data's classes in their order. Facts for the network: `num_classes`
(with the background, also as `num_outputs`), `in_channels`, `image_size`. Its output are scores `[batch, num_classes,
height, width]`.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from headrace.base.errors import DataInvalid, InvalidInput
from headrace_models.catalog.cards import Arguments, TaskCard
from headrace_models.catalog.segmentation_cards import SEGMENTATION_TASKS, SemanticSegmentationArguments
from headrace_models.layers.losses import IGNORED, Loss
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Metrics, Sample, Schema, Signature, TensorSpec
from headrace_models.tasks.picture_task import INPUT, Fitted, PictureTask, learn_pixels
from headrace_models.tasks.picture_variation import varied
from headrace_models.tasks.segmentation_metrics import SegmentationMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNKNOWN = 255  # in masks: pixels that do not count
BACKGROUND = "background"


class SemanticSegmentation(PictureTask):
    """See the module."""

    card: ClassVar[TaskCard] = next(card for card in SEGMENTATION_TASKS if card.name == "semantic-segmentation")
    args: SemanticSegmentationArguments

    def __init__(self, args: Arguments, schema: Schema, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__(args, schema, preprocessing)
        if not schema.classes:
            raise DataInvalid(
                f"{self.card.name} needs a class or more; the data has none",
                action="check data.source and data.format: are there annotations beside the pictures?",
            )
        self.classes = (BACKGROUND, *schema.classes)

    # what the data teaches

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Size, channels and normalisation, as the arguments say or from the pictures."""
        pixels = learn_pixels(summaries, self.args.channels)
        self.preprocessing = {"image_size": list(self.usual_size(summaries, self.args.image_size)), **pixels}

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        return {**self.picture_facts(), "num_classes": len(self.classes), "num_outputs": len(self.classes)}

    def loss_facts(self) -> dict[str, Any]:
        """The classes, the background first."""
        return {"classes": self.classes}

    # samples to batches

    def labelled(self, sample: Sample, fitted: Fitted) -> Example:
        """`mask` uint8 [height, width] of the network's size, UNKNOWN where a pixel does not count.

        Raises:
            BadInput: the annotation has no mask, or none of this picture.
        """
        annotation = sample.labels.get(self.schema.label or "annotation")
        if annotation is None:
            return {}
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("mask"), bytes):
            raise BadInput(f"the annotation of {sample.sample_id} has no mask")
        try:
            with Image.open(io.BytesIO(annotation["mask"])) as mask:
                size = (mask.height, mask.width)
                height, width = self.image_size
                pixels = np.asarray(mask.convert("L").resize((width, height), Image.Resampling.NEAREST))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise BadInput(f"the mask of {sample.sample_id} cannot be decoded: {error}") from None
        if size != fitted.size:
            raise BadInput(f"the mask of {sample.sample_id} is {size[1]} x {size[0]}, the picture is not")
        if ((pixels != UNKNOWN) & (pixels >= len(self.classes))).any():
            raise BadInput(f"the mask of {sample.sample_id} has a class beyond {len(self.classes) - 1}")
        return {"mask": pixels}

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The variation that `args.augment` names, of the picture and its mask alike."""
        chosen = self.args.augment
        return varied(example, chosen, rng) if isinstance(chosen, str) else self.stepped(example, chosen, rng)

    def label_tensors(self, examples: Sequence[Example]) -> Batch:
        """`mask` int64 [batch, height, width], IGNORED where a pixel does not count; nothing where some have none."""
        if any("mask" not in example for example in examples):
            return {}
        mask = torch.from_numpy(np.stack([example["mask"] for example in examples]).astype(np.int64))
        return {"mask": mask.masked_fill(mask == UNKNOWN, IGNORED)}

    # outputs

    def scores(self, outputs: Any) -> torch.Tensor:
        """OUTPUTS if they are scores [batch, classes, height, width].

        Raises:
            InvalidInput: they are anything else.
        """
        wanted = (len(self.classes), *self.image_size)
        if isinstance(outputs, torch.Tensor) and tuple(outputs.shape[1:]) == wanted:
            return outputs
        given = f"shape {list(outputs.shape)}" if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        raise InvalidInput(
            f"the model gave {given}, where scores of shape [batch, {', '.join(map(str, wanted))}] are wanted",
            action="let the last layer have `num_classes` channels at the picture's size, and no softmax after it",
        )

    def loss(self, outputs: Any, batch: Batch, loss: Loss) -> torch.Tensor:
        """The mean LOSS of the pixels that count; one over whole samples where the loss is made so (dice)."""
        scores, mask = self.scores(outputs), batch["mask"]
        if loss.whole_samples:
            whole: torch.Tensor = loss(scores, mask)
            return whole
        known = mask != IGNORED
        if not known.any():
            return scores.sum() * 0.0
        each: torch.Tensor = loss(scores.movedim(1, -1)[known], mask[known])
        return each

    # judging

    def new_metrics(self) -> Metrics:
        """See `SegmentationMetrics`."""
        return SegmentationMetrics(len(self.classes))

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """`iou`: that of each class."""
        from headrace_models.tasks import segmentation_plots

        assert isinstance(metrics, SegmentationMetrics)
        return {"iou": segmentation_plots.iou_bars(metrics, self.classes)}

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """`example_masks`: the pictures, their masks, and the model's."""
        from headrace_models.tasks import segmentation_plots

        if not examples:
            return {}
        said = self.scores(outputs).argmax(dim=1).cpu().numpy()
        return {"example_masks": segmentation_plots.masks(examples, said, self.classes)}

    # serving

    def output_specs(self) -> tuple[TensorSpec, ...]:
        """`mask`: class numbers at the network's size."""
        return (TensorSpec("mask", "UINT8", (-1, *self.image_size)),)

    def signature(self) -> Signature:
        """Encoded pictures or raw pixels; a mask at the network's size."""
        return Signature((self.encoded_input(),), self.output_specs(), ((self.pixel_input(),),))

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`; each row of `image` is one picture."""
        rows = self.fitted_rows(self.given_pictures(inputs))
        return self.collate([{INPUT: row.pixels} for row in rows])

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """What the signature says."""
        return {"mask": self.scores(outputs).argmax(dim=1).to(torch.uint8).cpu().numpy()}
