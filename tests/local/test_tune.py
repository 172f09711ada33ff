"""A search on a real Ray head: Ray Tune's ASHA stops who falls behind, and a killed search goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import write_json
from headrace.data import split_data
from headrace.local.ray_head import Head, ensure_head, head_environment
from headrace.store import Store
from headrace.training import Connection, Search, TrainingRequest, TrialOutcome, run_search
from headrace.training.checkpoint_folder import committed

TASK = {"name": "image-classification", "args": {}}
EPOCHS = 6


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

    def search(
        self, requests: list[TrainingRequest], known: Mapping[int, TrialOutcome] | None = None, **changes: Any
    ) -> tuple[dict[int, TrialOutcome], list[tuple[int, int]]]:
        """What became of each trial that was run, and (trial, epoch) in the order in which they were told."""
        settings = {"scheduler": "none", "grace_epochs": 1, "reduction_factor": 2, "epochs": EPOCHS}
        outcomes: dict[int, TrialOutcome] = {}
        epochs: list[tuple[int, int]] = []
        run_search(
            requests,
            Search("accuracy", "max", **{**settings, **changes}),
            known or {},
            connection=self.connection,
            on_epoch=lambda number, entry: epochs.append((number, entry["epoch"])),
            on_end=lambda outcome: outcomes.update({outcome.number: outcome}),
        )
        return outcomes, epochs


@pytest.fixture(scope="module")
def trials(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(ensure_head(print), tmp_path_factory.mktemp("tune"))


def test_asha_stops_the_trials_that_fall_behind_and_known_ones_still_count(trials: Trials) -> None:
    requests = trials.requests("asha", [0.03, 1e-7, 2e-7, 0.2])  # the last beats the first at every rung
    outcomes, epochs = trials.search(requests, scheduler="asha")
    assert {number: one.state for number, one in outcomes.items()} == {
        0: "finished",
        1: "stopped",
        2: "stopped",
        3: "finished",
    }
    assert [epoch for number, epoch in epochs if number == 0] == list(range(1, EPOCHS + 1))
    assert len(outcomes[1].history) < EPOCHS
    assert (outcomes[3].value or 0) > 0.7 > (outcomes[1].value or 0)
    assert outcomes[3].value == max(entry["metrics"]["validation.accuracy"] for entry in outcomes[3].history)
    assert committed(trials.store, requests[0].checkpoints_uri)
    assert trials.store.names(trials.store.uri("packages")) == []
    again, _ = trials.search(requests, {0: outcomes[0], 3: outcomes[3]}, scheduler="asha")
    assert set(again) == {1, 2}
    assert {one.state for one in again.values()} == {"stopped"}  # by what the known ones had reached
    nothing, _ = trials.search(requests, outcomes, scheduler="asha")
    assert nothing == {}


def test_a_trial_whose_loss_is_no_number_fails_alone(trials: Trials) -> None:
    outcomes, _ = trials.search(trials.requests("nan", [1e30, 0.2]))
    assert outcomes[0].state == "failed"
    assert "training loss became" in outcomes[0].why
    assert outcomes[1].state == "finished"


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
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
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
import json, sys
from pathlib import Path
from headrace.training import Connection, Search, TrainingRequest, TrialOutcome, run_search
record = json.loads(Path(sys.argv[1]).read_text())
known = {}
def ended(outcome):
    known[outcome.number] = outcome.to_record()
    Path(sys.argv[2]).write_text(json.dumps(known))
run_search(
    [TrainingRequest.from_record(one) for one in record["requests"]],
    Search(**record["search"]), {}, connection=Connection.from_record(record["connection"]),
    on_epoch=lambda number, entry: print("epoch", number, entry["epoch"], flush=True), on_end=ended,
)
"""


def test_a_killed_search_goes_on_from_the_checkpoint_of_the_trial_that_was_running(trials: Trials) -> None:
    requests = trials.requests("killed", [0.2, 0.3])
    search = {"metric": "accuracy", "mode": "max", "scheduler": "none", "grace_epochs": 1, "reduction_factor": 2}
    record = {"requests": [one.to_record() for one in requests], "search": {**search, "epochs": EPOCHS}}
    write_json(trials.folder / "search.json", {**record, "connection": trials.connection.to_record()})
    ended = trials.folder / "ended.json"
    searcher = subprocess.Popen(
        [sys.executable, "-c", SEARCHER, str(trials.folder / "search.json"), str(ended)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert searcher.stdout is not None
    for line in searcher.stdout:
        if line.startswith("epoch 1 2"):
            break
    searcher.kill()
    searcher.wait()
    known = {int(n): TrialOutcome.from_record(one) for n, one in json.loads(ended.read_text()).items()}
    assert set(known) == {0}
    deadline = time.monotonic() + 30
    while len(committed(trials.store, requests[1].checkpoints_uri) or ()) == 0:
        assert time.monotonic() < deadline
    trials.store.claim_attempt(requests[0].run_id, "1.1")
    outcomes, epochs = trials.search(requests, known)
    assert set(outcomes) == {1}
    assert [epoch for _, epoch in epochs] == list(range(1, EPOCHS + 1))
    straight, _ = trials.search(trials.requests("straight", [0.2, 0.3]), known)
    assert outcomes[1].value == straight[1].value
