"""The train step of a spec that searches: a training for each trial, then the best of them as the step's model.

Trials only train; they are compared on the validation split, so that the test split stays unseen until the best of them
is packaged and measured, from its own checkpoint. A trial that has ended is a file of the run in the store: a resumed
run does not repeat it, and one that was killed goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from headrace.base.errors import HeadraceError, RunFailed
from headrace.spec.tuning import Overrides, told, trials, with_overrides
from headrace.steps.step import Step
from headrace.steps.train import Run, TrainStep, TrainTools, training_request
from headrace_models import catalog

if TYPE_CHECKING:
    from headrace.training import Search, TrainingResult, TrialOutcome

BEST_TAG = "headrace.tune.best"


class TrialRun(Protocol):
    """A trial's own MLflow run, nested in the run's."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics of an epoch."""

    def finish(self, status: Any = ...) -> None:
        """End it."""


@dataclass(frozen=True)
class TuneTools:
    """What a search needs beyond a train step.

    search: `headrace.training.run_search`.
    open_trial: the nested MLflow run of a trial: (step, parent, number, the trial's part, its overrides).
    """

    search: Callable[..., None]
    open_trial: Callable[[Step, Run, int, Mapping[str, Any], Overrides], TrialRun]


@dataclass(frozen=True)
class Trial:
    """One training of the search: what it changes, and the train step's part that it is."""

    number: int
    overrides: Overrides
    part: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called in the store and in MLflow; people count from 1."""
        return f"{self.number + 1:03d}"


class TuneStep(TrainStep):
    """A train step whose part has a `tune`."""

    def __init__(
        self,
        step: Step,
        tools: TrainTools,
        tune_tools: TuneTools,
        part: Mapping[str, Any],
        split_fingerprint: str,
        champion: str,
    ) -> None:
        super().__init__(step, tools, part, split_fingerprint, champion)
        self._tune_tools = tune_tools
        self.tune: Mapping[str, Any] = part["tune"]
        plain = {key: value for key, value in part.items() if key != "tune"}
        drawn = trials(self.tune)
        self.trials = [Trial(n, overrides, with_overrides(plain, overrides)) for n, overrides in enumerate(drawn)]
        self._runs: dict[int, TrialRun] = {}
        self._parent: Run | None = None

    def fit(self, champions: Sequence[str], run: Run) -> tuple[TrainingResult, dict[str, Any]]:
        """See `TrainStep.fit`: the search, then the best trial's model."""
        self._parent = run
        done = {trial.number: found for trial in self.trials if (found := self._read(trial)) is not None}
        search = self._search()
        try:
            with self._timed("search"):
                self._run(search, done)
        except BaseException:
            self._end_runs("KILLED")
            raise
        best = self._best(done.values(), search)
        chosen = self.trials[best.number]
        self.step.message(f"trial {best.number + 1} is the best: {told(chosen.overrides)}")
        self._log(run, done, search, chosen)
        result = self._call(
            champions, train_needed=True, run=run, part=chosen.part, checkpoints_uri=self._uri(chosen, "checkpoints")
        )
        for trial in self.trials:
            self.step.store.remove_folder(self._uri(trial, "checkpoints"))
        facts = {"best": best.number + 1, "overrides": chosen.overrides, "metric": search.metric, "value": best.value}
        return result, {"tune": {**facts, "trials": len(self.trials)}}

    # the search

    def _search(self) -> Search:
        from headrace.training import Search

        metric, mode = self._metric()
        epochs = max(int(trial.part["train"]["epochs"]) for trial in self.trials)
        keys = ("scheduler", "grace_epochs", "reduction_factor")
        return Search(metric, mode, epochs=epochs, **{key: self.tune[key] for key in keys})

    def _metric(self) -> tuple[str, Any]:
        """The metric's name among the validation metrics, and what is better of it."""
        cards = [catalog.tasks()[str(task["name"])] for task in self.part["tasks"]]
        names = {
            metric if len(cards) == 1 else f"{card.name}.{metric}": direction
            for card in cards
            for metric, direction in card.metrics.items()
        }
        metric = self.tune["metric"] or next(iter(names))
        return metric, names[metric]

    def _run(self, search: Search, done: dict[int, TrialOutcome]) -> None:
        if len(done) == len(self.trials):
            return
        train = self.part["train"]
        most = int(train["workers"]["max"])
        room = {**train, "workers": {**train["workers"], "max": most * int(self.tune["concurrent"])}}
        with self.tools.workers(self.step, room) as (connection, demand):
            self.step.check()
            at_a_time = max(1, demand.most // most)
            each = replace(demand, most=min(most, demand.most))
            if done:
                self.step.message(f"{len(done)} of {len(self.trials)} trials were done before")

            def ended(outcome: TrialOutcome) -> None:
                self._ended(outcome, search)
                done[outcome.number] = outcome

            self._tune_tools.search(
                [self._request(trial, each) for trial in self.trials],
                replace(search, concurrent=at_a_time),
                dict(done),
                connection=connection,
                on_epoch=self._epoch,
                on_end=ended,
            )

    def _request(self, trial: Trial, demand: Any) -> Any:
        request = training_request(
            self.step,
            trial.part,
            self.split_fingerprint,
            demand,
            checkpoints_uri=self._uri(trial, "checkpoints"),
            package_needed=False,
        )
        return replace(request, events_path=None)

    def _epoch(self, number: int, entry: Mapping[str, Any]) -> None:
        self._trial_run(number).log_metrics(entry["metrics"], step=int(entry["epoch"]))

    def _ended(self, outcome: TrialOutcome, search: Search) -> None:
        trial, epochs = self.trials[outcome.number], len(outcome.history)
        reached = f"{search.metric} {outcome.value:.4g} " if outcome.value is not None else ""
        how = {"finished": "after", "stopped": "stopped after", "failed": "failed after"}[outcome.state]
        which = f"trial {outcome.number + 1} of {len(self.trials)} ({told(trial.overrides)})"
        self.step.message(f"{which}: {reached}{how} {epochs} epochs")
        self._trial_run(outcome.number).finish("FAILED" if outcome.state == "failed" else "FINISHED")
        self._runs.pop(outcome.number)
        self.step.check()
        self.step.store.write_json(self._uri(trial, "trial.json"), outcome.to_record())

    def _trial_run(self, number: int) -> TrialRun:
        if number not in self._runs:
            trial = self.trials[number]
            assert self._parent is not None
            self._runs[number] = self._tune_tools.open_trial(
                self.step, self._parent, number + 1, trial.part, trial.overrides
            )
        return self._runs[number]

    def _end_runs(self, status: str) -> None:
        for run in self._runs.values():
            with suppress(HeadraceError):
                run.finish(status)

    # what is kept

    def _uri(self, trial: Trial, name: str) -> str:
        return str(self.step.store.uri("runs", self.step.run_id, "trials", trial.name, name))

    def _read(self, trial: Trial) -> TrialOutcome | None:
        from headrace.training import TrialOutcome

        found = self.step.store.read_json(self._uri(trial, "trial.json"))
        return TrialOutcome.from_record(found) if isinstance(found, dict) else None

    def _best(self, outcomes: Iterable[TrialOutcome], search: Search) -> TrialOutcome:
        ended = [one for one in outcomes if one.state == "finished" and one.value is not None]
        if not ended:
            failed = [one.why for one in outcomes if one.state == "failed"]
            raise RunFailed(
                f"none of {len(self.trials)} trials came to its end" + (f": {failed[0]}" if failed else ""),
                action="try smaller learning rates, or another tune.space",
                code="no-trial-finished",
            )
        sign = 1 if search.mode == "max" else -1
        return max(ended, key=lambda one: (sign * float(one.value or 0.0), -one.number))  # of equals the first

    def _log(self, run: Any, done: Mapping[int, TrialOutcome], search: Search, best: Trial) -> None:
        places = sorted(self.trials[0].overrides)
        rows = [["trial", *places, search.metric, "epochs", "state"]]
        for trial in self.trials:
            one = done[trial.number]
            value = "" if one.value is None else f"{one.value:.6g}"
            given = [str(trial.overrides[place]) for place in places]
            rows.append([str(trial.number + 1), *given, value, str(len(one.history)), one.state])
        run.log_text("".join("\t".join(row) + "\n" for row in rows), "trials.tsv")
        run.set_tags({BEST_TAG: f"{best.number + 1}: {told(best.overrides)}"})
