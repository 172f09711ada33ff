"""The train step of a spec that searches: what it runs and keeps, and what becomes the model. Trainings are played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import DataInvalid, RunFailed, Unavailable
from headrace.steps import keys
from headrace.steps.step import Step
from headrace.steps.train import TrainTools
from headrace.steps.tune import TuneStep, TuneTools
from headrace.store import Store
from headrace.training import Search, TrialOutcome
from headrace_models import catalog

SPLIT = "f" * 64
METRICS = catalog.tasks()["image-classification"].metrics
RUN = "digits-aaaaaaaa"
PART = {
    "tasks": [{"name": "image-classification", "args": {}}],
    "model": {"name": "resnet8", "args": {}, "code": None, "init_from": None, "freeze": []},
    "train": {"epochs": 3, "optimizer": {"name": "sgd", "args": {}}, "workers": {"min": 1, "max": 2}},
    "tune": {
        "metric": None,
        "search": "grid",
        "samples": 8,
        "scheduler": "none",
        "grace_epochs": 1,
        "reduction_factor": 3,
        "concurrent": 2,
        "seed": 0,
        "space": {"train.optimizer.args.lr": {"draw": "choice", "values": [0.1, 0.2, 0.3, 0.4]}},
    },
}
VALUES = {0.1: 0.5, 0.2: 0.9, 0.3: 0.9, 0.4: None}  # by learning rate; the last one's loss is no number


def rate(request: Any) -> float:
    return float(request.train["train"]["optimizer"]["args"]["lr"])


@dataclass
class Platform:
    """A stand-in of MLflow, Ray and the trainings that records what is asked of it."""

    store: Store
    values: Mapping[float, float | None] = field(default_factory=lambda: dict(VALUES))
    granted: int = 4
    dies_after: int | None = None
    searches: list[tuple[Any, ...]] = field(default_factory=list)
    trained: list[Any] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    wanted: list[Any] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)

    def step(self, part: Any = PART, run_id: str = RUN, attempt: str = "1.1") -> TuneStep:
        tools = TrainTools(
            champion=lambda reference: None, open_run=self.open_run, workers=self.workers, train=self.train
        )
        tune_tools = TuneTools(search=self.search, open_trial=self.open_trial)
        return TuneStep(Step("train", run_id, attempt, self.store), tools, tune_tools, part, SPLIT, "")

    def open_run(self, step: Step, split_fingerprint: str) -> Any:
        return SimpleNamespace(
            mlflow_run_id="m1",
            reserved_seconds=(0.0, 0.0),
            to_record=lambda: {"tracking_uri": "sqlite:///x", "experiment_id": "1", "run_id": "m1"},
            log_test_metrics=lambda metrics, package=None: None,
            log_pictures=lambda folder: [],
            log_package=lambda folder, sha256: SimpleNamespace(model_uri="models:/m-1", model_id="m-1"),
            log_text=lambda text, path: self.texts.update({path: text}),
            set_tags=self.tags.update,
            finish=lambda status="FINISHED": self.said.append(f"run {status}"),
        )

    def open_trial(self, step: Step, parent: Any, number: int, part: Any, overrides: Any) -> Any:
        self.said.append(f"trial {number} in {parent.mlflow_run_id}")
        return SimpleNamespace(
            log_metrics=lambda metrics, step: self.said.append(f"trial {number} epoch {step}"),
            finish=lambda status="FINISHED": self.said.append(f"trial {number} {status}"),
        )

    @contextmanager
    def workers(self, step: Step, train: Any) -> Iterator[Any]:
        self.wanted.append(train["workers"])
        most = min(self.granted, train["workers"]["max"])
        yield "the head", Demand(1, most, 1.0, 0.0)

    def search(self, requests: Any, search: Search, known: Any, *, connection: Any, on_epoch: Any, on_end: Any) -> None:
        self.searches.append((requests, search, known))
        for number, request in enumerate(requests):
            if number in known:
                continue
            value = self.values[rate(request)]
            history = []
            for epoch in range(1, 4):
                metrics = {"validation.accuracy": (value or 0.0) - abs(2 - epoch) / 10, "train.loss": 1.0}
                history.append({"epoch": epoch, "metrics": metrics, "time": 0.0})
                on_epoch(number, history[-1])
            if self.dies_after is not None and number == self.dies_after:
                raise Unavailable("the head died")
            state = "finished" if value is not None else "failed"
            on_end(TrialOutcome(number, state, value, 2, why="the loss became nan", history=history))

    def train(self, request: Any, *, connection: Any) -> Any:
        self.trained.append(request)
        uri = self.store.uri("packages", "a" * 64)
        self.store.write_json(f"{uri}/headrace.json", {})
        evaluation = {"metrics": dict.fromkeys(METRICS, 0.8), "samples": 10}
        self.store.write_json(keys.evaluation_uri(self.store.uri, "a" * 64, SPLIT), evaluation)
        return SimpleNamespace(
            package_uri=uri,
            package_sha256="a" * 64,
            epochs_done=3,
            best_epoch=2,
            evaluation_errors={},
            seconds={"total": 1.0},
        )


@dataclass(frozen=True)
class Demand:
    least: int
    most: int
    cpus_per_worker: float
    gpus_per_worker: float


@pytest.fixture
def platform(store: Store) -> Platform:
    return Platform(store)


def test_without_a_validation_sample_no_trial_begins(platform: Platform) -> None:
    record = {"counts": {"train": 9, "validation": 0, "test": 2}, "parameters": {"validation": 0.05}}
    platform.store.write_json(platform.store.uri("splits", SPLIT, "split.json"), record)
    with pytest.raises(DataInvalid, match=r"^tune goes by the validation split, to which no sample fell") as raised:
        platform.step().run()
    assert raised.value.code == "no-validation"
    assert "more data, or a larger data.split.validation (it is 0.05), or leave out tune" in raised.value.action
    assert (platform.said, platform.searches) == ([], [])


def test_the_best_trial_on_the_validation_split_becomes_the_model(platform: Platform) -> None:
    values = platform.step().run().values
    (request,) = platform.trained
    assert rate(request) == 0.2  # of equals the first
    assert request.package_needed
    assert request.checkpoints_uri == platform.store.uri("runs", RUN, "trials", "002", "checkpoints")
    assert values["package_sha256"] == "a" * 64
    assert values["tune"] == {
        "best": 2,
        "overrides": {"train.optimizer.args.lr": 0.2},
        "metric": "accuracy",
        "value": 0.9,
        "trials": 4,
    }
    assert platform.tags == {"headrace.tune.best": "2: lr=0.2"}
    assert platform.texts["trials.tsv"].splitlines() == [
        "trial\ttrain.optimizer.args.lr\taccuracy\tepochs\tstate",
        "1\t0.1\t0.5\t3\tfinished",
        "2\t0.2\t0.9\t3\tfinished",
        "3\t0.3\t0.9\t3\tfinished",
        "4\t0.4\t\t3\tfailed",
    ]


def test_trials_only_train_each_in_a_place_and_an_mlflow_run_of_its_own(platform: Platform) -> None:
    platform.step().run()
    ((requests, search, _),) = platform.searches
    assert [rate(request) for request in requests] == [0.1, 0.2, 0.3, 0.4]
    assert not any(request.package_needed or request.tracking_uri or request.evaluate for request in requests)
    assert len({request.checkpoints_uri for request in requests}) == 4
    assert all("tune" not in request.train for request in requests)
    assert (search.metric, search.mode, search.epochs) == ("accuracy", "max", 3)
    assert [line for line in platform.said if line.startswith("trial 4")] == [
        "trial 4 in m1",
        *(f"trial 4 epoch {epoch}" for epoch in (1, 2, 3)),
        "trial 4 FAILED",
    ]
    assert platform.said[-1] == "run FINISHED"


@pytest.mark.parametrize(("granted", "at_a_time", "each"), [(4, 2, 2), (3, 1, 2), (1, 1, 1)])
def test_as_many_trials_run_at_a_time_as_there_is_room_for(
    platform: Platform, granted: int, at_a_time: int, each: int
) -> None:
    platform.granted = granted
    platform.step().run()
    assert platform.wanted[0] == {"min": 1, "max": 4}
    ((requests, search, _),) = platform.searches
    assert search.concurrent == at_a_time
    assert {request.workers for request in requests} == {(1, each)}


def test_a_search_that_was_killed_goes_on_with_the_trials_that_are_left(platform: Platform) -> None:
    platform.dies_after = 2
    with pytest.raises(Unavailable):
        platform.step().run()
    assert "trial 3 KILLED" in platform.said
    assert platform.said[-1] == "run FAILED"
    platform.dies_after = None
    outcome = platform.step(attempt="2.1").run()
    assert set(platform.searches[1][2]) == {0, 1}
    assert platform.searches[1][2][1].value == 0.9
    assert outcome.values["tune"]["best"] == 2


def test_a_search_that_is_done_and_was_killed_before_its_model_searches_no_more(platform: Platform) -> None:
    first = platform.step()
    first._call = lambda *args, **rest: (_ for _ in ()).throw(Unavailable("the head died"))  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        first.run()
    platform.step(attempt="2.1").run()
    assert len(platform.searches) == 1
    assert len(platform.trained) == 1


def test_the_whole_search_is_cached_like_any_training(platform: Platform) -> None:
    first = platform.step().run()
    again = platform.step(run_id="digits-bbbbbbbb").run()
    assert again.state == "cached"
    assert again.values["tune"] == first.values["tune"]
    assert len(platform.searches) == 1
    other = {**PART, "tune": {**PART["tune"], "seed": 1}}  # type: ignore[dict-item]
    assert platform.step(other, run_id="digits-cccccccc").run().state == "succeeded"


def test_trials_leave_no_checkpoints_behind(platform: Platform, store: Store) -> None:
    store.write_json(store.uri("runs", RUN, "trials", "001", "checkpoints", "x.json"), {})
    platform.step().run()
    assert not store.exists(store.uri("runs", RUN, "trials", "001", "checkpoints", "x.json"))
    assert store.exists(store.uri("runs", RUN, "trials", "001", "trial.json"))


def test_a_search_whose_trials_all_fail_says_why(platform: Platform) -> None:
    platform.values = dict.fromkeys(VALUES, None)
    with pytest.raises(RunFailed, match="none of 4 trials came to its end: the loss became nan"):
        platform.step().run()
    assert platform.trained == []
