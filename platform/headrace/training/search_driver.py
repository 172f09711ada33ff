"""The process in which Ray Tune runs: `python -m headrace.training.search_driver SCRATCH`.

SCRATCH holds request.json (the trials' requests, which of them are known, how they are compared) when it starts. It
writes reports.jsonl, a line for each epoch of a trial and one for its end, and outcome.json when it is done; a trial
leaves trial-N.json. Ray Tune's own files are in SCRATCH too: what a search resumes from is Headrace's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.base.errors import HeadraceError, RunFailed
from headrace.base.jsonfile import read_json, write_json
from headrace.training.ray_driver import REPORTS, REQUEST, conclude
from headrace.training.request import Connection, TrainingRequest

# A trial that failed in its first epoch has told no metric, for which Ray Tune would end a search with a scheduler.
RAY_TUNE = {"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}


def main(scratch: Path) -> None:
    """Run the search of SCRATCH/request.json."""
    record = read_json(scratch / REQUEST)
    conclude(scratch, record, lambda connection: _search(record, connection, scratch))


def _search(record: Mapping[str, Any], connection: Connection, scratch: Path) -> dict[str, Any]:
    import ray
    from ray import tune

    os.environ.update(RAY_TUNE)
    ray.init(address=connection.address, namespace="headrace", log_to_driver=True)
    search, known = record["search"], record["known"]
    # What is known is of use to a scheduler only.
    trials = [n for n in range(len(record["requests"])) if search["scheduler"] != "none" or str(n) not in known]
    tuner = tune.Tuner(
        # The trainings' own workers reserve what there is; a trial only waits for them. Ray Tune wants it to reserve
        # something: a byte.
        tune.with_resources(run_trial, {"memory": 1}),
        param_space={"trial": tune.grid_search(trials), "scratch": str(scratch)},
        tune_config=tune.TuneConfig(scheduler=_scheduler(search), max_concurrent_trials=int(search["concurrent"])),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(scratch / "tune"),
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
            callbacks=[_reports(scratch / REPORTS)],
            verbose=0,
        ),
    )
    results = tuner.fit()
    if results.errors:
        raise RunFailed(f"a trial failed: {results.errors[0]}", action="look into the log, then resume the run")
    return {}


def _scheduler(search: Mapping[str, Any]) -> Any:
    """None trains all trials to their end; ASHA has a rung at grace, grace * factor, grace * factor², ... epochs."""
    if search["scheduler"] == "none":
        return None
    from ray.tune.schedulers import ASHAScheduler

    epochs = int(search["epochs"])

    class Asha(ASHAScheduler):
        """Ray's has a rung at the last epoch, too, where stopping saves nothing and costs a whole trial."""

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result["epoch"] >= epochs:
                return str(self.CONTINUE)
            return str(super().on_trial_result(controller, trial, result))

    return Asha(
        time_attr="epoch",
        metric="value",
        mode=search["mode"],
        # Ray's scheduler ends a trial at max_t, also one that has more to do: an epoch more is never reached.
        max_t=epochs + 1,
        grace_period=min(int(search["grace_epochs"]), epochs),
        reduction_factor=int(search["reduction_factor"]),
    )


def _reports(path: Path) -> Any:
    """A callback that writes what Ray Tune hears of its trials."""
    from ray.tune import Callback

    class Reports(Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if "entry" in result:
                self._write(trial, entry=json.loads(result["entry"]))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._write(trial)

        def _write(self, trial: Any, **fields: Any) -> None:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"trial": trial.config["trial"], **fields}) + "\n")

    return Reports()


def run_trial(config: Mapping[str, Any]) -> None:
    """One trial, in an actor of Ray Tune's: its training, or what is known of it, told epoch by epoch."""
    from ray import tune

    from headrace.training.driver import run_training

    scratch, number = Path(config["scratch"]), int(config["trial"])
    record = read_json(scratch / REQUEST)
    metric = f"validation.{record['search']['metric']}"
    told = 0

    def tell(entry: Mapping[str, Any]) -> None:
        nonlocal told
        if entry["epoch"] > told:
            told = entry["epoch"]
            line = {key: entry[key] for key in ("epoch", "metrics", "time")}
            tune.report({"epoch": told, "value": entry["metrics"][metric], "entry": json.dumps(line)})

    known = record["known"].get(str(number))
    if known is not None:
        for entry in known["history"]:
            tell(entry)
        return
    connection = Connection.from_record(record["connection"])
    outcome = scratch / f"trial-{number}.json"
    try:
        result = run_training(
            TrainingRequest.from_record(record["requests"][number]), connection=connection, on_epoch=tell
        )
    except HeadraceError as error:
        if error.code == "loss-not-finite":  # what was tried does not work, which is a result
            write_json(outcome, {"failed": error.message})
            return
        write_json(outcome, {"error": error.to_record()})
        raise
    write_json(outcome, {"result": result.to_record()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
