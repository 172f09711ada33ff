"""The train step: what it takes from the store, what it does anew, and how it leaves MLflow. Training is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import DataInvalid, RunFailed, Superseded, Unavailable
from headrace.steps import keys
from headrace.steps.step import Step
from headrace.steps.train import TrainStep, TrainTools
from headrace.store import Store
from headrace.store.step_files import read_note, write_note
from headrace_models import catalog

SPLIT = "f" * 64
METRICS = catalog.tasks()["image-classification"].metrics
PART = {
    "tasks": [{"name": "image-classification", "args": {}}],
    "model": {"name": "resnet8", "args": {}, "code": None, "init_from": None, "freeze": []},
    "train": {"epochs": 2, "workers": {"min": 1, "max": 1}},
}


@dataclass
class Platform:
    """A stand-in of MLflow, Ray and the registry that records what is asked of it."""

    store: Store
    champion: Any = None
    accuracy: float = 0.9
    champion_error: str | None = None
    fails: Exception | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    def tools(self) -> TrainTools:
        return TrainTools(
            champion=lambda reference: self.champion, open_run=self.open_run, workers=self.workers, train=self.train
        )

    def open_run(self, step: Step, split_fingerprint: str) -> Any:
        self.said.append(f"open {step.run_id}")
        return SimpleNamespace(
            mlflow_run_id="m1",
            reserved_seconds=(12.0, 0.0),
            to_record=lambda: {"tracking_uri": "sqlite:///x", "experiment_id": "1", "run_id": "m1"},
            log_test_metrics=lambda metrics, package=None: self.said.append("test metrics"),
            log_pictures=lambda folder: self.said.append("pictures") or [],
            log_package=lambda folder, sha256: (
                self.said.append("package") or SimpleNamespace(model_uri="models:/m-1", model_id="m-1")
            ),
            set_tags=lambda tags: self.said.append(str(tags)),
            log_text=lambda text, path: self.said.append(f"{path}: {text}"),
            finish=lambda status="FINISHED": self.said.append(status),
        )

    @contextmanager
    def workers(self, step: Step, train: Any) -> Iterator[Any]:
        yield "the head", SimpleNamespace(least=1, most=1, cpus_per_worker=1.0, gpus_per_worker=0.0)

    def train(self, request: Any, *, connection: Any) -> Any:
        self.requests.append(request)
        if self.fails is not None:
            raise self.fails
        uri = request.package_uri or self.package("a" * 64)
        errors = {}
        for package in (uri, *request.evaluate):
            if package in request.evaluate and self.champion_error:
                errors[package] = self.champion_error
                continue
            self.evaluation(package.rsplit("/", 1)[-1], self.accuracy)
        return SimpleNamespace(
            package_uri=uri,
            package_sha256=uri.rsplit("/", 1)[-1],
            epochs_done=2,
            best_epoch=2,
            evaluation_errors=errors,
            seconds={"total": 1.0},
        )

    def package(self, sha256: str) -> str:
        uri = self.store.uri("packages", sha256)
        self.store.write_json(f"{uri}/headrace.json", {"provenance": self.provenance})
        return uri

    def evaluation(self, sha256: str, accuracy: float) -> None:
        uri = keys.evaluation_uri(self.store.uri, sha256, SPLIT)
        self.store.write_json(uri, {"metrics": dict.fromkeys(METRICS, accuracy), "samples": 10})


@pytest.fixture
def platform(store: Store) -> Platform:
    return Platform(store)


def version(platform: Platform, sha256: str = "c" * 64) -> Any:
    return SimpleNamespace(name="digits", version="3", package_uri=platform.package(sha256), package_sha256=sha256)


def run(
    platform: Platform, *, run_id: str = "digits-aaaaaaaa", part: Any = PART, champion: str = "", attempt: str = "1.1"
) -> Any:
    step = Step("train", run_id, attempt, platform.store)
    return TrainStep(step, platform.tools(), part, SPLIT, champion).run()


def test_a_training_that_is_in_the_store_is_not_done_again_and_makes_no_mlflow_run(platform: Platform) -> None:
    first = run(platform)
    again = run(platform, run_id="digits-bbbbbbbb")
    assert (first.state, again.state) == ("succeeded", "cached")
    assert len(platform.requests) == 1
    assert platform.said.count("open digits-bbbbbbbb") == 0
    assert again.values["trained_by"] == "digits-aaaaaaaa"
    assert again.values["mlflow"] == first.values["mlflow"]
    assert again.values["metrics"] == dict.fromkeys(METRICS, 0.9)


def test_what_was_taken_of_first_weights_is_logged_in_one_line_and_by_all_names(platform: Platform) -> None:
    run(platform)
    assert not [said for said in platform.said if "init_from" in said]
    platform.provenance = {"init_from": {"told": "1 weights loaded", "loaded": ["fc.weight"]}}
    run(platform, run_id="digits-bbbbbbbb", part={**PART, "model": {**PART["model"], "init_from": "/w.safetensors"}})
    tag, text = [said for said in platform.said if "init_from" in said]
    assert tag == "{'headrace.init_from': '1 weights loaded'}"
    assert text.startswith("init_from.json: ")
    assert json.loads(text.partition(": ")[2])["loaded"] == ["fc.weight"]


def split_of(store: Store, **counts: int) -> None:
    record = {"counts": {"train": 9, "validation": 1, "test": 2} | counts, "parameters": {"validation": 0.05}}
    store.write_json(store.uri("splits", SPLIT, "split.json"), record)


def test_early_stop_without_a_validation_sample_is_refused_before_anything_starts(platform: Platform) -> None:
    early = {"metric": None, "patience": 3, "min_delta": 0.0}
    part = {**PART, "train": {**PART["train"], "early_stop": early}}
    split_of(platform.store, validation=0)
    with pytest.raises(
        DataInvalid, match=r"train.early_stop .* no sample fell \(9 to train, 0 to validation"
    ) as raised:
        run(platform, part=part)
    assert "a larger data.split.validation (it is 0.05)" in raised.value.action
    assert platform.said == []
    assert run(platform).state == "succeeded"  # nothing watches it there
    split_of(platform.store, validation=1)
    assert run(platform, part=part).state == "succeeded"


def test_a_changed_epoch_count_trains_again(platform: Platform) -> None:
    run(platform)
    changed = {**PART, "train": {**PART["train"], "epochs": 3}}
    assert run(platform, run_id="digits-bbbbbbbb", part=changed).state == "succeeded"
    assert len(platform.requests) == 2


def test_a_cached_training_whose_package_is_gone_is_done_again(platform: Platform, store: Store) -> None:
    first = run(platform)
    Path(store.path(first.values["package_uri"]), "headrace.json").unlink()
    assert run(platform, run_id="digits-bbbbbbbb").state == "succeeded"
    assert len(platform.requests) == 2


def test_no_cache_trains_again_but_takes_what_the_same_run_made(platform: Platform, store: Store) -> None:
    run(platform)
    write_note(store, "digits-bbbbbbbb", "options", {"cache": False})
    assert run(platform, run_id="digits-bbbbbbbb").state == "succeeded"
    assert run(platform, run_id="digits-bbbbbbbb", attempt="2.1").state == "cached"
    assert len(platform.requests) == 2


def test_a_missing_evaluation_is_made_without_training(platform: Platform, store: Store) -> None:
    first = run(platform)
    Path(store.path(first.values["evaluation_uri"])).unlink()
    assert run(platform, run_id="digits-bbbbbbbb").state == "succeeded"
    assert platform.requests[1].train_needed is False
    assert platform.requests[1].package_uri == first.values["package_uri"]


@pytest.mark.parametrize("champions", [False, True])
def test_an_evaluation_of_before_a_metric_was_added_is_made_anew(
    platform: Platform, store: Store, champions: bool
) -> None:
    platform.champion = version(platform)
    first = run(platform, champion="digits@champion")
    uri = keys.evaluation_uri(store.uri, platform.champion.package_sha256, SPLIT)
    uri = uri if champions else first.values["evaluation_uri"]
    whole = store.read_json(uri)
    old = {name: value for name, value in whole["metrics"].items() if name != "top5_accuracy"}
    store.write_json(uri, {**whole, "metrics": old})
    again = run(platform, run_id="digits-bbbbbbbb", champion="digits@champion")
    assert (again.state, platform.requests[1].train_needed) == ("succeeded", False)
    assert set(again.values["metrics"]) == set(METRICS)
    assert store.read_json(uri) == whole
    assert run(platform, run_id="digits-cccccccc", champion="digits@champion").state == "cached"


def test_an_empty_test_split_is_measured_once(platform: Platform, store: Store) -> None:
    store.write_json(run(platform).values["evaluation_uri"], {"metrics": {}, "samples": 0})
    assert run(platform, run_id="digits-bbbbbbbb").state == "cached"


def test_a_new_champion_costs_an_evaluation_and_no_training(platform: Platform) -> None:
    run(platform)
    platform.champion = version(platform)
    outcome = run(platform, run_id="digits-bbbbbbbb", champion="digits@champion")
    assert platform.requests[1].train_needed is False
    assert platform.requests[1].evaluate == (platform.champion.package_uri,)
    assert outcome.values["champion"]["version"] == "3"
    assert outcome.values["champion"]["error"] is None
    assert run(platform, run_id="digits-cccccccc", champion="digits@champion").state == "cached"


def test_the_champion_is_measured_in_the_same_go_as_a_new_model(platform: Platform) -> None:
    platform.champion = version(platform)
    run(platform, champion="digits@champion")
    assert platform.requests[0].train_needed is True
    assert platform.requests[0].evaluate == (platform.champion.package_uri,)


def test_a_champion_that_could_not_be_measured_says_why(platform: Platform) -> None:
    platform.champion = version(platform)
    platform.champion_error = "its labels are other ones"
    outcome = run(platform, champion="digits@champion")
    assert outcome.values["champion"]["error"] == "its labels are other ones"


def test_a_champion_whose_files_are_gone_is_not_even_tried(platform: Platform) -> None:
    platform.champion = SimpleNamespace(
        name="digits", version="3", package_uri=platform.store.uri("packages", "gone"), package_sha256="c" * 64
    )
    outcome = run(platform, champion="digits@champion")
    assert platform.requests[0].evaluate == ()
    assert "is gone" in outcome.values["champion"]["error"]


def test_a_champion_that_headrace_did_not_register_says_so(platform: Platform) -> None:
    platform.champion = SimpleNamespace(name="digits", version="3", package_uri=None, package_sha256=None)
    outcome = run(platform, champion="digits@champion")
    assert "not registered by Headrace" in outcome.values["champion"]["error"]


def test_the_mlflow_run_is_known_while_training_goes_on(platform: Platform, store: Store) -> None:
    platform.fails = Unavailable("the head died")
    with pytest.raises(Unavailable):
        run(platform)
    assert read_note(store, "digits-aaaaaaaa", "mlflow") == {
        "tracking_uri": "sqlite:///x",
        "experiment_id": "1",
        "run_id": "m1",
    }


@pytest.mark.parametrize(
    ("raised", "status"), [(RunFailed("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")], ids=["failed", "cancelled"]
)
def test_a_training_that_ends_badly_ends_its_mlflow_run(platform: Platform, raised: BaseException, status: str) -> None:
    platform.fails = raised  # type: ignore[assignment]
    with pytest.raises(type(raised)):
        run(platform)
    assert platform.said == ["open digits-aaaaaaaa", status]


def test_a_run_killed_between_training_and_logging_logs_when_it_is_resumed(platform: Platform) -> None:
    first = run(platform)
    step = Step("train", "digits-aaaaaaaa", "2.1", platform.store)
    key = TrainStep(step, platform.tools(), PART, SPLIT, "").key
    step.remember(key, {**first.values, "model_uri": None})
    platform.said.clear()
    outcome = run(platform, attempt="2.1")
    assert outcome.state == "cached"
    assert outcome.values["model_uri"] == "models:/m-1"
    assert platform.said == ["open digits-aaaaaaaa", "package", "test metrics", "FINISHED"]


def test_a_superseded_attempt_remembers_nothing(platform: Platform, store: Store) -> None:
    store.claim_attempt("digits-aaaaaaaa", "2.1")
    with pytest.raises(Superseded):
        run(platform, attempt="1.1")
    assert store.exists(store.uri("index")) is False


def test_provenance_names_run_split_and_commit(platform: Platform, store: Store) -> None:
    write_note(store, "digits-aaaaaaaa", "origin", {"spec_sha256": "5" * 64, "git": {"commit": "abc", "dirty": True}})
    run(platform)
    assert platform.requests[0].provenance == {
        "run_id": "digits-aaaaaaaa",
        "split_fingerprint": SPLIT,
        "spec_sha256": "5" * 64,
        "spec_version": None,
        "git": {"commit": "abc", "dirty": True},
    }


# keys


def test_own_code_counts_by_its_content_and_not_by_where_the_store_lies() -> None:
    def key(sha256: str, uri: str) -> str:
        part = {**PART, "model": {**PART["model"], "code": {"sha256": sha256, "uri": uri}}}
        return keys.train_key(part, SPLIT, {"headrace": "1"})

    assert key("1", "/a/code/1.tar") == key("1", "/b/code/1.tar")
    assert key("1", "/a/code/1.tar") != key("2", "/a/code/2.tar")


def test_a_training_by_another_version_of_headrace_or_a_plugin_is_another_training() -> None:
    assert keys.train_key(PART, SPLIT, {"headrace": "1"}) != keys.train_key(PART, SPLIT, {"headrace": "2"})
    assert keys.train_key(PART, SPLIT, {"headrace": "1"}) != keys.train_key(PART, SPLIT, {"headrace": "1", "p": "1"})
    assert "headrace" in keys.code_versions()
