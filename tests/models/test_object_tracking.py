"""The task of tracking: a detector's boxes become tracks, when it is judged and when it is served."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headrace_models.catalog import arguments, get
from headrace_models.detection.outputs import Detections, DetectorOutput
from headrace_models.tasks import Sample, Schema
from headrace_models.tasks.base import BadInput, Batch
from headrace_models.tasks.object_tracking import ObjectTracking
from headrace_models.tasks.tracking_metrics import TrackingMetrics

SIDE, FRAMES, ROWS = 64, 10, 8
CLASSES = ("ball", "box")


def task(**given: Any) -> ObjectTracking:
    made = ObjectTracking(arguments(get("task", "object-tracking"), given), Schema("annotation", CLASSES))
    made.preprocessing = {"image_size": [SIDE, SIDE], "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    return made


def picture(height: int = 128, width: int = 96) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 90, 200)).save(file, "PNG")
    return file.getvalue()


def sample(frame: int, boxes: list[list[float]], tracks: list[int], sequence: str = "a", **more: Any) -> Sample:
    names = [CLASSES[track % 2] for track in tracks]
    said = {"size": [SIDE, SIDE], "boxes": boxes, "names": names, "tracks": tracks}
    return Sample(
        f"{sequence}{frame}",
        picture(SIDE, SIDE),
        {"annotation": {**said, "sequence": sequence, "frame": frame, **more}},
    )


def walk(frame: int) -> list[list[float]]:
    """Two that pass each other."""
    return [[4.0 + 4 * frame, 10, 16.0 + 4 * frame, 22], [50.0 - 4 * frame, 40, 60.0 - 4 * frame, 56]]


def found_of(batch: Batch, boxes: torch.Tensor | None = None) -> DetectorOutput:
    """A detector that finds what there is."""
    rows = batch["labels"].shape[1]
    scores = (batch["labels"] >= 0).float() * 0.9
    return DetectorOutput(
        None, Detections(batch["boxes"] if boxes is None else boxes, scores, batch["labels"][:, :rows])
    )


def batch_of(made: ObjectTracking, samples: list[Sample]) -> Batch:
    return made.collate([made.decode(each) for each in samples])


def test_a_perfect_detector_makes_perfect_tracks_whoever_holds_the_frames() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1})
    samples = [sample(f, walk(f), [1, 2], name) for name in "ab" for f in range(1, FRAMES)]
    alone, halves = made.new_metrics(), [made.new_metrics(), made.new_metrics()]
    alone.update(found_of(batch_of(made, samples)), batch_of(made, samples))
    for worker, metrics in enumerate(halves):
        for each in samples[worker::2]:
            batch = batch_of(made, [each])
            metrics.update(found_of(batch), batch)
    together = made.new_metrics()
    together.merge([metrics.state() for metrics in halves])
    assert together.compute() == alone.compute()
    assert {name: alone.compute()[name] for name in ("mota", "idf1", "id_switches", "map50")} == {
        "mota": 1.0,
        "idf1": 1.0,
        "id_switches": 0.0,
        "map50": 1.0,
    }
    assert set(alone.compute()) == set(made.card.metrics)


def test_frames_that_a_detector_misses_cost_what_they_should() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1, "max_age": 1})
    metrics = made.new_metrics()
    for frame in range(1, 11):
        batch = batch_of(made, [sample(frame, walk(frame), [1, 2])])
        output = found_of(batch)
        assert output.detections is not None
        if frame in (5, 6):  # both are lost for two frames: their tracks end; others are told from their second box
            output = DetectorOutput(None, output.detections._replace(labels=torch.full_like(batch["labels"], -1)))
        metrics.update(output, batch)
    reached = metrics.compute()
    assert (reached["fn"], reached["fp"], reached["id_switches"], reached["fragments"]) == (6, 0, 2, 2)
    assert reached["mota"] == pytest.approx(1 - 8 / 20)


def test_frames_that_are_missing_count_as_frames() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1, "max_age": 1})
    metrics = made.new_metrics()
    for frame in (1, 2, 3, 7, 8, 9):  # the tracks end in between
        batch = batch_of(made, [sample(frame, walk(1), [1, 2])])
        metrics.update(found_of(batch), batch)
    assert metrics.compute()["id_switches"] == 2


def test_what_does_not_count_is_neither_missed_nor_wrong() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1})
    metrics = made.new_metrics()
    for frame in range(1, FRAMES):
        batch = batch_of(made, [sample(frame, walk(frame), [1, 2], difficult=[False, True])])
        metrics.update(found_of(batch), batch)
    reached = metrics.compute()
    assert (reached["mota"], reached["fp"], reached["fn"]) == (1.0, 0.0, 0.0)


def test_the_clips_of_joined_requests_do_not_mix() -> None:
    """Two clips show the same walk at the same place: in one batch each has its own tracks, from 1 on."""
    made = task(tracker={"name": "sort", "min_hits": 1})
    frames = np.empty(6, dtype=object)
    frames[:] = [picture()] * 6
    batches = [made.preprocess({"image": frames}), made.preprocess({"image": frames[:4]})]
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    boxes = torch.zeros(10, ROWS, 4)
    labels = torch.full((10, ROWS), -1)
    for row in range(10):
        boxes[row, :2] = torch.tensor(walk(row % 6))
        labels[row, :2] = torch.tensor([0, 1])
    answer = made.postprocess(DetectorOutput(None, Detections(boxes, (labels >= 0).float(), labels)), joined)
    assert answer["tracks"][:, :2].tolist() == [[1, 2]] * 10
    assert answer["count"].tolist() == [2] * 10
    assert answer["labels"][0].tolist() == ["ball", "box"] + [""] * (ROWS - 2)
    np.testing.assert_allclose(answer["boxes"][0, 0], np.array(walk(0)[0]) * [1.5, 2, 1.5, 2], rtol=1e-5)
    specs = {spec.name for spec in made.signature().outputs}
    assert set(answer) == specs


def test_the_tracker_is_chosen_by_name_and_bad_ones_are_told() -> None:
    from headrace.base.errors import SpecInvalid
    from headrace_models.tracking.byte_track import ByteTrack
    from headrace_models.tracking.sort import Sort

    assert isinstance(task().new_tracker(), Sort)
    assert isinstance(task(tracker="byte-track").new_tracker(), ByteTrack)
    with pytest.raises(SpecInvalid, match="tracker"):
        task(tracker="deepsort")
    with pytest.raises(SpecInvalid, match="buffer"):
        task(tracker={"name": "sort", "buffer": 3})
    record = task(tracker="byte-track").to_record()
    assert json.loads(json.dumps(record))["args"]["tracker"]["name"] == "byte-track"


def test_a_picture_that_is_no_frame_is_refused_in_a_sentence() -> None:
    bad = sample(1, walk(1), [1, 2])
    del bad.labels["annotation"]["tracks"]  # type: ignore[index]
    with pytest.raises(BadInput, match="no frame of a video"):
        task().decode(bad)


def test_what_a_zoom_leaves_out_takes_its_track_along() -> None:
    import random

    made = task(augment="flips-zoom")
    edge = [[0.0, 0, 6, 6], [58.0, 58, 64, 64], [0.0, 58, 6, 64], [58.0, 0, 64, 6]]
    example = made.decode(sample(1, edge, [1, 2, 3, 4]))
    varied = [made.augment(example, random.Random(seed)) for seed in range(60)]
    assert {len(each["tracks"]) for each in varied} > {4}  # some vanish
    assert all(len(each["tracks"]) == len(each["labels"]) == len(each["boxes"]) for each in varied)
    assert all((each["labels"] == each["tracks"] % 2).all() for each in varied)
    made.collate(varied)


def test_the_film_shows_the_first_video_in_its_order() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1})
    samples = [sample(frame, walk(frame), [1, 2], name) for frame in (3, 1, 2) for name in ("b", "a")]
    labels = [json.dumps(each.labels["annotation"]) for each in samples]
    shown = made.to_show(len(labels), labels.__getitem__)
    assert [samples[place].sample_id for place in shown] == ["a1", "a2", "a3"]
    examples = [made.decode(samples[place]) for place in shown]
    batch = made.collate(examples)
    film = made.example_pictures(examples, found_of(batch))["example_tracks"]
    assert isinstance(film, bytes)
    with Image.open(io.BytesIO(film)) as gif:
        assert (gif.format, gif.n_frames) == ("GIF", 3)
        colours = {colour for _, colour in gif.convert("RGB").getcolors(1 << 16) or ()}
    assert len(colours) > 2  # the ground, and the two tracks


def test_the_paths_are_drawn() -> None:
    made = task(tracker={"name": "sort", "min_hits": 1})
    metrics = made.new_metrics()
    batch = batch_of(made, [sample(frame, walk(frame), [1, 2]) for frame in range(1, FRAMES)])
    metrics.update(found_of(batch), batch)
    assert isinstance(metrics, TrackingMetrics)
    figures = made.plots(metrics)
    assert {"tracks", "precision_recall"} <= set(figures)
    assert len(figures["tracks"].axes[0].lines) == 4  # two true paths, two tracks
