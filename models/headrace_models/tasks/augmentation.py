"""Random variation of pictures by a list of steps, each a transform of torchvision v2.

What moves the pixels moves masks and boxes: a mask by the nearest pixel, with UNKNOWN where nothing was; boxes become
the upright rectangles around their moved corners, clipped as `box_pictures.cut` does.

torchvision draws from torch's global generator, which other threads use at the same time (dropout). Here every draw
goes to a generator of the sample's own, and the global one is neither read nor moved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from headrace.base.errors import InvalidInput
from headrace_models.catalog import augment_steps as steps
from headrace_models.tasks import box_pictures
from headrace_models.tasks.base import Example

UNKNOWN = 255  # in masks: pixels that do not count
BOXES = ("boxes", "proposals")
TRIES = 100  # for corners that make a picture; then it stays as it is
UNMOVED = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
_DRAWS = frozenset(
    {torch.rand, torch.randint, torch.randn, torch.randperm, torch.multinomial}
    | {torch.Tensor.uniform_, torch.Tensor.normal_}
)


class _Drawn(TorchFunctionMode):
    """Within it this thread's random numbers are GENERATOR's."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({**kwargs, "generator": self._generator} if func in _DRAWS else kwargs))


class _Perspective(v2.RandomPerspective):
    """torchvision's, where corners of which three are on a line, or that lie crosswise, are drawn again: the first
    cannot be computed (`lstsq`) or not be followed by boxes, the others tear boxes apart."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """`coefficients`, eight numbers."""
        height, width = flat_inputs[0].shape[-2:]
        for _ in range(TRIES):
            try:
                params: dict[str, Any] = super().make_params(flat_inputs)
            except RuntimeError:  # the system of equations is singular
                continue
            if _makes_a_picture(params["coefficients"], height, width):
                return params
        return {"coefficients": UNMOVED}


def _makes_a_picture(coefficients: Sequence[float], height: int, width: int) -> bool:
    """Whether COEFFICIENTS, which lead from the new picture back to the old, have an inverse that puts all of the old
    picture's corners before the eye and into the new one, within a pixel."""
    back = np.append(coefficients, 1.0).reshape(3, 3)
    if not np.isfinite(back).all() or back[0, 0] * back[1, 1] == back[0, 1] * back[1, 0]:
        return False
    edge = np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], float)
    corner = edge - np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    try:
        there = np.linalg.inv(back)
    except np.linalg.LinAlgError:
        return False
    there = there / there[2, 2]
    x, y, depth = there @ corner
    inside = (x >= -depth) & (x <= width * depth) & (y >= -depth) & (y <= height * depth)
    return bool(inside.all() and (depth > 0).all() and (there[2] @ edge > 0).all())


