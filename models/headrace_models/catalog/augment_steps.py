"""The steps of random variation that a spec may list (`task.augment`), judged without torch.

Each is a transform of torchvision v2 under its name there, with its arguments; `headrace_models.tasks.augmentation`
makes them. The named variations of the tasks (`flip`, `shift`, ...) stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from headrace_models.catalog.cards import Arguments
from headrace_models.catalog.names import listed, nearest

Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1, description="Probability that it is done.")]
Factor = Annotated[float, Field(gt=0, le=10)]
Degrees = Annotated[float, Field(ge=0, le=180)]


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("write the smaller one first: [least, most]")
    return pair


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("write an odd one: 3, 5, 7, ...")
    return size


# A list does for a pair also where types are taken strictly: by then a step is no longer JSON.
_PAIR = (BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value), AfterValidator(_rising))
Shares = Annotated[tuple[Share, Share], *_PAIR]
PositiveShares = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Share], *_PAIR]
Factors = Annotated[tuple[Factor, Factor], *_PAIR]


class Step(Arguments):
    """What all steps have."""

    p: Probability = 1.0


class HorizontalFlip(Step):
    """Left is right."""

    name: Literal["horizontal-flip"] = "horizontal-flip"
    p: Probability = 0.5


class VerticalFlip(Step):
    """Top is bottom."""

    name: Literal["vertical-flip"] = "vertical-flip"
    p: Probability = 0.5


class RandomResizedCrop(Step):
    """A part of the picture, stretched to the whole (Szegedy et al. 2014, section 6)."""

    name: Literal["random-resized-crop"] = "random-resized-crop"
    scale: PositiveShares = Field((0.08, 1.0), description="Least and largest share of the picture's area.")
    ratio: Factors = Field((3 / 4, 4 / 3), description="Least and largest ratio of width to height.")


class RandomCrop(Step):
    """The picture widened on all sides and cut to its size again: it moves (He et al. 2015, section 4.2)."""

    name: Literal["random-crop"] = "random-crop"
    padding: int = Field(4, ge=1, le=512, description="Pixels on each side.")
    padding_mode: Literal["constant", "edge"] = Field(
        "constant", description="What comes into view: constant: the mean colour; edge: the edge, repeated."
    )


class Rotation(Step):
    """Turned about its centre."""

    name: Literal["rotation"] = "rotation"
    degrees: Degrees = Field(15.0, description="Most, either way.")


class Affine(Step):
    """Turned, moved, scaled and sheared."""

    name: Literal["affine"] = "affine"
    degrees: Degrees = Field(10.0, description="Most that it is turned, either way.")
    translate: Share = Field(0.1, description="Most that it is moved, as a share of each side.")
    scale: Factors = Field((0.9, 1.1), description="Least and largest factor on its size.")
    shear: Annotated[float, Field(ge=0, le=80)] = Field(0.0, description="Most degrees of shear, either way.")


class Perspective(Step):
    """As seen from aside. Corners that make no picture (three on a line, or crosswise) are drawn again."""

    name: Literal["perspective"] = "perspective"
    p: Probability = 0.5
    distortion_scale: Share = Field(0.3, description="How far its corners move, at most, as a share of half a side.")


class ColorJitter(Step):
    """Colours by random factors from 1 - x to 1 + x."""

    name: Literal["color-jitter"] = "color-jitter"
    brightness: Share = Field(0.0, description="x of the brightness.")
    contrast: Share = Field(0.0, description="x of the contrast.")
    saturation: Share = Field(0.0, description="x of the saturation.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="Most by which the hue turns, 1 being a turn.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise ValueError("name what is to vary: brightness, contrast, saturation, hue")
        return self


class Grayscale(Step):
    """Without colour."""

    name: Literal["grayscale"] = "grayscale"
    p: Probability = 0.1


class GaussianBlur(Step):
    """Out of focus."""

    name: Literal["gaussian-blur"] = "gaussian-blur"
    p: Probability = 0.5
    kernel_size: Annotated[int, Field(ge=3, le=63), AfterValidator(_odd)] = Field(3, description="Pixels, odd.")
    sigma: Factors = Field((0.1, 2.0), description="Least and largest standard deviation in pixels.")


class RandomErasing(Step):
    """A rectangle put over the picture in its mean colour (Zhong et al. 2017, section 3)."""

    name: Literal["random-erasing"] = "random-erasing"
    p: Probability = 0.5
    scale: Shares = Field((0.02, 0.33), description="Least and largest share of the picture's area.")
    ratio: Factors = Field((0.3, 3.3), description="Least and largest ratio of height to width.")


class AutoContrast(Step):
    """Stretched to the whole range of each channel."""

    name: Literal["auto-contrast"] = "auto-contrast"
    p: Probability = 0.5


class RandAugment(Step):
    """Some of 14 operations, all as strong (Cubuk et al. 2019, section 3)."""

    name: Literal["rand-augment"] = "rand-augment"
    num_ops: int = Field(2, ge=1, le=8, description="N: operations on a picture.")
    magnitude: int = Field(9, ge=0, le=30, description="M: how strong, of 31 levels.")


class TrivialAugment(Step):
    """One operation, of a strength drawn anew each time (Müller & Hutter 2021, section 3)."""

    name: Literal["trivial-augment"] = "trivial-augment"


Moving = HorizontalFlip | VerticalFlip | RandomResizedCrop | RandomCrop | Rotation | Affine | Perspective
Colouring = ColorJitter | Grayscale | GaussianBlur | RandomErasing | AutoContrast
Automatic = RandAugment | TrivialAugment  # they move pixels and do not tell where: nothing can follow


def _names(steps: Any) -> tuple[str, ...]:
    return tuple(step.model_fields["name"].default for step in get_args(steps))


def _named(names: tuple[str, ...]) -> Callable[[Any], Any]:
    """A step's name alone as a mapping. Unknown names are told with the nearest."""

    def named(value: Any) -> Any:
        name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", value)
        if name not in names:
            near = next(iter(nearest(str(name), names)), "")
            allowed = listed(str(name), names)
            raise PydanticCustomError("unknown_name", "{allowed}", {"allowed": allowed, "nearest": near})
        return {"name": value} if isinstance(value, str) else value

    return named


