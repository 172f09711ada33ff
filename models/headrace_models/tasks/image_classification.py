"""Image classification: one class for each picture.

Facts for the network: `num_classes` (also as `num_outputs`), `in_channels` (1 or 3), `image_size` (height, width),
`in_features` (their product). Its input is float32 `[batch, in_channels, height, width]`, each channel normalised to
mean 0 and variance 1 over the training pictures; its output scores `[batch, num_classes]`.
"""

from __future__ import annotations

import operator
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from headrace.base.errors import DataInvalid
from headrace_models.catalog.cards import TaskCard
from headrace_models.catalog.task_cards import TASKS, ImageClassificationArguments
from headrace_models.tasks import pictures
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Sample, Signature, TensorSpec
from headrace_models.tasks.classification import Classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUT = "image"
SMALLEST, LARGEST, MULTIPLE = 32, 224, 8  # pixels: bounds of a learned size where pictures differ
MEASURED = 2000  # pictures of each worker whose pixels are measured; sizes and modes are taken of all


class ImageClassification(Classification):
    """See the module."""

    card: ClassVar[TaskCard] = next(card for card in TASKS if card.name == "image-classification")
    args: ImageClassificationArguments
    _made: tuple[Any, tuple[torch.Tensor, torch.Tensor]] | None = None

    # what the data teaches

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Sizes, grey or not, classes, and means of pixels in grey and in colour (each picture counts alike)."""
        every = max(1, operator.length_hint(samples) // MEASURED)
        sides: Counter[int] = Counter()
        sizes: set[tuple[int, int]] = set()
        labels: list[int | None] = []
        grey = measured = 0
        sums = np.zeros((2, 4))  # [mean, mean square] by [grey, red, green, blue]
        for place, sample in enumerate(samples):
            image = pictures.decode(_bytes(sample))
            sides[min(image.size)] += 1
            if len(sizes) < 2:
                sizes.add((image.height, image.width))
            grey += image.mode == "L"
            labels.append(self.label_of(sample))
            if place % every == 0:
                measured += 1
                sums += pictures.moments(image)
        return {
            "count": len(labels),
            "grey": grey,
            "sizes": sorted(map(list, sizes)),
            "sides": sorted(map(list, sides.items())),
            "class_counts": self.count_labels(labels),
            "measured": measured,
            "sums": sums.tolist(),
        }

    def learn(self, summaries: Sequence[Mapping[str, Any]]) -> None:
        """Size, channels and normalisation, as the arguments say or from the pictures."""
        count = sum(part["count"] for part in summaries)
        if count == 0:
            raise DataInvalid("the training split holds no picture", action="check data.split and data.source")
        channels = self.args.channels or (1 if sum(part["grey"] for part in summaries) == count else 3)
        sums = np.sum([part["sums"] for part in summaries], axis=0) / sum(part["measured"] for part in summaries)
        mean, square = sums[:, :1] if channels == 1 else sums[:, 1:]
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        self.preprocessing = {
            "image_size": list(self._size(summaries)),
            "channels": channels,
            "mean": [float(value) for value in mean],
            "std": [float(value) if value > 1e-3 else 1.0 for value in deviation],
            "class_counts": np.sum([part["class_counts"] for part in summaries], axis=0).tolist(),
        }

    def _size(self, summaries: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        asked = self.args.image_size
        if asked is not None:
            return (asked, asked) if isinstance(asked, int) else (asked[0], asked[1])
        sizes = {(height, width) for part in summaries for height, width in part["sizes"]}
        if len(sizes) == 1:
            height, width = next(iter(sizes))
            if max(height, width) <= LARGEST and min(height, width) >= MULTIPLE:
                return height, width
        sides: Counter[int] = Counter()
        for part in summaries:
            sides.update(dict(part["sides"]))
        side = _median(sides)
        side = round(min(max(side, SMALLEST), LARGEST) / MULTIPLE) * MULTIPLE
        return side, side

    def model_facts(self) -> dict[str, Any]:
        """See the module."""
        height, width = self.preprocessing["image_size"]
        channels = self.preprocessing["channels"]
        return {
            "num_classes": len(self.classes),
            "num_outputs": len(self.classes),
            "in_channels": channels,
            "image_size": (height, width),
            "in_features": channels * height * width,
        }

    # samples to batches

    def decode(self, sample: Sample) -> Example:
        """`{"image": uint8 [channels, height, width], "label": int}`; no label where the sample has none."""
        example: Example = {"image": self._fitted(_bytes(sample))}
        label = self.label_of(sample)
        return example if label is None else {**example, "label": label}

    def _fitted(self, data: bytes) -> np.ndarray:
        return pictures.fit(pictures.decode(data), self.preprocessing["channels"], self._image_size)

    @property
    def _image_size(self) -> tuple[int, int]:
        height, width = self.preprocessing["image_size"]
        return height, width

    def augment(self, example: Example, rng: random.Random) -> Example:
        """The variation that `args.augment` names; what a shift uncovers repeats the edge."""
        kind, image = self.args.augment, example["image"]
        if kind in ("flip", "crop-flip") and rng.random() < 0.5:
            image = image[:, :, ::-1]
        if kind in ("shift", "crop-flip"):
            _, height, width = image.shape
            down, right = (max(1, size // 8) for size in (height, width))
            padded = np.pad(image, ((0, 0), (down, down), (right, right)), mode="edge")
            top, left = rng.randint(0, 2 * down), rng.randint(0, 2 * right)
            image = padded[:, top : top + height, left : left + width]
        return {**example, "image": image}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`{"image": uint8 [batch, channels, height, width], "label": int64 [batch]}`."""
        image = torch.from_numpy(np.stack([example["image"] for example in examples]))
        return {"image": image, **self.label_tensor(examples)}

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The normalised pictures, on the batch's device."""
        image = batch["image"]
        factor, offset = self._normalisation(image.device)
        return (image * factor + offset,)

    def _normalisation(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(x / 255 - mean) / std as a factor on x and an offset, float32 `[1, channels, 1, 1]`; made once a device."""
        key = (device, *self.preprocessing["mean"], *self.preprocessing["std"])
        made = self._made
        if made is None or made[0] != key:
            with torch.inference_mode(False):  # the same tensors may be met in training later
                mean, std = (
                    torch.tensor(self.preprocessing[name], device=device).view(1, -1, 1, 1) for name in ("mean", "std")
                )
                made = self._made = key, (1.0 / (255.0 * std), -mean / std)
        return made[1]

    # judging

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure]:
        """`example_predictions`: the pictures with what the model says of them."""
        from headrace_models.tasks import plots

        if not examples:
            return {}
        said = [self.classes[place] for place in self.scores(outputs).argmax(dim=1).tolist()]
        true = [self.classes[example["label"]] if "label" in example else None for example in examples]
        return {"example_predictions": plots.predicted_pictures([e["image"] for e in examples], true, said)}

    # serving

    def signature(self) -> Signature:
        """Encoded pictures (BYTES), or raw pixels: UINT8 of any size with the channels last, or FP32 as the network's
        own size with the channels first, from 0 to 1."""
        height, width = self._image_size
        channels = self.preprocessing["channels"]
        return Signature(
            inputs=(TensorSpec(INPUT, "BYTES", (-1,), "image"),),
            outputs=self.output_specs(),
            alternatives=(
                (TensorSpec(INPUT, "UINT8", (-1, -1, -1, channels)),),
                (TensorSpec(INPUT, "FP32", (-1, channels, height, width)),),
            ),
        )

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`; each row of `image` is one picture."""
        if set(inputs) != {INPUT}:
            raise BadInput(f"the inputs are {', '.join(sorted(inputs)) or 'none'}; wanted is one named {INPUT!r}")
        given = inputs[INPUT]
        if given.size == 0:
            raise BadInput("the request holds no picture")
        if given.dtype == object or given.dtype.kind == "S":
            images = [self._row(place, value) for place, value in enumerate(given.ravel())]
            if given.ndim > 2 or (given.ndim == 2 and given.shape[1] != 1):
                raise BadInput(f"encoded pictures have shape [batch]; given is {list(given.shape)}")
            return {"image": torch.from_numpy(np.stack(images))}
        if given.dtype == np.uint8:
            return {"image": torch.from_numpy(np.stack([self._pixels(given, row) for row in range(len(given))]))}
        if given.dtype in (np.float32, np.float64, np.float16):
            return {"image": torch.from_numpy(self._floats(given))}
        raise BadInput(f"{INPUT!r} has type {given.dtype}; allowed: BYTES (an encoded picture), UINT8, FP32")

    def _row(self, place: int, value: Any) -> np.ndarray:
        if not isinstance(value, bytes):
            raise BadInput(f"picture {place} is a {type(value).__name__}, not bytes of an encoded picture")
        try:
            return self._fitted(value)
        except BadInput as error:
            raise BadInput(f"picture {place}: {error}") from None

    def _pixels(self, given: np.ndarray, row: int) -> np.ndarray:
        if given.ndim != 4 or given.shape[3] not in (1, 3):
            raise BadInput(f"raw pixels have shape [batch, height, width, 1 or 3]; given is {list(given.shape)}")
        if given.shape[1] * given.shape[2] > pictures.MOST_PIXELS:
            raise BadInput(f"the picture has more than {pictures.MOST_PIXELS:,} pixels")
        image = pictures.from_pixels(np.ascontiguousarray(given[row]))
        return pictures.fit(image, self.preprocessing["channels"], self._image_size)

    def _floats(self, given: np.ndarray) -> np.ndarray:
        wanted = (self.preprocessing["channels"], *self._image_size)
        if given.shape[1:] != wanted:
            raise BadInput(
                f"FP32 pixels have shape [batch, {', '.join(map(str, wanted))}]; given is {list(given.shape)}"
            )
        if not (np.isfinite(given).all() and given.min() >= 0 and given.max() <= 1):
            raise BadInput("FP32 pixels go from 0 to 1; there are others")
        pixels: np.ndarray = np.rint(given * 255).astype(np.uint8)  # 8 bits, as all that the model was trained on
        return pixels

    def request(self, samples: Sequence[Sample]) -> Arrays:
        """The encoded pictures."""
        array = np.empty(len(samples), dtype=object)
        array[:] = [_bytes(sample) for sample in samples]
        return {INPUT: array}


def _bytes(sample: Sample) -> bytes:
    if not isinstance(sample.payload, bytes):
        raise BadInput(f"{sample.sample_id} is a row of a table, not a picture")
    return sample.payload


def _median(counts: Mapping[int, int]) -> int:
    """The lower median of the keys, each taken as often as its count says."""
    half = (sum(counts.values()) + 1) // 2
    for value in sorted(counts):
        half -= counts[value]
        if half <= 0:
            return value
    raise ValueError("no counts")
