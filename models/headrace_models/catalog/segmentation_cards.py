"""Semantic segmentation as cards, and the network that does several tasks at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.augment_steps import NAME_OR_STEPS, TracedSteps
from headrace_models.catalog.cards import Arguments, ModelCard, TaskCard
from headrace_models.catalog.picture_arguments import PICTURES, PictureArguments


class SemanticSegmentationArguments(PictureArguments):
    """Arguments of `semantic-segmentation`."""

    augment: Annotated[
        Annotated[Literal["none", "shift", "flip", "crop-flip"], Tag("name")] | TracedSteps, NAME_OR_STEPS
    ] = Field(
        "none",
        description="Random variation of training pictures; masks follow. shift: moved by up to an eighth of the size; "
        "flip: mirrored left-right; crop-flip: both; or a list of steps, each a name or {name: ..., and its own "
        "arguments}.",
    )


class UNetArguments(Arguments):
    """Arguments of `unet`."""

    width: int = Field(64, ge=1, le=1024, description="Channels at the input's size; they double with each halving.")
    depth: int = Field(4, ge=1, le=8, description="How often the size is halved.")
    activation: ActivationName = "relu"


class MultiTaskArguments(UNetArguments):
    """Arguments of `multi-task`."""

    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the classifier's inputs dropped while training.")
    loss_weights: Literal["fixed", "learned"] = Field(
        "fixed",
        description="fixed: losses count by their `weight` in train.losses; learned: also by the uncertainty that the "
        "network learns of each task (Kendall et al. 2018).",
    )


SEGMENTATION_TASKS = (
    TaskCard(
        "semantic-segmentation",
        "a class for each pixel of a picture",
        "headrace_models.tasks.semantic_segmentation:SemanticSegmentation",
        SemanticSegmentationArguments,
        metrics={"iou": "max", "pixel_accuracy": "max"},
        losses=("cross-entropy", "dice", "focal"),
        formats=("voc", "coco"),
        default_model="unet",
        label_kind="annotation",
        masks=True,
        composes=True,
        inputs=PICTURES,
        outputs="[batch, classes, height, width], logits",
    ),
)

SEGMENTATION_MODELS = (
    ModelCard(
        "unet",
        "a contracting and an expanding path with skips: a class for each pixel",
        "headrace_models.segmentation.unet:UNet",
        UNetArguments,
        "Ronneberger et al. 2015, figure 1",
        tasks=("semantic-segmentation",),
        debug={"width": 16, "depth": 4},
        metric="digit-scenes: IoU ≥ .70",
    ),
    ModelCard(
        "multi-task",
        "one backbone, a head for each task: a class of the picture and of its pixels together",
        "headrace_models.segmentation.multi_task:MultiTaskNet",
        MultiTaskArguments,
        "Caruana 1997; learned weights: Kendall et al. 2018, eq. 10",
        tasks=("image-classification", "semantic-segmentation"),
        together=True,
        debug={"width": 16, "depth": 4},
        metric="digit-scenes: accuracy ≥ .94, IoU ≥ .80",
    ),
)
