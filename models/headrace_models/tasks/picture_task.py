"""What all tasks on pictures share: how pictures come in, and what of them is learned.

The network's input is float32 `[batch, channels, height, width]`, each channel normalised to mean 0 and variance 1 over
the training pictures. `preprocessing` holds `image_size` [height, width], `channels` (1 or 3), `mean` and `std`.
"""

from __future__ import annotations

import operator
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from headrace.base.errors import DataInvalid
from headrace_models.catalog.augment_steps import Step
from headrace_models.tasks import pictures
from headrace_models.tasks.augmentation import Augmentation
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Sample, Task, TensorSpec

INPUT = "image"
SMALLEST, LARGEST, MULTIPLE = 32, 224, 8  # pixels: bounds of a learned size where pictures differ
MEASURED = 2000  # pictures of each worker whose pixels are measured; sizes and modes are taken of all


class PictureMeasures:
    """Mergeable statistics of one worker's pictures.

    Args:
        samples: what the pictures come from; only how many there are is looked at.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._every = max(1, operator.length_hint(samples) // MEASURED)
        self._heights: Counter[int] = Counter()
        self._widths: Counter[int] = Counter()
        self._sides: Counter[int] = Counter()
        self._sizes: set[tuple[int, int]] = set()
        self._count = self._grey = self._measured = 0
        self._sums = np.zeros((2, 4))  # [mean, mean square] by [grey, red, green, blue]

    def add(self, image: Image.Image) -> None:
        """Take in one picture, of mode L or RGB."""
        self._heights[image.height] += 1
        self._widths[image.width] += 1
        self._sides[min(image.size)] += 1
        if len(self._sizes) < 2:
            self._sizes.add((image.height, image.width))
        self._grey += image.mode == "L"
        if self._count % self._every == 0:
            self._measured += 1
            self._sums += pictures.moments(image)
        self._count += 1

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "count": self._count,
            "grey": self._grey,
            "sizes": sorted(map(list, self._sizes)),
            **{
                name: sorted(map(list, counts.items()))
                for name, counts in (("heights", self._heights), ("widths", self._widths), ("sides", self._sides))
            },
            "measured": self._measured,
            "sums": self._sums.tolist(),
        }


def learn_pixels(summaries: Sequence[Mapping[str, Any]], channels: int | None) -> dict[str, Any]:
    """`channels`, `mean` and `std` from the records of all workers; CHANNELS wins over what the pictures are.

    Raises:
        DataInvalid: there is no picture.
    """
    count = sum(part["count"] for part in summaries)
    if count == 0:
        raise DataInvalid("the training split holds no picture", action="check data.split and data.source")
    channels = channels or (1 if sum(part["grey"] for part in summaries) == count else 3)
    sums = np.sum([part["sums"] for part in summaries], axis=0) / sum(part["measured"] for part in summaries)
    mean, square = sums[:, :1] if channels == 1 else sums[:, 1:]
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return {
        "channels": channels,
        "mean": [float(value) for value in mean],
        "std": [float(value) if value > 1e-3 else 1.0 for value in deviation],
    }


def only_size(summaries: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """The (height, width) of all pictures if it is one."""
    sizes = {(height, width) for part in summaries for height, width in part["sizes"]}
    return next(iter(sizes)) if len(sizes) == 1 else None


def median(summaries: Sequence[Mapping[str, Any]], name: str) -> int:
    """The lower median over all workers of what NAME counts: `heights`, `widths`, `sides` (the shorter ones)."""
    counts: Counter[int] = Counter()
    for part in summaries:
        counts.update(dict(part[name]))
    half = (sum(counts.values()) + 1) // 2
    for value in sorted(counts):
        half -= counts[value]
        if half <= 0:
            return value
    raise ValueError("no counts")


def summaries_of(tasks: Sequence[PictureTask], samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """The summary of each of TASKS, which see the same pictures: each is read and decoded once."""
    measures, noted = PictureMeasures(samples), [list[Any]() for _ in tasks]
    for sample in samples:
        measures.add(pictures.decode(picture_bytes(sample)))
        for task, notes in zip(tasks, noted, strict=True):
            notes.append(task.noted(sample))
    record = measures.record()
    return [{**record, **task.label_summary(notes)} for task, notes in zip(tasks, noted, strict=True)]


class Fitted(NamedTuple):
    """One picture as the network has it, and how large it was."""

    pixels: np.ndarray  # uint8 [channels, height, width]
    size: tuple[int, int]  # (height, width) as it came, upright


class PictureTask(Task):
    """See the module."""

    _made: tuple[Any, tuple[torch.Tensor, torch.Tensor]] | None = None
    _augmentation: tuple[Any, Augmentation] | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        height, width = self.preprocessing["image_size"]
        return height, width

    def picture_facts(self) -> dict[str, Any]:
        """The facts that any network for pictures may ask for: in_channels, image_size."""
        return {"in_channels": self.preprocessing["channels"], "image_size": self.image_size}

    def usual_size(
        self, summaries: Sequence[Mapping[str, Any]], asked: int | tuple[int, int] | None
    ) -> tuple[int, int]:
        """(height, width): ASKED for, or that of all pictures if they have one of at most LARGEST, or a square of the
        median shorter side between SMALLEST and LARGEST, a multiple of MULTIPLE."""
        if asked is not None:
            return (asked, asked) if isinstance(asked, int) else (asked[0], asked[1])
        only = only_size(summaries)
        if only is not None and max(only) <= LARGEST and min(only) >= MULTIPLE:
            return only
        side = round(min(max(median(summaries, "sides"), SMALLEST), LARGEST) / MULTIPLE) * MULTIPLE
        return side, side

    # training and evaluation

    def fitted_sample(self, sample: Sample) -> Fitted:
        """SAMPLE's picture, stretched to the network's size."""
        return self.fitted(pictures.decode(picture_bytes(sample)))

    def summarise(self, samples: Iterable[Sample]) -> dict[str, Any]:
        """Sizes, grey or not, means of pixels (each picture counts alike), and what `label_summary` adds."""
        return summaries_of([self], samples)[0]

    def noted(self, sample: Sample) -> Any:
        """What of SAMPLE's labels `label_summary` is made of."""
        return None

    def label_summary(self, noted: Sequence[Any]) -> dict[str, Any]:
        """What the labels teach, of what was NOTED of each sample: mergeable, as plain values."""
        return {}

    def labelled(self, sample: Sample, fitted: Fitted) -> Example:
        """What SAMPLE's labels, of the picture as FITTED, add to its example; nothing where there are none."""
        return {}

    def label_tensors(self, examples: Sequence[Example]) -> Batch:
        """What the labels of EXAMPLES add to their batch; nothing where some have none."""
        return {}

    def decode(self, sample: Sample) -> Example:
        """`image` uint8 [channels, height, width], and what `labelled` adds."""
        fitted = self.fitted_sample(sample)
        return {INPUT: fitted.pixels, **self.labelled(sample, fitted)}

    def stepped(self, example: Example, steps: tuple[Step, ...], rng: random.Random) -> Example:
        """EXAMPLE varied by STEPS; what comes into view has the mean colour of the training pictures."""
        fill = tuple(round(255 * value) for value in self.preprocessing["mean"])
        key = (steps, self.image_size, fill)
        made = self._augmentation
        if made is None or made[0] != key:
            made = self._augmentation = key, Augmentation(*key)
        return made[1](example, rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """`image` uint8 [batch, channels, height, width], and what `label_tensors` adds."""
        image = torch.from_numpy(np.stack([example[INPUT] for example in examples]))
        return {INPUT: image, **self.label_tensors(examples)}

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """The normalised pictures, on the batch's device."""
        return (self.normalised(batch[INPUT]),)

    def fitted(self, image: Image.Image) -> Fitted:
        """An upright picture of mode L or RGB, stretched to the network's size."""
        return Fitted(pictures.fit(image, self.preprocessing["channels"], self.image_size), (image.height, image.width))

    def normalised(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 `[batch, channels, height, width]` as the network takes it."""
        factor, offset = self._normalisation(image.device)
        return image * factor + offset

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

    # serving

    def encoded_input(self) -> TensorSpec:
        """Encoded pictures."""
        return TensorSpec(INPUT, "BYTES", (-1,), "image")

    def pixel_input(self) -> TensorSpec:
        """Raw pixels of any size, the channels last."""
        return TensorSpec(INPUT, "UINT8", (-1, -1, -1, self.preprocessing["channels"]))

    def given_pictures(self, inputs: Arrays) -> np.ndarray:
        """The one input. Raises BadInput for others or none."""
        if set(inputs) != {INPUT}:
            raise BadInput(f"the inputs are {', '.join(sorted(inputs)) or 'none'}; wanted is one named {INPUT!r}")
        if inputs[INPUT].size == 0:
            raise BadInput("the request holds no picture")
        return inputs[INPUT]

    def fitted_rows(self, given: np.ndarray, allowed: str = "BYTES (an encoded picture), UINT8") -> list[Fitted]:
        """Each picture of GIVEN, encoded or raw. Raises BadInput naming the picture, or the types that are ALLOWED."""
        if given.dtype == object or given.dtype.kind == "S":
            rows = [self._row(place, value) for place, value in enumerate(given.ravel())]
            if given.ndim > 2 or (given.ndim == 2 and given.shape[1] != 1):
                raise BadInput(f"encoded pictures have shape [batch]; given is {list(given.shape)}")
            return rows
        if given.dtype == np.uint8:
            return [self._pixels(given, row) for row in range(len(given))]
        raise BadInput(f"{INPUT!r} has type {given.dtype}; allowed: {allowed}")

    def _row(self, place: int, value: Any) -> Fitted:
        if not isinstance(value, bytes):
            raise BadInput(f"picture {place} is a {type(value).__name__}, not bytes of an encoded picture")
        try:
            return self.fitted(pictures.decode(value))
        except BadInput as error:
            raise BadInput(f"picture {place}: {error}") from None

    def _pixels(self, given: np.ndarray, row: int) -> Fitted:
        if given.ndim != 4 or given.shape[3] not in (1, 3):
            raise BadInput(f"raw pixels have shape [batch, height, width, 1 or 3]; given is {list(given.shape)}")
        if given.shape[1] * given.shape[2] > pictures.MOST_PIXELS:
            raise BadInput(f"the picture has more than {pictures.MOST_PIXELS:,} pixels")
        return self.fitted(pictures.from_pixels(np.ascontiguousarray(given[row])))

    def request(self, samples: Sequence[Sample]) -> Arrays:
        """The encoded pictures."""
        array = np.empty(len(samples), dtype=object)
        array[:] = [picture_bytes(sample) for sample in samples]
        return {INPUT: array}


def picture_bytes(sample: Sample) -> bytes:
    """SAMPLE's encoded picture. Raises BadInput for a row of a table."""
    if not isinstance(sample.payload, bytes):
        raise BadInput(f"{sample.sample_id} is a row of a table, not a picture")
    return sample.payload
