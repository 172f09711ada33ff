"""What the arguments of tasks on pictures have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from headrace_models.catalog.augment_steps import too_large
from headrace_models.catalog.cards import Arguments

SHARED = ("image_size", "channels", "augment")  # what tasks that are joined say of the picture is one for all of them
PICTURES = "[batch, channels, height, width], float32"  # what networks for pictures take
Pixels = Annotated[int, Field(ge=8, le=1024)]


class PictureArguments(Arguments):
    """How pictures come in, for tasks that say something of a picture or its pixels."""

    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        None,
        description="Height and width in pixels that pictures are resized to: one number, [height, width], or null to "
        "take it from the data (their own size if all have the same, at most 224; else a square of the median shorter "
        "side between 32 and 224, a multiple of 8).",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1: grey, 3: colour, null: 1 if every training picture is grey, else 3."
    )

    @field_validator("augment", check_fields=False)
    @classmethod
    def _steps_fit(cls, steps: Any, info: ValidationInfo) -> Any:
        size = info.data.get("image_size")
        if size is not None and not isinstance(steps, str):
            problem = too_large(steps, (size, size) if isinstance(size, int) else size)
            if problem:
                raise ValueError(problem)
        return steps
