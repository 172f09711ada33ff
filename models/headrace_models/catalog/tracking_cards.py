"""Object tracking as cards: the task, and the trackers that it can have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from headrace_models.catalog.cards import Arguments, Direction, TaskCard
from headrace_models.catalog.detection_cards import DETECTED, DETECTION_METRICS, ObjectDetectionArguments
from headrace_models.catalog.picture_arguments import PICTURES

Share = Annotated[float, Field(ge=0, le=1)]
Frames = Annotated[int, Field(ge=0, le=10_000)]

TRACKING_METRICS: dict[str, Direction] = {
    "mota": "max",
    "idf1": "max",
    "motp": "max",
    "id_switches": "min",
    "fp": "min",
    "fn": "min",
    "fragments": "min",
    **DETECTION_METRICS,
}


class SortTracker(Arguments):
    """SORT (Bewley et al. 2016)."""

    name: Literal["sort"] = "sort"
    max_age: Frames = Field(1, description="Frames that a track survives without a detection.")
    min_hits: Frames = Field(3, description="Detections in frames in a row before a track is told.")
    iou_threshold: Share = Field(0.3, description="Least overlap (IoU) of a detection with the predicted box.")
    score_threshold: Share = Field(0.5, description="Detections with a lower score are not followed.")


class ByteTracker(Arguments):
    """ByteTrack (Zhang et al. 2022)."""

    name: Literal["byte-track"] = "byte-track"
    high: Share = Field(0.6, description="Detections from this score on are matched first and begin tracks.")
    low: Share = Field(0.1, description="Detections below this score are not looked at.")
    iou_threshold: Share = Field(0.2, description="Least overlap (IoU) of a first match with the predicted box.")
    low_iou_threshold: Share = Field(0.5, description="Least overlap (IoU) of a second match, of weak detections.")
    buffer: Frames = Field(30, description="Frames that a lost track is kept.")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


TrackerName = Literal["sort", "byte-track"]
Tracker = Annotated[SortTracker | ByteTracker, Field(discriminator="name")]


class ObjectTrackingArguments(ObjectDetectionArguments):
    """Arguments of `object-tracking`: those of `object-detection`, and the tracker."""

    tracker: Annotated[
        Tracker, BeforeValidator(_named, json_schema_input_type=TrackerName | SortTracker | ByteTracker)
    ] = Field(
        SortTracker(),
        description="Who joins the boxes of frames to tracks: `sort` (fast, forgets what is hidden) or `byte-track` "
        "(uses weak detections too, remembers hidden objects), or {name: ..., and its own arguments}.",
    )


TRACKING_TASKS = (
    TaskCard(
        "object-tracking",
        "boxes and classes of the objects in each frame of a video, and which of them are the same one",
        "headrace_models.tasks.object_tracking:ObjectTracking",
        ObjectTrackingArguments,
        "Bernardin & Stiefelhagen 2008; Ristani et al. 2016",
        metrics=TRACKING_METRICS,
        losses=("detection",),
        formats=("mot",),
        default_model="yolo",
        label_kind="annotation",
        inputs=PICTURES,
        outputs=DETECTED,
    ),
)
