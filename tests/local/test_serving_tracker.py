"""A served tracker, as docs/models/tracking.md has it: a request is a clip, and clips of several clients do not mix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.http as triton

from headrace.base.jsonfile import sha256_of
from headrace.data import builtin_shape_tracks
from headrace.local.deployments import deploy, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.ray_head import Head
from headrace.serving.contract import StableVersion
from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import Sample, Schema, build_task

pytestmark = pytest.mark.timeout(600)
OUTPUTS = ("boxes", "scores", "labels", "tracks", "count")


def clip(number: int, frames: int = 8) -> np.ndarray:
    """Frames of one of the made videos, as `image` of a request."""
    files = builtin_shape_tracks.contents()
    found = np.empty(frames, dtype=object)
    found[:] = [files[f"video-{number:02d}/img1/{frame:06d}.png"] for frame in range(1, frames + 1)]
    return found


@pytest.fixture(scope="module")
def package(headrace_home: Path) -> StableVersion:
    """A small detector as it begins, all of whose boxes are followed: what it says is no use, but always the same."""
    schema = Schema("annotation", builtin_shape_tracks.CLASSES)
    tracker = {"name": "sort", "min_hits": 1, "score_threshold": 0.0}
    task = build_task({"name": "object-tracking", "args": {"tracker": tracker}}, schema)
    said = {"size": [96, 96], "boxes": [[10, 10, 30, 34]], "names": ["square"], "tracks": [1], "sequence": "a"}
    samples = [Sample(str(n), picture, {"annotation": {**said, "frame": n}}) for n, picture in enumerate(clip(0), 1)]
    task.learn([task.summarise(samples)])
    record = {"name": "yolo", "args": {"width": 8, "score_threshold": 0.0, "max_detections": 10}}
    torch.manual_seed(3)
    folder = headrace_home / "store" / "packages" / sha256_of(["test", "tracker"])
    model = build_model(record, task)
    request = task.request(samples[:2])
    sha256 = write_package(
        folder, task=task, model=model, model_record=record, code_folder=None, provenance={}, example=request
    )
    return StableVersion("1", str(folder), sha256)


@pytest.fixture(scope="module")
def address(head: Head, package: StableVersion) -> Iterator[str]:
    served = deploy(Deployment("serving-tracker", "shapes", package), tell=print)
    yield served["url"].removeprefix("http://")
    undeploy("serving-tracker")


@pytest.fixture
def ask(address: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The endpoint's answer to a clip, by a client of its own."""

    def asked(frames: np.ndarray) -> dict[str, np.ndarray]:
        with triton.InferenceServerClient(address, network_timeout=60, connection_timeout=60) as client:
            image = triton.InferInput("image", list(frames.shape), "BYTES")
            image.set_data_from_numpy(frames)
            answer = client.infer("serving-tracker", [image])
        return {name: answer.as_numpy(name) for name in OUTPUTS}

    return asked


def test_the_endpoint_says_that_it_takes_pictures_and_gives_tracks(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        told = client.get_model_metadata("serving-tracker")
    assert {tensor["name"] for tensor in told["outputs"]} == set(OUTPUTS)
    assert next(t for t in told["outputs"] if t["name"] == "tracks") == {
        "name": "tracks",
        "datatype": "INT64",
        "shape": [-1, -1],
    }


def test_a_clip_in_one_request_is_followed_from_frame_to_frame(ask: Callable[..., dict[str, np.ndarray]]) -> None:
    answer = ask(clip(0))
    assert all(len(answer[name]) == 8 for name in OUTPUTS)
    counts = answer["count"].ravel()
    assert counts.min() > 0
    seen = [set(tracks[:count].tolist()) for tracks, count in zip(answer["tracks"], counts, strict=True)]
    assert seen[0] == set(range(1, counts[0] + 1))  # numbers begin at 1
    assert all(0 not in tracks and len(tracks) == count for tracks, count in zip(seen, counts, strict=True))
    assert all(before & after for before, after in itertools.pairwise(seen))  # and are kept
    for frame, count in enumerate(counts):
        assert not answer["tracks"][frame, count:].any()  # what is padding has no track
    assert ask(clip(0))["tracks"].tolist() == answer["tracks"].tolist()  # numbers mean nothing in the next request


def test_clips_that_come_together_are_answered_as_if_each_came_alone(
    ask: Callable[..., dict[str, np.ndarray]], package: StableVersion
) -> None:
    alone = load_package(package.package_uri)
    clips = [clip(number, frames) for number, frames in enumerate((8, 3, 5, 8, 1, 6))]
    with ThreadPoolExecutor(len(clips)) as pool:
        answers = list(pool.map(ask, clips))
    for frames, answer in zip(clips, answers, strict=True):
        expected = alone.predict({"image": frames})
        assert answer["tracks"].tolist() == expected["tracks"].tolist()
        np.testing.assert_allclose(answer["boxes"], expected["boxes"], atol=0.05)
