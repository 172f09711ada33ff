"""A search on a real Ray head: Ray Tune's ASHA stops who falls behind, and a killed search goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import write_json
from headrace.base.processes import session_members
from headrace.data import split_data
from headrace.local.ray_head import Head, ensure_head, head_environment
from headrace.store import Store
from headrace.training import Connection, Search, TrainingRequest, TrialOutcome, run_search
from headrace.training.checkpoint_folder import committed

pytestmark = pytest.mark.timeout(1200)
TASK = {"name": "image-classification", "args": {}}
EPOCHS = 6
EVERY_EPOCH = list(range(1, EPOCHS + 1))
END = 0


def _is_training(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::RayTrainWorker")
    except OSError:
        return False


class Trials:
    """Trainings of a small network on the digits, with one learning rate each."""

    def __init__(self, head: Head, folder: Path) -> None:
        self.store = Store(str(folder / "store"))
        part = {"source": "builtin:digits", "format": "image-folder", "max_corrupt": 0.01, "tasks": [TASK]}
        part |= dict.fromkeys(("label", "features", "id", "group", "time"))
        part["split"] = {"strategy": "stratified", "train": 0.3, "validation": 0.2, "test": 0.5, "seed": 0}
        self.fingerprint = split_data(part, store=self.store, source_fingerprint="", tell=print).fingerprint
        self.connection = Connection(head.address, head_environment(head), str(head.log_dir), head.leader)
        self.folder = folder

    def requests(self, name: str, rates: list[float], **model: Any) -> list[TrainingRequest]:
        run_id = f"tune-{name}"
        self.store.claim_attempt(run_id, "1.1")
        return [self._request(run_id, number, rate, model) for number, rate in enumerate(rates)]

    def _request(self, run_id: str, number: int, rate: float, model: Mapping[str, Any]) -> TrainingRequest:
        train = {
            "epochs": EPOCHS,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "args": {"lr": rate}},
            "losses": [{"task": TASK["name"], "name": "cross-entropy", "args": {}, "weight": 1.0}],
            "schedule": {"name": "constant", "args": {}},
            "seed": 3,
            "precision": "float32",
            "accumulate_steps": 1,
            "clip_norm": None,
            "ema_decay": None,
            "early_stop": None,
            "checkpoint_every_epochs": 1,
            "max_failures": 0,
        }
        part = {"name": "mlp", "args": {"hidden": [16]}, "code": None, "init_from": None, "freeze": [], **model}
        return TrainingRequest(
            run_id=run_id,
            attempt="1.1",
            train={"tasks": [TASK], "model": part, "train": train},
            split_fingerprint=self.fingerprint,
            store_url=self.store.url,
            checkpoints_uri=self.store.uri("runs", run_id, "trials", str(number), "checkpoints"),
            package_needed=False,
        )

    def wait_until_free(self) -> None:
        """Until Ray has ended the workers of a search that was killed: they write where the next one goes on."""
        assert self.connection.leader is not None
        deadline = time.monotonic() + 120
        while any(_is_training(process.pid) for process in session_members(self.connection.leader.pid)):
            assert time.monotonic() < deadline, "a worker outlives its search"
            time.sleep(0.1)

    def search(
        self, requests: list[TrainingRequest], known: Mapping[int, TrialOutcome] | None = None, **changes: Any
    ) -> tuple[dict[int, TrialOutcome], list[tuple[int, int]]]:
        """What became of each trial that was run, and (trial, epoch) as they were told; a trial's END is one, too."""
        settings = {"scheduler": "none", "grace_epochs": 1, "reduction_factor": 2, "epochs": EPOCHS}
        outcomes: dict[int, TrialOutcome] = {}
        told: list[tuple[int, int]] = []

        def ended(outcome: TrialOutcome) -> None:
            outcomes[outcome.number] = outcome
            told.append((outcome.number, END))

        run_search(
            requests,
            Search("accuracy", "max", **{**settings, **changes}),
            known or {},
            connection=self.connection,
            on_epoch=lambda number, entry: told.append((number, entry["epoch"])),
            on_end=ended,
        )
        return outcomes, told


