"""What the arguments of tasks on pictures have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace_models.catalog.cards import Arguments

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
