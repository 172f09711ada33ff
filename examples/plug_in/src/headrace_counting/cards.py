"""What specs are judged by. Read on installs without torch: nothing here may import it."""

from __future__ import annotations

from pydantic import Field

from headrace_models.catalog.cards import Arguments, ModelCard, TaskCard


class CountingArguments(Arguments):
    """Arguments of `counting`."""

    image_size: int = Field(32, ge=8, le=512, description="Pixels of a side that each picture is brought to.")


class DotCounterArguments(Arguments):
    """Arguments of `dot-counter`."""

    width: int = Field(16, ge=1, le=256, description="Channels of each convolution.")


def task() -> TaskCard:
    """The task."""
    return TaskCard(
        "counting",
        "how many dots are in a picture",
        "headrace_counting.task:Counting",
        CountingArguments,
        metrics={"mae": "min", "exact": "max"},
        losses=("smooth-l1", "mse", "l1"),
        formats=("image-folder",),
        default_model="dot-counter",
        label_kind="number",  # folders are called 0, 1, 2, ...
        inputs="[batch, 1, height, width], float32",
        outputs="[batch], counts",
    )


def models() -> list[ModelCard]:
    """The models."""
    return [
        ModelCard(
            "dot-counter",
            "a density of dots for each pixel, added up",
            "headrace_counting.net:DotCounter",
            DotCounterArguments,
            "Lempitsky & Zisserman 2010, section 2",
            tasks=("counting",),
            debug={"width": 8},
            metric="600 pictures of 0 to 5 dots: mae .17, exact .99",
        )
    ]