def _given(steps: Any) -> BeforeValidator:
    names = _names(steps)
    return BeforeValidator(_named(names), json_schema_input_type=Literal[names] | steps)


def _which(value: Any) -> str:
    return "steps" if isinstance(value, (list, tuple)) else "name"


PictureStep = TypeAliasType(
    "PictureStep",
    Annotated[Moving | Colouring | Automatic, Field(discriminator="name"), _given(Moving | Colouring | Automatic)],
)
"""A step for pictures whose label is one for the whole."""

TracedStep = TypeAliasType(
    "TracedStep", Annotated[Moving | Colouring, Field(discriminator="name"), _given(Moving | Colouring)]
)
"""A step that boxes and masks can follow."""

PictureSteps = Annotated[tuple[PictureStep, ...], Tag("steps")]
TracedSteps = Annotated[tuple[TracedStep, ...], Tag("steps")]
NAME_OR_STEPS = Discriminator(_which)
STEPS: tuple[type[Step], ...] = get_args(Moving | Colouring | Automatic)


def too_large(chosen: Sequence[Step], size: tuple[int, int]) -> str | None:
    """What of the steps CHOSEN cannot be done on pictures of SIZE (height, width), in a sentence, or None.

    A blur mirrors the picture at its edges: half of its kernel must be less than each side.
    """
    for step in chosen:
        if isinstance(step, GaussianBlur) and step.kernel_size // 2 >= min(size):
            least = step.kernel_size // 2 + 1
            return (
                f"gaussian-blur has kernel_size {step.kernel_size}, which needs an image_size of {least} or more on "
                f"each side; here it is {size[0]}x{size[1]}: lower kernel_size to {2 * min(size) - 1}"
            )
    return None
