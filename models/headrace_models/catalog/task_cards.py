"""The tasks of the zoo, as cards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from headrace_models.catalog.augment_steps import NAME_OR_STEPS, PictureSteps
from headrace_models.catalog.cards import Arguments, Direction, TaskCard
from headrace_models.catalog.detection_cards import DETECTION_TASKS
from headrace_models.catalog.picture_arguments import PICTURES, PictureArguments
from headrace_models.catalog.segmentation_cards import SEGMENTATION_TASKS
from headrace_models.catalog.tracking_cards import TRACKING_TASKS

CLASSIFICATION_METRICS: dict[str, Direction] = {
    "accuracy": "max",
    "macro_f1": "max",
    "macro_precision": "max",
    "macro_recall": "max",
    "log_loss": "min",
}
CLASSIFICATION_LOSSES = ("cross-entropy", "focal", "hinge", "mse", "dice")


class ImageClassificationArguments(PictureArguments):
    """Arguments of `image-classification`."""

    augment: Annotated[
        Annotated[Literal["none", "shift", "flip", "crop-flip"], Tag("name")] | PictureSteps, NAME_OR_STEPS
    ] = Field(
        "none",
        description="Random variation of training pictures. shift: moved by up to an eighth of the size; flip: "
        "mirrored left-right; crop-flip: both (He et al. 2015, section 4.2); or a list of steps, each a name or {name: "
        "..., and its own arguments}. Digits and text must not be mirrored.",
    )
    explain: Literal["none", "grad-cam"] = Field(
        "none",
        description="grad-cam: a picture in MLflow of what in each of the shown test pictures speaks for the class "
        "that it is taken for (Selvaraju et al. 2017, section 3). It does not change the model.",
    )
    explain_layer: str | None = Field(
        None,
        description="The module of the network that grad-cam looks at, by its name in PyTorch (`layer3`); null: the "
        "last one whose output has places.",
    )

    @field_validator("explain_layer")
    @classmethod
    def _explained(cls, layer: str | None, info: ValidationInfo) -> str | None:
        if layer is not None and info.data.get("explain") == "none":
            raise ValueError("write explain: grad-cam, or remove it: a layer is looked at for an explanation only")
        return layer


class TabularArguments(Arguments):
    """Arguments of the tabular tasks."""

    max_categories: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most values of a category column that get an input of their own; the rarer ones share `other`.",
    )


TASKS = (
    TaskCard(
        "image-classification",
        "one class for each picture",
        "headrace_models.tasks.image_classification:ImageClassification",
        ImageClassificationArguments,
        metrics={**CLASSIFICATION_METRICS, "top5_accuracy": "max"},
        losses=CLASSIFICATION_LOSSES,
        formats=("image-folder", "voc", "coco"),
        default_format="image-folder",
        default_model="resnet8",
        composes=True,
        inputs=PICTURES,
        outputs="[batch, classes], logits",
    ),
    TaskCard(
        "tabular-classification",
        "one class for each row of a table",
        "headrace_models.tasks.tabular:TabularClassification",
        TabularArguments,
        metrics=CLASSIFICATION_METRICS,
        losses=CLASSIFICATION_LOSSES,
        formats=("csv", "parquet"),
        default_model="mlp",
        inputs="[batch, features], float32",
        outputs="[batch, classes], logits",
    ),
    TaskCard(
        "tabular-regression",
        "one number for each row of a table",
        "headrace_models.tasks.tabular:TabularRegression",
        TabularArguments,
        metrics={"rmse": "min", "mae": "min", "r2": "max"},
        losses=("mse", "l2", "l1", "smooth-l1", "huber"),
        formats=("csv", "parquet"),
        default_model="mlp",
        label_kind="number",
        inputs="[batch, features], float32",
        outputs="[batch, 1]",
    ),
    *DETECTION_TASKS,
    *TRACKING_TASKS,
    *SEGMENTATION_TASKS,
)
