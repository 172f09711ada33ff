"""The train step on a cluster: what is in the store is taken from there, the rest is a TrainingRun's.

A run whose training and measurements are known makes no pod. Otherwise the operator has it done, by the same step's
body inside a RayJob, which takes from the store what is there; this one waits, and says what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.api.canonical import from_train_part
from headrace.api.site import Site
from headrace.api.training_run import TrainingRunSpec
from headrace.steps.cluster_training import ClusterTraining, Trainings
from headrace.steps.cluster_wish import fitting
from headrace.steps.step import Outcome, Step
from headrace.steps.trained import Trained, Version, find_champion
from headrace.store.step_files import read_note

_OF_THE_DRIVER = ("step", "run_id", "attempt", "state", "why", "seconds")


def cluster_train(step: Step, part: Mapping[str, Any], split_fingerprint: str, champion: str, site: Site) -> Outcome:
    """The body of the train step at SITE."""
    from headrace.cluster import connect
    from headrace.tracking.registry import resolve

    cluster = connect(on_trouble=step.message)
    return ClusterTrainStep(step, cluster, site, part, split_fingerprint).run(champion, resolve)


class ClusterTrainStep:
    """One train step at SITE: `run` looks up, has done what is missing, and gives the facts."""

    def __init__(
        self, step: Step, cluster: Trainings, site: Site, part: Mapping[str, Any], split_fingerprint: str
    ) -> None:
        self.step = step
        self.site = site
        self.trained = Trained(step, settled(part, site), split_fingerprint)
        self._cluster = cluster

    def run(self, champion_reference: str, resolve: Callable[[str], Version | None]) -> Outcome:
        """The step's body; RESOLVE finds the version that a reference names."""
        trained, known = self.trained, self.trained.known()
        if known is None:
            trained.require_watched()
        champion = find_champion(self.step, resolve, champion_reference)
        if known is not None and self._is_whole(known) and not trained.unmeasured(known, champion):
            return Outcome(trained.values(known, champion, {}), "cached", "this was trained before")
        began = time.monotonic()
        told = ClusterTraining(self.step, self._cluster).carry_out(self.spec(champion))
        values = {key: value for key, value in told.items() if key not in _OF_THE_DRIVER}
        measured = told.get("champion") or {}
        if champion is not None and champion["error"] is None:
            champion["error"] = measured.get("error")
        parts = {**told.get("parts", {}), "training_run": round(time.monotonic() - began, 3)}
        return Outcome({**values, "champion": champion, "parts": parts})

    def _is_whole(self, known: Mapping[str, Any]) -> bool:
        """Whether nothing is left to do for KNOWN: a run that was killed after training has no logged model yet."""
        return known["model_uri"] is not None or known.get("run_id") != self.step.run_id

    def spec(self, champion: Mapping[str, Any] | None) -> TrainingRunSpec:
        """The TrainingRun's spec, with the CHAMPION to measure if there is one that can be."""
        site, trained, train = self.site, self.trained, self.trained.part["train"]
        origin = read_note(self.step.store, self.step.run_id, "origin") or {}
        options = read_note(self.step.store, self.step.run_id, "options") or {}
        measurable = champion is not None and champion["error"] is None
        return from_train_part(
            trained.part,
            run_id=self.step.run_id,
            run_attempt=int(self.step.attempt),
            experiment=(origin.get("spec") or {}).get("name"),
            manifest_uri=f"{site.store.uri.rstrip('/')}/splits/{trained.split_fingerprint}",
            champion_package_uri=_address(champion["package_uri"]) if champion is not None and measurable else None,
            store=site.store,
            mlflow=site.mlflow,
            pods=fitting(site.pods, cpus=train["resources"]["cpus_per_worker"], gpus=train["gpus_per_worker"]),
            authentication=site.authentication,
            queue=options.get("queue") or site.queue,
            max_retries=site.max_retries,
            ttl_seconds_after_finished=site.ttl_seconds_after_finished,
        )


def settled(part: Mapping[str, Any], site: Site) -> dict[str, Any]:
    """PART with the number of GPUs that `auto` is at SITE, as the driver sees it: a training's key holds it."""
    train = dict(part["train"])
    if train["gpus_per_worker"] == "auto":
        train["gpus_per_worker"] = site.gpus_per_worker
    return {**part, "train": train}


def _address(uri: str) -> str:
    """URI as a URL: a store in a folder names its files by their paths."""
    return f"file://{uri}" if uri.startswith("/") else uri
