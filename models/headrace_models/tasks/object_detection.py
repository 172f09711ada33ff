"""Object detection: boxes and classes of the objects in each picture.

Facts for the network: `num_classes` (without a background), `in_channels` (1 or 3), `image_size` (height, width),
`anchor_sizes` (nine (width, height) in pixels of its input that the training objects gather around, smallest first).
It is called and answers as `headrace_models.detection.outputs` says. Pictures are stretched to the network's size, as
the papers of SSD and YOLO have it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from headrace.base.errors import DataInvalid, InvalidInput
from headrace_models.catalog.cards import Arguments, TaskCard
from headrace_models.catalog.detection_cards import DETECTION_TASKS, ObjectDetectionArguments
from headrace_models.detection.boxes import usual_sizes
from headrace_models.detection.outputs import PADDING, Detections, DetectorOutput, Targets
from headrace_models.detection.selective_search import selective_search
from headrace_models.tasks import box_pictures, pictures
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Metrics, Sample, Schema, Signature, TensorSpec
from headrace_models.tasks.detection_metrics import DetectionMetrics
from headrace_models.tasks.picture_task import (
    INPUT,
    Fitted,
    PictureMeasures,
    PictureTask,
    learn_pixels,
    median,
    only_size,
    picture_bytes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headrace_models.detection.loss import DetectionLoss

LARGEST, MULTIPLE = 320, 32  # pixels: the longer side of a learned size, and what each side is a multiple of
ANCHORS = 9  # sizes that are learned
SIZES = 5000  # objects of each worker whose sizes are looked at
FLAGS = ("ignore", "crowd")


class ObjectDetection(PictureTask):
    """See the module."""

    card: ClassVar[TaskCard] = next(card for card in DETECTION_TASKS if card.name == "object-detection")
    args: ObjectDetectionArguments

    def __init__(self, args: Arguments, schema: Schema, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__(args, schema, preprocessing)
        if not schema.classes:
            raise DataInvalid(
                f"{self.card.name} needs a class of objects or more; the data has none",
                action="check data.source and data.format: are there annotations beside the pictures?",
            )
        self.classes = schema.classes
        self._index = {name: place for place, name in enumerate(schema.classes)}

    # what the data teaches

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Sizes and pixels of pictures; how many objects each class has, and how large they are in shares of a side."""
        measures = PictureMeasures(samples)
        counts = [0] * len(self.classes)
        shares: list[list[float]] = []
        for sample in samples:
            image = pictures.decode(picture_bytes(sample))
            measures.add(image)
            found = self.objects_of(sample) or {}
            for label in found.get("labels", ()):
                counts[label] += 1
            for x1, y1, x2, y2 in found.get("boxes", ()):
                shares.append([float(x2 - x1) / image.width, float(y2 - y1) / image.height])
        every = -(-len(shares) // SIZES) or 1
        return {**measures.record(), "class_counts": counts, "shares": shares[::every]}

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Size, channels, normalisation and the usual sizes of objects."""
        pixels = learn_pixels(summaries, self.args.channels)
        shares = np.array([pair for part in summaries for pair in part["shares"]]).reshape(-1, 2)
        if not len(shares):
            raise DataInvalid(
                "the training split holds no object to be found", action="check data.split and the annotations"
            )
        height, width = self._size(summaries)
        anchors = usual_sizes(shares * [width, height], ANCHORS)
        self.preprocessing = {
            "image_size": [height, width],
            **pixels,
            "class_counts": np.sum([part["class_counts"] for part in summaries], axis=0).tolist(),
            "anchor_sizes": [[round(float(side), 2) for side in size] for size in anchors],
        }

    def _size(self, summaries: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        asked = self.args.image_size
        if asked is not None:
            return (asked, asked) if isinstance(asked, int) else (asked[0], asked[1])
        size = only_size(summaries) or (median(summaries, "heights"), median(summaries, "widths"))
        shrink = min(1.0, LARGEST / max(size))
        height, width = (max(1, round(side * shrink / MULTIPLE)) * MULTIPLE for side in size)
        return height, width

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        return {
            **self.picture_facts(),
            "num_classes": len(self.classes),
            "num_outputs": len(self.classes),
            "anchor_sizes": tuple(tuple(size) for size in self.preprocessing["anchor_sizes"]),
        }

    def loss_facts(self) -> dict[str, Any]:
        """The classes, and the training objects of each."""
        return {"classes": self.classes, "class_counts": self.preprocessing.get("class_counts") or ()}

    # samples to batches

    def objects_of(self, sample: Sample) -> dict[str, np.ndarray] | None:
        """`boxes` float32 [M, 4] in pixels of the upright picture, `labels` int64, `ignore` and `crowd` bool [M].

        None for a sample without an annotation.

        Raises:
            BadInput: an object's class is none of the data's, or its box is no box.
        """
        annotation = sample.labels.get(self.schema.label or "annotation")
        if annotation is None:
            return None
        names = annotation["names"]
        for name in names:
            if name not in self._index:
                raise BadInput(
                    f"{sample.sample_id} has a {name!r}, which is none of the {len(self.classes)} classes of the data"
                )
        boxes = np.array(annotation["boxes"], dtype=np.float32).reshape(-1, 4)
        if len(boxes) != len(names) or not (boxes[:, 2:] > boxes[:, :2]).all():
            raise BadInput(f"the annotation of {sample.sample_id} has boxes that are none, or not one for each name")
        nothing = [False] * len(names)
        crowd = np.array(annotation.get("crowd") or nothing, dtype=bool)
        difficult = np.array(annotation.get("difficult") or nothing, dtype=bool)
        labels = np.array([self._index[name] for name in names], dtype=np.int64)
        return {"boxes": boxes, "labels": labels, "ignore": difficult | crowd, "crowd": crowd}

    def decode(self, sample: Sample) -> Example:
        """`image` uint8 [channels, height, width], `size` (height, width) of the picture itself, `proposals` float32
        [P, 4] if they are asked for (rows of zeros are padding), and the objects as `objects_of` gives them; boxes in
        pixels of the network's input."""
        fitted = self.fitted(pictures.decode(picture_bytes(sample)))
        example = self._unlabelled(fitted)
        objects = self.objects_of(sample)
        if objects is None:
            return example
        (height, width), (own_height, own_width) = self.image_size, fitted.size
        factor = np.array([width / own_width, height / own_height] * 2, np.float32)
        return {**example, **objects, "boxes": objects["boxes"] * factor}

    def _unlabelled(self, fitted: Fitted) -> Example:
        example: Example = {INPUT: fitted.pixels, "size": np.array(fitted.size, np.int64)}
        if self.args.proposals == "selective-search":
            example["proposals"] = selective_search(fitted.pixels)
        return example

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The variation that `args.augment` names."""
        kind = self.args.augment
        if not isinstance(kind, str):
            return self.stepped(example, kind, rng)
        if kind.startswith("flip") and rng.random() < 0.5:
            example = box_pictures.mirrored(example)
        if kind.startswith("flips") and rng.random() < 0.5:
            example = box_pictures.upside_down(example)
        if kind.endswith("zoom"):
            fill = tuple(round(255 * value) for value in self.preprocessing["mean"])
            example = box_pictures.zoomed(example, rng, fill)
        return example

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`image` uint8 [batch, channels, height, width], `size` int64 [batch, 2]; `proposals` [batch, P, 4] where
        there are any; with labels `boxes` float32 [batch, M, 4], `labels` int64 (-1 is padding), `ignore`, `crowd`."""
        batch: Batch = {
            name: _stacked(examples, name) for name in ("image", "size", "proposals") if name in examples[0]
        }
        if any("boxes" not in example for example in examples):
            return batch
        most = max(1, *(len(example["boxes"]) for example in examples))
        boxes = torch.zeros(len(examples), most, 4)
        labels = torch.full((len(examples), most), PADDING, dtype=torch.int64)
        flags = {name: torch.zeros(len(examples), most, dtype=torch.bool) for name in FLAGS}
        for row, example in enumerate(examples):
            count = len(example["boxes"])
            boxes[row, :count] = torch.from_numpy(example["boxes"])
            labels[row, :count] = torch.from_numpy(example["labels"])
            for name, flag in flags.items():
                flag[row, :count] = torch.from_numpy(example[name])
        return {**batch, "boxes": boxes, "labels": labels, **flags}

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """The normalised pictures, their objects where they are known, their proposals where there are any."""
        image = self.normalised(batch["image"])
        targets = Targets(batch["boxes"], batch["labels"], batch["ignore"]) if "boxes" in batch else None
        if "proposals" in batch:
            return image, targets, batch["proposals"]
        return (image,) if targets is None else (image, targets)

    # judging

    def output_of(self, outputs: Any) -> DetectorOutput:
        """OUTPUTS if they are a detector's.

        Raises:
            InvalidInput: they are anything else.
        """
        if isinstance(outputs, DetectorOutput):
            return outputs
        raise InvalidInput(
            f"the model gave a {type(outputs).__name__}, where a DetectorOutput is wanted",
            action="return headrace_models.detection.outputs.DetectorOutput(losses, detections)",
        )

    def detections(self, outputs: Any) -> Detections:
        """What the detector found. Raises InvalidInput where it gave nothing."""
        found = self.output_of(outputs).detections
        if found is None:
            raise InvalidInput("the model gave no detections in evaluation", action="give them while not self.training")
        return found

    def loss(self, outputs: Any, batch: Batch, loss: DetectionLoss) -> torch.Tensor:
        """The weighted sum of the detector's own losses."""
        losses = self.output_of(outputs).losses
        if not losses:
            raise InvalidInput("the model gave no losses for its targets", action="give them where targets are given")
        total: torch.Tensor = loss(losses)
        return total

    def new_metrics(self) -> Metrics:
        """See `DetectionMetrics`; boxes are judged in the input's pixels, since stretching changes no overlap."""
        return DetectionMetrics(len(self.classes))

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """The precision-recall curve of each class, and the table of average precisions."""
        from headrace_models.tasks import detection_plots

        assert isinstance(metrics, DetectionMetrics)
        return {
            "precision_recall": detection_plots.precision_recall(metrics, self.classes),
            "average_precision": detection_plots.average_precision(metrics, self.classes),
        }

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """`example_predictions`: the pictures with what was found, and what there is."""
        from headrace_models.tasks import detection_plots

        if not examples:
            return {}
        found = [part.cpu().numpy() for part in self.detections(outputs)]
        return {"example_predictions": detection_plots.drawn_boxes(examples, found, self.classes)}

    # serving

    def signature(self) -> Signature:
        """Encoded pictures or raw pixels; boxes in pixels of the picture that was sent, best first, `count` of them;
        the rows beyond are zeros and empty labels."""
        return Signature(
            inputs=(self.encoded_input(),),
            outputs=(
                TensorSpec("boxes", "FP32", (-1, -1, 4)),
                TensorSpec("scores", "FP32", (-1, -1)),
                TensorSpec("labels", "BYTES", (-1, -1), "text"),
                TensorSpec("count", "INT64", (-1,)),
            ),
            alternatives=((self.pixel_input(),),),
        )

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`; each row of `image` is one picture."""
        rows = self.fitted_rows(self.given_pictures(inputs))
        return self.collate([self._unlabelled(row) for row in rows])

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """What the signature says."""
        boxes, scores, labels = (part.cpu().numpy() for part in self.detections(outputs))
        return self.answer(boxes, scores, labels, batch)

    def answer(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, batch: Batch) -> Arrays:
        """BOXES [batch, N, 4] in pixels of the network's input, SCORES and LABELS [batch, N], as they are answered."""
        (height, width), sizes = self.image_size, batch["size"].cpu().numpy()
        factor = np.stack([sizes[:, 1] / width, sizes[:, 0] / height] * 2, axis=1).astype(np.float32)
        names = np.array([*self.classes, ""], dtype=object)  # the last one is PADDING's
        return {
            "boxes": boxes.astype(np.float32) * factor[:, None],
            "scores": scores.astype(np.float32),
            "labels": names[labels],
            "count": (labels != PADDING).sum(axis=1).astype(np.int64),
        }


def _stacked(examples: Sequence[Example], name: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([example[name] for example in examples]))
