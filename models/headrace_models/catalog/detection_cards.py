"""Object detection as cards: the task, its loss, and the detectors.

`parameters` is the size at the source's own shape: 3 channels and the classes of PASCAL VOC (20, and the background
where a detector counts it) or of COCO (91). docs/models/detection.md has what the small ones reached, with the command.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.cards import Arguments, ComponentCard, Direction, ModelCard, TaskCard

Pixels = Annotated[int, Field(ge=32, le=2048)]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=8, description="Factor on all channels; 1 is the published size.")]

DETECTION_METRICS: dict[str, Direction] = {"map50": "max", "map": "max", "map75": "max"}


class ObjectDetectionArguments(Arguments):
    """Arguments of `object-detection`."""

    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        None,
        description="Height and width in pixels that pictures are resized to: one number, [height, width], or null to "
        "take it from the data: the pictures' size, or the median of each side, at most 320 on the longer side, each a "
        "multiple of 32.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1: grey, 3: colour, null: 1 if every training picture is grey, else 3."
    )
    augment: Literal["none", "flip", "flips", "flip-zoom", "flips-zoom"] = Field(
        "flip-zoom",
        description="Random variation of training pictures; boxes follow. flip: mirrored left-right; flips: also "
        "upside down, for pictures that have no top (cells, satellites); zoom: larger or smaller, and moved.",
    )


class DetectionLossArguments(Arguments):
    """Arguments of `detection`."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="Factor on each loss of the model by its name; 1 for those not named."
    )


class Thresholds(Arguments):
    """What all detectors have: what becomes of their candidates."""

    score_threshold: Share = Field(0.05, description="Candidates with a lower score are dropped.")
    nms_threshold: Share = Field(0.5, description="Of two boxes of a class with a larger IoU the better one stays.")
    max_detections: int = Field(100, ge=1, le=1000, description="Most objects that are found in a picture.")


class YoloArguments(Thresholds):
    """Arguments of `yolo`."""

    width: int = Field(16, ge=4, le=256, description="Channels of the first convolution; they double three times.")
    depth: int = Field(1, ge=1, le=12, description="Residual blocks of each stage.")
    activation: ActivationName = "silu"
    nms_threshold: Share = Field(0.6, description="Of two boxes of a class with a larger IoU the better one stays.")


class YoloV1Arguments(Thresholds):
    """Arguments of `yolov1`."""

    width: Factor = 1.0
    grid: int = Field(7, ge=1, le=32, description="S: the picture is divided into S x S cells.")
    boxes: int = Field(2, ge=1, le=8, description="B: boxes of each cell. A cell finds one object all the same.")
    batch_norm: bool = Field(False, description="Normalise after each convolution; trains from scratch with it.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of the hidden layer dropped while training.")


class SsdArguments(Thresholds):
    """Arguments of `ssd`."""

    width: int = Field(16, ge=4, le=256, description="Channels of the first convolution; they double three times.")
    levels: int = Field(
        4, ge=1, le=6, description="Feature maps, of strides 4, 8, 16, ...; sizes of objects choose theirs."
    )
    activation: ActivationName = "silu"
    nms_threshold: Share = Field(0.45, description="Of two boxes of a class with a larger IoU the better one stays.")


class Ssd300Arguments(Thresholds):
    """Arguments of `ssd300-vgg16`."""

    nms_threshold: Share = Field(0.45, description="Of two boxes of a class with a larger IoU the better one stays.")


_HERE = "headrace_models.detection"
_TASKS = ("object-detection", "object-tracking")

DETECTION_TASKS = (
    TaskCard(
        "object-detection",
        "boxes and classes of the objects in each picture",
        "headrace_models.tasks.object_detection:ObjectDetection",
        ObjectDetectionArguments,
        metrics=DETECTION_METRICS,
        losses=("detection",),
        formats=("voc", "coco"),
        default_model="yolo",
        label_kind="annotation",
    ),
)

DETECTION_LOSSES = (
    ComponentCard(
        "detection",
        "the sum of the losses that a detector gives, each by its weight",
        f"{_HERE}.loss:DetectionLoss",
        DetectionLossArguments,
        "Girshick 2015, eq. 1",
        kind="loss",
    ),
)

DETECTION_MODELS = (
    ModelCard(
        "yolo",
        "one small network, no anchors, two feature maps: the first detector to try",
        f"{_HERE}.yolo:Yolo",
        YoloArguments,
        "Redmon et al. 2016; heads and assignment: Ge et al. 2021, Feng et al. 2021",
        tasks=_TASKS,
        metric="BCCD at 192x256: mAP50 .85",
    ),
    ModelCard(
        "yolov1",
        "24 convolutions and two linear layers that see the whole picture; one object a cell",
        f"{_HERE}.yolov1:YoloV1",
        YoloV1Arguments,
        "Redmon et al. 2016, figure 3",
        tasks=_TASKS,
        parameters=271_703_550,
        debug={"width": 0.125, "grid": 6, "batch_norm": True, "dropout": 0.0},
        metric="VOC 2007: mAP 63.4 (published)",
    ),
    ModelCard(
        "ssd",
        "default boxes on feature maps of several strides, a small residual backbone",
        f"{_HERE}.ssd:Ssd",
        SsdArguments,
        "Liu et al. 2016, section 2",
        tasks=_TASKS,
        metric="BCCD at 192x256: mAP50 .91",
    ),
    ModelCard(
        "ssd300-vgg16",
        "SSD as published: VGG16, six feature maps, 8,732 default boxes at 300x300",
        f"{_HERE}.ssd_vgg:Ssd300",
        Ssd300Arguments,
        "Liu et al. 2016, figure 2 and section 3",
        tasks=_TASKS,
        parameters=26_285_486,
        metric="COCO: mAP 25.1 (published, torchvision)",
    ),
)
