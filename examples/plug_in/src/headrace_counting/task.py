"""The task: pictures in, one number out. All that trainer, evaluator and server know of counting is this class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from headrace_counting.cards import CountingArguments, task
from headrace_models.catalog.cards import TaskCard
from headrace_models.tasks.base import (
    Arrays,
    BadInput,
    Batch,
    Example,
    Metrics,
    Sample,
    Signature,
    Task,
    TensorSpec,
)


class CountingMetrics(Metrics):
    """mae: the mean distance from the true count; exact: the share of pictures whose rounded count is right."""

    def __init__(self) -> None:
        self.sums = np.zeros(3)  # samples, absolute errors, exact ones

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in counts [batch]."""
        error = (outputs.double() - batch["count"].double()).abs().cpu().numpy()
        self.sums += [len(error), error.sum(), (error < 0.5).sum()]

    def state(self) -> Any:
        """The sums."""
        return self.sums

    def merge(self, states: Sequence[Any]) -> None:
        """Add up those of all workers."""
        self.sums = np.sum(states, axis=0)

    def compute(self) -> dict[str, float]:
        """Both metrics; none where there was no sample."""
        samples, errors, exact = self.sums.tolist()
        return {"mae": errors / samples, "exact": exact / samples} if samples else {}


class Counting(Task):
    """How many dots are in a picture. The network gives counts [batch]."""

    card: ClassVar[TaskCard] = task()
    args: CountingArguments

    # what the data teaches

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """How bright pixels are."""
        pixels = [self._pixels(sample.payload) / 255 for sample in samples]
        return {"pictures": len(pixels), "sum": float(sum(p.mean() for p in pixels))}

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """The mean brightness, which is taken off."""
        pictures = sum(part["pictures"] for part in summaries)
        self.preprocessing = {"mean": sum(part["sum"] for part in summaries) / pictures}

    def model_facts(self) -> dict[str, Any]:
        """What a network may ask for."""
        return {"in_channels": 1, "image_size": (self.args.image_size, self.args.image_size)}

    # samples to batches

    def decode(self, sample: Sample) -> Example:
        """`image` uint8 [1, height, width], and `count` where the sample is labelled."""
        label = sample.labels.get(self.schema.label or "label")
        example: Example = {"image": self._pixels(sample.payload)}
        return example if label is None else {**example, "count": float(label)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`image` uint8 [batch, 1, height, width] and `count` float32 [batch]."""
        batch = {"image": torch.from_numpy(np.stack([example["image"] for example in examples]))}
        if all("count" in example for example in examples):
            batch["count"] = torch.tensor([example["count"] for example in examples], dtype=torch.float32)
        return batch

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Pictures around 0, on the batch's device."""
        return (batch["image"] / 255 - self.preprocessing["mean"],)

    def loss(self, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        """The mean loss of the counts."""
        value: torch.Tensor = loss(outputs, batch["count"])
        return value

    def new_metrics(self) -> Metrics:
        """See `CountingMetrics`."""
        return CountingMetrics()

    # serving

    def signature(self) -> Signature:
        """Encoded pictures to counts."""
        image = TensorSpec("image", "BYTES", (-1,), "image")
        return Signature((image,), (TensorSpec("count", "FP32", (-1,)),))

    def preprocess(self, inputs: Arrays) -> Batch:
        """A request's pictures, as `collate` has them."""
        if set(inputs) != {"image"}:
            raise BadInput(f"the inputs are {', '.join(inputs) or 'none'}; wanted is one named 'image'")
        return self.collate([{"image": self._pixels(picture)} for picture in inputs["image"].ravel()])

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """`count` float32 [batch]: no fewer than 0."""
        return {"count": outputs.float().clamp(min=0).cpu().numpy()}

    def request(self, samples: Sequence[Sample]) -> Arrays:
        """The encoded pictures."""
        pictures = np.empty(len(samples), dtype=object)
        pictures[:] = [sample.payload for sample in samples]
        return {"image": pictures}

    def _pixels(self, encoded: Any) -> np.ndarray:
        """uint8 [1, image_size, image_size] of an encoded picture, in grey."""
        try:
            with Image.open(io.BytesIO(encoded)) as picture:
                grey = picture.convert("L").resize((self.args.image_size,) * 2)
        except (UnidentifiedImageError, OSError, TypeError) as error:
            raise BadInput(f"this is no picture: {error}") from None
        return np.asarray(grey)[None]