class Augmentation:
    """STEPS for pictures of SIZE (height, width); what comes into view has the colour FILL, one number a channel.

    Raises:
        InvalidInput: a step cannot be done on pictures of SIZE.
    """

    def __init__(self, chosen: Sequence[steps.Step], size: tuple[int, int], fill: Sequence[int]) -> None:
        problem = steps.too_large(chosen, size)
        if problem:
            raise InvalidInput(f"task.augment: {problem}", action="lower kernel_size, or raise task.image_size")
        self._size = size
        self._steps = [(step, _made(step, size, list(fill))) for step in chosen]

    def __call__(self, example: Example, rng: random.Random) -> Example:
        """A variation of EXAMPLE: `image` uint8 [channels, height, width] and, each where there is any, `mask` uint8
        [height, width], `boxes` float32 [M, 4] with `ignore` bool [M], `proposals` float32 [P, 4]."""
        drawn = _Drawn(torch.Generator().manual_seed(rng.getrandbits(63)))
        example = {**example, "image": _tensor(example["image"])}
        boxed = "boxes" in example
        if boxed:
            example["seen"] = np.ones(len(example["boxes"]), np.float32)
        for step, transform in self._steps:
            if rng.random() >= step.p:
                continue
            if isinstance(step, steps.Automatic):
                with drawn:
                    example["image"] = transform(example["image"])
                continue
            with drawn:
                params = transform.make_params([example["image"]])
            if isinstance(step, steps.Moving):
                example.update(self._moved(example, transform, params))
            example["image"] = transform.transform(example["image"], params)
            if boxed and isinstance(step, steps.Moving):
                example = box_pictures.cut(example, self._size[1], self._size[0])
        example.pop("seen", None)
        return {**example, "image": example["image"].numpy()}

    def _moved(self, example: Example, transform: v2.Transform, params: dict[str, Any]) -> Example:
        moved: Example = {}
        if "mask" in example:
            mask = transform.transform(tv_tensors.Mask(_tensor(example["mask"])), params)
            moved["mask"] = mask.as_subclass(torch.Tensor).numpy()
        for name in BOXES:
            if len(example.get(name, ())):
                given = tv_tensors.BoundingBoxes(
                    torch.from_numpy(example[name]), format="XYXY", canvas_size=self._size, clamping_mode=None
                )
                moved[name] = self._for_boxes(transform).transform(given, params).as_subclass(torch.Tensor).numpy()
        if "proposals" in moved:  # rows of zeros are padding and stay so
            moved["proposals"][(example["proposals"] == 0).all(axis=1)] = 0
        return moved

    def _for_boxes(self, transform: v2.Transform) -> v2.Transform:
        """TRANSFORM, where boxes move alike whatever comes into view: torchvision refuses all but a colour."""
        return v2.RandomCrop(self._size, transform.padding) if isinstance(transform, v2.RandomCrop) else transform


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


def _made(step: steps.Step, size: tuple[int, int], fill: list[int]) -> v2.Transform:
    """The transform that STEP names, to be done for certain."""
    if isinstance(step, steps.Moving):
        return _moving(step, size, fill)
    if isinstance(step, steps.Colouring):
        return _colouring(step, fill)
    if isinstance(step, steps.RandAugment):
        return v2.RandAugment(step.num_ops, step.magnitude, interpolation=InterpolationMode.BILINEAR, fill=fill)
    assert isinstance(step, steps.TrivialAugment)
    return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=fill)


def _moving(step: steps.Moving, size: tuple[int, int], fill: list[int]) -> v2.Transform:
    shown = {torch.Tensor: fill, tv_tensors.Mask: UNKNOWN}
    smooth = InterpolationMode.BILINEAR  # masks are moved by the nearest pixel all the same
    match step:
        case steps.HorizontalFlip():
            return v2.RandomHorizontalFlip(1.0)
        case steps.VerticalFlip():
            return v2.RandomVerticalFlip(1.0)
        case steps.RandomResizedCrop():
            return v2.RandomResizedCrop(size, step.scale, step.ratio, smooth)
        case steps.RandomCrop():
            constant = step.padding_mode == "constant"  # torchvision takes colours for nothing else
            return v2.RandomCrop(size, step.padding, fill=shown if constant else 0, padding_mode=step.padding_mode)
        case steps.Rotation():
            return v2.RandomRotation(step.degrees, smooth, fill=shown)
        case steps.Affine():
            moves = (step.translate, step.translate)
            return v2.RandomAffine(step.degrees, moves, step.scale, step.shear or None, smooth, fill=shown)
        case steps.Perspective():
            return _Perspective(step.distortion_scale, 1.0, smooth, fill=shown)


def _colouring(step: steps.Colouring, fill: list[int]) -> v2.Transform:
    match step:
        case steps.ColorJitter():
            return v2.ColorJitter(step.brightness, step.contrast, step.saturation, step.hue)
        case steps.Grayscale():
            return v2.RandomGrayscale(1.0)
        case steps.GaussianBlur():
            return v2.GaussianBlur(step.kernel_size, step.sigma)
        case steps.RandomErasing():
            return v2.RandomErasing(1.0, step.scale, step.ratio, fill)
        case steps.AutoContrast():
            return v2.RandomAutocontrast(1.0)
