"""Object detection as cards: the task, its loss, and the detectors.

`parameters` is the size at the source's own shape: 3 channels and the classes of PASCAL VOC (20, and the background
where a detector counts it) or of COCO (91). docs/models/detection.md has what the small ones reached, with the command.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from headrace_models.catalog.activation_cards import ActivationName
from headrace_models.catalog.augment_steps import NAME_OR_STEPS, TracedSteps
from headrace_models.catalog.cards import Arguments, ComponentCard, Direction, ModelCard, TaskCard
from headrace_models.catalog.picture_arguments import PICTURES, PictureArguments

Pixels = Annotated[int, Field(ge=32, le=2048)]
Share = Annotated[float, Field(ge=0, le=1)]
Regions = Annotated[
    int, Field(ge=4, le=2048, description="Regions of a picture that are learned, a quarter of them objects at most.")
]
Factor = Annotated[float, Field(gt=0, le=8, description="Factor on all channels; 1 is the published size.")]

DETECTED = "boxes [batch, max_detections, 4], scores and labels [batch, max_detections]"
DETECTION_METRICS: dict[str, Direction] = {"map50": "max", "map": "max", "map75": "max"}


class ObjectDetectionArguments(PictureArguments):
    """Arguments of `object-detection`."""

    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        None,
        description="Height and width in pixels that pictures are resized to: one number, [height, width], or null to "
        "take it from the data: the pictures' size, or the median of each side, at most 320 on the longer side, each a "
        "multiple of 32.",
    )
    augment: Annotated[
        Annotated[Literal["none", "flip", "flips", "flip-zoom", "flips-zoom"], Tag("name")] | TracedSteps, NAME_OR_STEPS
    ] = Field(
        "flip-zoom",
        description="Random variation of training pictures; boxes follow. flip: mirrored left-right; flips: also "
        "upside down, for pictures that have no top (cells, satellites); zoom: larger or smaller, and moved; or a list "
        "of steps, each a name or {name: ..., and its own arguments}.",
    )
    proposals: Literal["none", "selective-search"] = Field(
        "none",
        description="Regions that come with each picture, for models that find none themselves (fast-rcnn, rcnn): "
        "selective-search joins regions of like colour and texture, at most 500 boxes a picture, once for all epochs.",
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

    convolutions: Literal[24, 9] = Field(24, description="24: as published; 9: Fast YOLO, for speed or little data.")
    width: Factor = 1.0
    grid: int = Field(7, ge=1, le=32, description="S: the picture is divided into S x S cells.")
    boxes: int = Field(2, ge=1, le=8, description="B: boxes of each cell. A cell finds one object all the same.")
    head: Literal["whole", "cell"] = Field(
        "whole",
        description="What the two linear layers see: whole: all cells at once, as published, which takes very many "
        "pictures, since an object has to be learned in each cell; cell: each cell by itself, with the same weights.",
    )
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

    width: Factor = 1.0
    batch_norm: bool = Field(False, description="Normalise after each convolution; trains from scratch with it.")
    nms_threshold: Share = Field(0.45, description="Of two boxes of a class with a larger IoU the better one stays.")


class FasterRcnnArguments(Thresholds):
    """Arguments of `faster-rcnn`."""

    width: int = Field(16, ge=4, le=256, description="Channels of the first convolution; they double three times.")
    levels: int = Field(
        4, ge=1, le=6, description="Feature maps, of strides 4, 8, 16, ...; sizes of objects choose theirs."
    )
    hidden: int = Field(128, ge=8, le=4096, description="Values of the two layers that look at a region.")
    proposals: int = Field(100, ge=10, le=2000, description="Regions of a picture that are looked at.")
    sampled: Regions = 64
    activation: ActivationName = "silu"


class FasterRcnnFpnArguments(Thresholds):
    """Arguments of `faster-rcnn-resnet50-fpn`."""

    norm: Literal["frozen", "batch"] = Field(
        "frozen",
        description="Batch normalisation: frozen: as it came with the weights, as published; batch: learned, which "
        "training from scratch needs.",
    )
    width: Factor = 1.0
    proposals: int = Field(1000, ge=10, le=2000, description="Regions of a picture that are looked at.")
    sampled: Regions = 512


class FastRcnnArguments(Thresholds):
    """Arguments of `fast-rcnn`."""

    backbone: Literal["vgg16", "small"] = Field(
        "vgg16", description="vgg16: as published; small: a residual pyramid that trains on a CPU."
    )
    width: int = Field(16, ge=4, le=256, description="Of the small one: channels of its first convolution.")
    hidden: int = Field(128, ge=8, le=4096, description="Of the small one: values of its two linear layers.")
    sampled: Regions = 64
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of the hidden values dropped while training.")


class RcnnArguments(Thresholds):
    """Arguments of `rcnn`."""

    crop: int = Field(32, ge=16, le=256, description="Pixels a side that regions are warped to.")
    width: int = Field(16, ge=4, le=256, description="Channels of the first convolution; they double twice.")
    sampled: Regions = 32
    activation: ActivationName = "silu"
    nms_threshold: Share = Field(0.3, description="Of two boxes of a class with a larger IoU the better one stays.")


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
        inputs=PICTURES,
        outputs=DETECTED,
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
        metric="BCCD at 192x256: mAP50 ≥ .80",
    ),
    ModelCard(
        "yolov1",
        "24 convolutions and two linear layers that see the whole picture; one object a cell",
        f"{_HERE}.yolov1:YoloV1",
        YoloV1Arguments,
        "Redmon et al. 2016, figure 3",
        tasks=_TASKS,
        parameters=271_703_550,
        debug={
            "convolutions": 9,
            "width": 0.1875,
            "grid": 6,
            "boxes": 1,
            "head": "cell",
            "batch_norm": True,
            "dropout": 0.0,
        },
        metric="VOC 2007: mAP 63.4 (published); the small size on builtin:shapes: mAP50 ≥ .70",
    ),
    ModelCard(
        "ssd",
        "default boxes on feature maps of several strides, a small residual backbone",
        f"{_HERE}.ssd:Ssd",
        SsdArguments,
        "Liu et al. 2016, section 2",
        tasks=_TASKS,
        metric="BCCD at 192x256: mAP50 ≥ .85",
    ),
    ModelCard(
        "ssd300-vgg16",
        "SSD as published: VGG16, six feature maps, 8,732 default boxes at 300x300",
        f"{_HERE}.ssd_vgg:Ssd300",
        Ssd300Arguments,
        "Liu et al. 2016, figure 2 and section 3",
        tasks=_TASKS,
        parameters=26_285_486,
        debug={"width": 0.125, "batch_norm": True},
        metric="COCO: mAP 25.1 (published, torchvision); the small size on builtin:shapes: mAP50 ≥ .85",
    ),
    ModelCard(
        "faster-rcnn",
        "regions from a network on anchors, each looked at once more; a small residual pyramid",
        f"{_HERE}.faster_rcnn:FasterRcnn",
        FasterRcnnArguments,
        "Ren et al. 2015, section 3",
        tasks=_TASKS,
        metric="BCCD at 192x256: mAP50 ≥ .85",
    ),
    ModelCard(
        "faster-rcnn-resnet50-fpn",
        "Faster R-CNN on a ResNet-50 with a feature pyramid, torchvision's names and shapes",
        f"{_HERE}.faster_rcnn_fpn:FasterRcnnFpn",
        FasterRcnnFpnArguments,
        "Ren et al. 2015; Lin et al. 2017, section 4",
        tasks=_TASKS,
        parameters=41_755_286,
        debug={"norm": "batch", "width": 0.125, "proposals": 100, "sampled": 64},
        metric="COCO: mAP 37.0 (published, torchvision); the small size on builtin:shapes: mAP50 ≥ .80",
    ),
    ModelCard(
        "fast-rcnn",
        "layers once a picture, regions of selective search read from them; VGG16 or a small pyramid",
        f"{_HERE}.fast_rcnn:FastRcnn",
        FastRcnnArguments,
        "Girshick 2015, figure 1",
        tasks=_TASKS,
        proposals=True,
        parameters=134_690_729,
        debug={"backbone": "small", "dropout": 0.0},
        metric="VOC 2007: mAP 66.9 (published); the small size on BCCD at 192x256: mAP50 ≥ .75",
    ),
    ModelCard(
        "rcnn",
        "each region of selective search cut out and warped: convolutions, an SVM a class, box regression",
        f"{_HERE}.rcnn:Rcnn",
        RcnnArguments,
        "Girshick et al. 2014, section 2",
        tasks=_TASKS,
        proposals=True,
        metric="BCCD at 192x256: mAP50 ≥ .75",
    ),
)
