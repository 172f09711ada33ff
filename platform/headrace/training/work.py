"""One worker's part of a training, in the order in which it happens: read `Work.run`.

All workers take the same steps; what is written once is written by the first of them, after it has made sure that no
newer attempt owns the run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch

from headrace.base.errors import InvalidInput
from headrace.data import Manifest
from headrace.store import Store
from headrace.store.filesystems import reached
from headrace.training import components
from headrace.training.batches import Examples, Schedule, evaluation_batches, seed_of, share_out
from headrace.training.checkpoint import (
    random_states,
    read_checkpoint,
    seed_everything,
    set_random_states,
    write_checkpoint,
)
from headrace.training.evaluate import Evaluator
from headrace.training.group import Group
from headrace.training.initialise import Matching
from headrace.training.learner import Learner
from headrace.training.loop import judge
from headrace.training.progress import Teller
from headrace.training.request import TrainingRequest
from headrace.training.state import History, Watched, Weights, best_epoch, should_stop, watched
from headrace_models.package import write_package
from headrace_models.tasks import build_tasks, task_from_record
from headrace_models.tasks.base import Arrays, Task

Saved = tuple[Weights, dict[str, Any]]  # a checkpoint: weights and state


class Work:
    """A worker's request, its peers, and the folder for what it needs only while it runs."""

    def __init__(self, request: TrainingRequest, group: Group, folder: Path) -> None:
        self.request = request
        self.group = group
        self.folder = folder
        self.store = Store(request.store_url)
        self.manifest = Manifest(self.store, request.split_fingerprint)
        self.teller = Teller(speaks=group.first)
        self.tasks = request.train["tasks"]
        self.history: History = []
        self.init_from: dict[str, Any] | None = None  # what was taken of `model.init_from`

    def run(self) -> dict[str, Any]:
        """Train if need be, then measure; returns plain values, the same on every worker."""
        outcome: dict[str, Any] = {"package_uri": self.request.package_uri, "epochs_done": 0, "best_epoch": 0}
        outcome["validation_metrics"] = {}
        if self.request.train_needed:
            outcome.update(self._train())
        outcome["evaluations"], outcome["evaluation_errors"] = {}, {}
        if self.request.package_needed:
            outcome["evaluations"], outcome["evaluation_errors"] = self._evaluate(str(outcome["package_uri"]))
        outcome["history"] = self.history
        outcome["seconds"] = dict(self.teller.seconds)
        return outcome

    # training

    def _train(self) -> dict[str, Any]:
        train = self.request.train["train"]
        with self.teller.part("load_data"):
            self.teller.tell("loading data")
            saved = self._newest_checkpoint()
            shard = self.manifest.shard("train", self.group.rank, self.group.world)
            schedule = share_out(int(train["batch_size"]), self.group.gather(len(shard)))
            task = self._task(shard, saved)
            training = Examples(shard, task)
            validation = Examples(self.manifest.shard("validation", self.group.rank, self.group.world), task)
        with self.teller.part("build_model"):
            code = components.fetch_code(self.store, self.request.train["model"].get("code"), self.folder)
            example = task.request([shard[0]])
            trainer = self._trainer(task, code, example, schedule, saved)
        loop = EpochLoop(self, trainer, task, schedule, training, validation, saved)
        loop.run()
        uri = ""
        if self.request.package_needed:
            with self.teller.part("package"):
                self.teller.tell("packaging")
                uri = self.group.from_first(
                    self._package(trainer, task, code, loop.best_weights, example) if self.group.first else None
                )
        best = loop.best
        metrics = next(entry["metrics"] for entry in self.history if entry["epoch"] == best)
        return {
            "package_uri": uri,
            "epochs_done": len(self.history),
            "best_epoch": best,
            "validation_metrics": {
                name.removeprefix("validation."): value
                for name, value in metrics.items()
                if name.startswith("validation.")
            },
        }

    def _newest_checkpoint(self) -> Saved | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with reached(self.request.checkpoints_uri, self.store.filesystem), checkpoint.as_directory() as folder:
            return read_checkpoint(Path(folder))

    def _task(self, shard: Any, saved: Saved | None) -> Task:
        if saved is not None:
            return task_from_record(saved[1]["task"])
        task = build_tasks(self.tasks, self.manifest.schema)
        task.learn(self.group.gather(task.summarise(shard)))
        return task

    def _trainer(
        self, task: Task, code: Path | None, example: Arrays, schedule: Schedule, saved: Saved | None
    ) -> Learner:
        train = self.request.train["train"]
        seed_everything(seed_of(train["seed"], "model"))  # the same weights on every worker
        model = self._model(task, code, example, fresh=saved is None)
        if saved is not None:
            model.load_state_dict(saved[0])
        if note := components.small_batch_norm(model, schedule, synchronised=bool(train.get("sync_batch_norm"))):
            self.teller.message(note)
        objective = components.make_objective(train, task, self.group.device)
        trainer = components.make_learner(train, model, objective, self.group, schedule, own_code=code is not None)
        seed_everything(seed_of(train["seed"], "worker", self.group.rank))
        if saved is not None:
            trainer.load(saved[1])
            self.history.extend(saved[1]["history"])
            self.init_from = saved[1].get("init_from")
            states = saved[1]["random"]
            if len(states) == self.group.world:
                set_random_states(states[self.group.rank])
            else:  # the number of workers changed: any states will do, if only they depend on nothing else
                seed_everything(seed_of(train["seed"], "worker", self.group.rank, len(self.history)))
        return trainer

    def _model(self, task: Task, code: Path | None, example: Arrays, *, fresh: bool) -> torch.nn.Module:
        part = self.request.train["model"]
        return components.make_model(part, task, code, example, on_init=self._on_init if fresh else None)

    def _on_init(self, matching: Matching) -> None:
        weights = self.request.train["model"]["init_from"]
        self.init_from = {"weights": weights, "told": str(matching), **matching.to_record()}
        self.teller.message(f"model.init_from: {matching}")

    def _package(self, trainer: Learner, task: Task, code: Path | None, weights: Weights, example: Any) -> str:
        model = self._model(task, code, example, fresh=False) if trainer.sharded else trainer.model.to("cpu")
        model.load_state_dict(weights)
        folder = self.folder / "package"
        sha256 = write_package(
            folder,
            task=task,
            model=model.eval(),
            model_record=self.request.train["model"],
            code_folder=code,
            provenance={**self.request.provenance, **({"init_from": self.init_from} if self.init_from else {})},
            example=example,
        )
        self.check_attempt()
        return self.store.put_folder(folder, self.store.uri("packages", sha256), marker="headrace.json")

    # measuring

    def _evaluate(self, package_uri: str) -> tuple[dict[str, Any], dict[str, str]]:
        evaluations: dict[str, Any] = {}
        errors: dict[str, str] = {}
        evaluator = Evaluator(
            self.store,
            self.request.split_fingerprint,
            self.manifest.shard("test", self.group.rank, self.group.world),
            lambda: self.manifest.shard("test", 0, 1),
            self.manifest.schema,
            self.group,
            self.teller,
        )
        tasks = [str(task["name"]) for task in self.tasks]
        for uri in dict.fromkeys([package_uri, *self.request.evaluate]):
            record = self.group.from_first(evaluator.stored(uri, tasks) if self.group.first else None)
            try:
                if record is None:
                    with self.teller.part("evaluate"):
                        self.teller.tell("evaluating")
                        evaluation = evaluator.measure(uri, tasks)
                    with self.teller.part("pictures"):
                        self.check_attempt()
                        record = evaluator.write(evaluation, self.history if uri == package_uri else ())
                evaluations[record["package_sha256"]] = {
                    "metrics": record["metrics"],
                    "samples": record["samples"],
                }
            except InvalidInput as error:
                if uri == package_uri:
                    raise
                errors[uri] = error.message
        return evaluations, errors

    def check_attempt(self) -> None:
        """Raise Superseded if a newer attempt owns the run."""
        self.store.check_attempt(self.request.run_id, self.request.attempt)