@pytest.fixture(scope="module")
def trials(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(ensure_head(print), tmp_path_factory.mktemp("tune"))


@dataclass(frozen=True)
class Searched:
    """A search that went to its end: its trials, what became of them, and what was told."""

    requests: list[TrainingRequest]
    outcomes: dict[int, TrialOutcome]
    told: list[tuple[int, int]]


SLOW, HOPELESS, BROKEN, GOOD = range(4)  # the last beats the first at every rung
RATES = [0.03, 1e-7, 1e30, 0.2]


@pytest.fixture(scope="module")
def searched(trials: Trials) -> Searched:
    requests = trials.requests("asha", RATES)
    return Searched(requests, *trials.search(requests, scheduler="asha"))


def test_asha_stops_the_trials_that_fall_behind(trials: Trials, searched: Searched) -> None:
    outcomes = searched.outcomes
    assert {number: one.state for number, one in outcomes.items()} == {
        SLOW: "finished",
        HOPELESS: "stopped",
        BROKEN: "failed",
        GOOD: "finished",
    }
    assert len(outcomes[HOPELESS].history) < EPOCHS
    assert (outcomes[GOOD].value or 0) > 0.7 > (outcomes[HOPELESS].value or 0)
    assert outcomes[GOOD].value == max(entry["metrics"]["validation.accuracy"] for entry in outcomes[GOOD].history)
    assert committed(trials.store, searched.requests[SLOW].checkpoints_uri)
    assert trials.store.names(trials.store.uri("packages")) == []


def test_each_trial_is_told_epoch_by_epoch_and_its_end_before_the_next_one_begins(searched: Searched) -> None:
    assert [epoch for number, epoch in searched.told if number == SLOW] == [*EVERY_EPOCH, END]
    assert [number for number, _ in searched.told] == sorted(number for number, _ in searched.told)


def test_a_trial_whose_loss_is_no_number_fails_alone(searched: Searched) -> None:
    assert searched.outcomes[BROKEN].state == "failed"
    assert "training loss became" in searched.outcomes[BROKEN].why
    assert searched.outcomes[GOOD].state == "finished"


def test_known_trials_still_count_and_are_not_run_again(trials: Trials, searched: Searched) -> None:
    known = {number: searched.outcomes[number] for number in (SLOW, BROKEN, GOOD)}
    again, _ = trials.search(searched.requests, known, scheduler="asha")
    assert set(again) == {HOPELESS}
    assert again[HOPELESS].state == "stopped"  # by what the known ones had reached
    nothing, _ = trials.search(searched.requests, searched.outcomes, scheduler="asha")
    assert nothing == {}


def test_a_mistake_that_every_trial_would_make_ends_the_search_in_its_own_words(trials: Trials) -> None:
    requests = trials.requests("wrong", [0.1, 0.2], freeze=["nothing.like.it"])
    with pytest.raises(InvalidInput, match=r"nothing\.like\.it"):
        trials.search(requests)


SPEC = """
name: tuned
task: image-classification
data: {source: builtin:digits, split: {train: 0.3, validation: 0.2, test: 0.5}}
model: {name: mlp, hidden: [16]}
train: {epochs: 3, optimizer: {name: sgd, lr: 0.1}, batch_size: 32}
tune:
  search: grid
  space: {train.optimizer.lr: [1.0e-7, 0.2]}
gate: accuracy > 0.6
register: tuned
"""


def test_the_best_trial_of_a_run_passes_the_gate_and_its_trials_are_nested_in_mlflow(
    headrace_home: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "spec.yaml").write_text(SPEC)
    command = [Path(sys.executable).parent / "headrace", "run", "spec.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1000)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["model"]["name"] == "tuned"
    mlflow = MlflowClient(result["mlflow"]["tracking_uri"])
    parent = mlflow.get_run(result["mlflow"]["run_id"])
    assert parent.data.tags["headrace.tune.best"] == "2: lr=0.2"
    assert "trials.tsv" in {file.path for file in mlflow.list_artifacts(parent.info.run_id)}
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    nested = mlflow.search_runs([parent.info.experiment_id], query, order_by=["attributes.start_time ASC"])
    assert [run.data.params["train.optimizer.args.lr"] for run in nested] == ["1e-07", "0.2"]
    assert [run.info.status for run in nested] == ["FINISHED", "FINISHED"]
    best, same = (
        mlflow.get_metric_history(run_id, "validation.accuracy")
        for run_id in (nested[1].info.run_id, parent.info.run_id)
    )
    assert [point.value for point in best] == [point.value for point in same]
    assert not any(name.startswith("test.") for run in nested for name in run.data.metrics)


SEARCHER = """
import json, sys, time
from pathlib import Path
from headrace.training import Connection, Search, TrainingRequest, TrialOutcome, run_search
record = json.loads(Path(sys.argv[1]).read_text())
def epoch(number, entry):
    print("epoch", number, entry["epoch"], flush=True)
    while entry["epoch"] == 2:
        time.sleep(1)
run_search(
    [TrainingRequest.from_record(one) for one in record["requests"]],
    Search(**record["search"]), {0: TrialOutcome.from_record(record["known"])},
    connection=Connection.from_record(record["connection"]), on_epoch=epoch, on_end=lambda outcome: None,
)
"""


def test_a_killed_search_goes_on_from_the_checkpoint_of_the_trial_that_was_running(
    trials: Trials, searched: Searched
) -> None:
    requests = trials.requests("killed", [RATES[SLOW], RATES[GOOD]])
    known = {0: searched.outcomes[SLOW]}
    search = {"metric": "accuracy", "mode": "max", "scheduler": "none", "grace_epochs": 1, "reduction_factor": 2}
    record = {"requests": [one.to_record() for one in requests], "search": {**search, "epochs": EPOCHS}}
    record |= {"known": known[0].to_record(), "connection": trials.connection.to_record()}
    write_json(trials.folder / "search.json", record)
    command = [sys.executable, "-c", SEARCHER, str(trials.folder / "search.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as searcher:
        assert searcher.stdout is not None
        try:
            line = next((line for line in searcher.stdout if line.startswith("epoch 1 2")), "the search ended")
        finally:
            searcher.kill()
    assert line == "epoch 1 2\n"
    assert committed(trials.store, requests[1].checkpoints_uri)
    trials.wait_until_free()
    outcomes, told = trials.search(requests, known)
    assert set(outcomes) == {1}
    assert told == [(1, epoch) for epoch in (*EVERY_EPOCH, END)]
    assert outcomes[1].value == searched.outcomes[GOOD].value  # of a trial that was never killed
