"""Object tracking: a detector finds the objects of each frame, a tracker tells which of them are the same one.

The detector is trained as in `object_detection`, whose facts and outputs these are. The tracker learns nothing: it goes
through each video when it is judged, and through the frames of each request when it is served (`TrackingMetrics`,
`headrace_models.tracking`). A request is one clip: its rows are consecutive frames.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from headrace_models.catalog.cards import TaskCard
from headrace_models.catalog.tracking_cards import TRACKING_TASKS, ByteTracker, ObjectTrackingArguments
from headrace_models.detection.outputs import PADDING
from headrace_models.tasks.base import Arrays, BadInput, Batch, Example, Metrics, Sample, Signature, TensorSpec
from headrace_models.tasks.object_detection import ObjectDetection
from headrace_models.tasks.tracking_metrics import TrackingMetrics
from headrace_models.tracking.byte_track import ByteTrack
from headrace_models.tracking.sort import Sort
from headrace_models.tracking.tracker import Tracked, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_TRACK = 0  # in padding of `tracks`
SHOWN_FRAMES = 48  # of the video that is drawn
_clips = itertools.count(1)  # numbers of the clips that this process was asked about


class ObjectTracking(ObjectDetection):
    """See the module."""

    card: ClassVar[TaskCard] = next(card for card in TRACKING_TASKS if card.name == "object-tracking")
    args: ObjectTrackingArguments

    def new_tracker(self) -> Tracker:
        """The tracker that the arguments name, at the beginning of a video."""
        chosen = self.args.tracker
        settings = chosen.model_dump(exclude={"name"})
        return ByteTrack(**settings) if isinstance(chosen, ByteTracker) else Sort(**settings)

    # samples to batches

    def objects_of(self, sample: Sample) -> dict[str, np.ndarray] | None:
        """As `ObjectDetection.objects_of`, with `tracks` int64 [M].

        Raises:
            BadInput: the sample is no frame of a video, or its objects have no track numbers.
        """
        found = super().objects_of(sample)
        if found is None:
            return None
        said = sample.labels[self.schema.label or "annotation"]
        tracks = said.get("tracks", [])
        if "frame" not in said or len(tracks) != len(said["names"]) or None in tracks:
            raise BadInput(f"{sample.sample_id} is no frame of a video with a track number for each object")
        return {**found, "tracks": np.array(tracks, dtype=np.int64)}

    def decode(self, sample: Sample) -> Example:
        """As `ObjectDetection.decode`, with `tracks`, and the numbers of `video` and `frame`."""
        example = super().decode(sample)
        said = sample.labels.get(self.schema.label or "annotation")
        if said is None:
            return example
        return {**example, "video": _number_of(said["sequence"]), "frame": int(said["frame"])}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """As `ObjectDetection.collate`, with `tracks` int64 [batch, M], `video` and `frame` int64 [batch]."""
        batch = super().collate(examples)
        if "boxes" not in batch:
            return batch
        tracks = torch.full(batch["labels"].shape, NO_TRACK, dtype=torch.int64)
        for row, example in enumerate(examples):
            tracks[row, : len(example["tracks"])] = torch.from_numpy(example["tracks"])
        places = {name: torch.tensor([example[name] for example in examples]) for name in ("video", "frame")}
        return {**batch, "tracks": tracks, **places}

    # judging

    def new_metrics(self) -> Metrics:
        """See `TrackingMetrics`."""
        return TrackingMetrics(len(self.classes), self.new_tracker)

    def plots(self, metrics: Metrics) -> dict[str, Figure]:
        """The detector's plots, and `tracks`: where the objects of some videos went, and what was told of them."""
        from headrace_models.tasks import tracking_plots

        assert isinstance(metrics, TrackingMetrics)
        return {**super().plots(metrics.detection), "tracks": tracking_plots.paths(metrics, self.image_size)}

    def to_show(self, count: int, label: Callable[[int], Any]) -> Sequence[int]:
        """The first frames of the first video, in their order."""
        said = [json.loads(label(place)) for place in range(count)]
        if not said:
            return []
        first = min(record["sequence"] for record in said)
        frames = sorted((record["frame"], n) for n, record in enumerate(said) if record["sequence"] == first)
        return [n for _, n in frames[:SHOWN_FRAMES]]

    def example_pictures(self, examples: Sequence[Example], outputs: Any) -> dict[str, Figure | bytes]:
        """`example_tracks`: the frames one after the other (GIF), each track in a colour of its own."""
        from headrace_models.tasks import tracking_plots

        if not examples:
            return {}
        found = [part.cpu().numpy() for part in self.detections(outputs)]
        told = self._followed(*found)
        return {"example_tracks": tracking_plots.film([example["image"] for example in examples], told)}

    # serving

    def signature(self) -> Signature:
        """As `ObjectDetection.signature`, with `tracks`: from 1 on, 0 in padding. The rows are frames of one clip."""
        detection = super().signature()
        outputs = (*detection.outputs, TensorSpec("tracks", "INT64", (-1, -1)))
        return Signature(detection.inputs, outputs, detection.alternatives)

    def preprocess(self, inputs: Arrays) -> Batch:
        """See `Task.preprocess`: the frames of one clip, which is told apart from those of other requests."""
        batch = super().preprocess(inputs)
        return {**batch, "clip": torch.full((len(batch["image"]),), next(_clips), dtype=torch.int64)}

    def postprocess(self, outputs: Any, batch: Batch) -> Arrays:
        """What the signature says: the boxes that belong to tracks, by track."""
        boxes, scores, labels = (part.cpu().numpy() for part in self.detections(outputs))
        clips = batch["clip"].tolist()
        told: list[Tracked] = []
        for _, rows in itertools.groupby(range(len(clips)), key=clips.__getitem__):
            clip = list(rows)
            told += self._followed(boxes[clip], scores[clip], labels[clip])
        return self._answer(told, boxes.shape[1], batch)

    def _followed(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[Tracked]:
        """What a tracker tells of consecutive frames' detections, padded as detectors give them."""
        tracker, told = self.new_tracker(), []
        for frame, real in enumerate(labels != PADDING):
            found = boxes[frame][real].astype(float), scores[frame][real].astype(float), labels[frame][real]
            told.append(tracker.update(*found))
        return told

    def _answer(self, told: Sequence[Tracked], most: int, batch: Batch) -> Arrays:
        boxes = np.zeros((len(told), most, 4), np.float32)
        scores = np.zeros((len(told), most), np.float32)
        labels = np.full((len(told), most), PADDING, dtype=np.int64)
        tracks = np.full((len(told), most), NO_TRACK, dtype=np.int64)
        padded: tuple[np.ndarray, ...] = (boxes, scores, labels, tracks)
        for row, frame in enumerate(told):
            for rows, values in zip(padded, frame, strict=True):
                rows[row, : len(values)] = values
        return {**self.answer(boxes, scores, labels, batch), "tracks": tracks}


def _number_of(name: str) -> int:
    """A video's number: the same on every worker."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