class EpochLoop:
    """The epochs of one training on one worker, from wherever the newest checkpoint left off."""

    def __init__(
        self,
        work: Work,
        trainer: Learner,
        task: Task,
        schedule: Schedule,
        training: Examples,
        validation: Examples,
        saved: Saved | None,
    ) -> None:
        self.work = work
        self.trainer = trainer
        self.task = task
        self.schedule = schedule
        self.training = training
        self.validation = validation
        self.settings = work.request.train["train"]
        self.history = work.history
        self.best_weights: Weights = saved[1]["best_weights"] if saved is not None else {}
        self._primary = watched(None, task.card.metrics, task.card.primary_metric)
        self._told = 0  # epochs that the controller was told of by this process

    @property
    def best(self) -> int:
        """The best epoch so far."""
        return best_epoch(self.history, self._primary)

    def run(self) -> None:
        """Train until the last epoch, until it gets no better, or until nothing would change any more."""
        epochs = int(self.settings["epochs"])
        while len(self.history) < epochs and not self._stops():
            self._epoch(len(self.history) + 1, epochs)
            every = int(self.settings["checkpoint_every_epochs"])
            due = len(self.history) % every == 0 or len(self.history) == epochs or self._stops()
            with self.work.teller.part("checkpoint"):
                self._report(with_checkpoint=due)
        if len(self.history) < epochs and self.trainer.settled:
            self.work.teller.message(
                f"training ends after epoch {len(self.history)} of {epochs}: another would change nothing"
            )

    def _stops(self) -> bool:
        early = self.settings["early_stop"]
        if self.history and self.trainer.settled:
            return True
        if early is None:
            return False
        metric: Watched = watched(early["metric"], self.task.card.metrics, self.task.card.primary_metric)
        return should_stop(self.history, metric, int(early["patience"]), float(early["min_delta"]))

    def _epoch(self, epoch: int, epochs: int) -> None:
        work, trainer = self.work, self.trainer
        learning_rate = trainer.learning_rate
        started = time.monotonic()
        with work.teller.part("train"):
            batches = trainer.batches(self.training, self.schedule, seed=int(self.settings["seed"]), epoch=epoch)
            loss = trainer.epoch(epoch, batches, self.schedule, work.teller, epochs)
        rate = trainer.shown(self.schedule) / (time.monotonic() - started)
        measured = {"train.loss": loss, "train.learning_rate": learning_rate, "train.samples_per_second": rate}
        metrics = {name: value for name, value in measured.items() if value is not None}
        with trainer.judged_weights():
            with work.teller.part("validate"):
                metrics.update(self._validate())
            self.history.append({"epoch": epoch, "metrics": metrics, "time": time.time()})
            if self.best == epoch:
                self.best_weights = trainer.weights()

    def _validate(self) -> dict[str, float]:
        group = self.work.group
        size = max(self.schedule.sizes)
        batches = evaluation_batches(self.validation, self.task, size)
        self.work.teller.tell("validating", epoch=len(self.history) + 1, epochs=int(self.settings["epochs"]))
        with self.trainer.whole_weights():
            measured, loss, samples = judge(self.trainer.model, self.trainer.objective, self.task, batches, group)
        if not samples or loss is None:
            return {}
        return {"validation.loss": loss, **{f"validation.{name}": value for name, value in measured.compute().items()}}

    def _report(self, *, with_checkpoint: bool) -> None:
        newest = self.history[-1]["epoch"]
        new = [{**entry, "resumed": entry["epoch"] < newest} for entry in self.history[self._told :]]
        self._told = len(self.history)
        states = self.work.group.gather(random_states()) if with_checkpoint else []
        weights = self.trainer.weights() if with_checkpoint else {}
        state = self.trainer.state() if with_checkpoint else {}
        if not self.work.group.first:
            ray.train.report({})
            return
        self.work.check_attempt()
        checkpoint = None
        if with_checkpoint:
            folder = Path(tempfile.mkdtemp(prefix="checkpoint-", dir=self.work.folder))
            state.update(
                {
                    "task": self.task.to_record(),
                    "history": self.history,
                    "init_from": self.work.init_from,
                    "best_weights": self.best_weights,
                    "random": states,
                }
            )
            write_checkpoint(folder, weights, state)
            checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        with reached(self.work.request.checkpoints_uri, self.work.store.filesystem):
            ray.train.report({"epochs": new}, checkpoint=checkpoint, delete_local_checkpoint_after_upload=True)
