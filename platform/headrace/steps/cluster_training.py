"""A TrainingRun, followed by a train step from its making to its end.

Whatever happens to the step, the TrainingRun `<run id>-<n>` is one: its name follows from the run and its attempt, so a
pod that comes after another finds it and goes on waiting. What it ends with is the driver's own word in the store, so
the errors and facts of a run are the same here as on a laptop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Protocol

from headrace.api.parts import RUN_ID_LABEL
from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace.base import events
from headrace.base.errors import Cancelled, RunFailed, SpecInvalid
from headrace.cluster import TRAINING_RUN, Kind, Object, Seen
from headrace.steps.cluster_ending import condition, outcome
from headrace.steps.cluster_hold import Hold, Writes
from headrace.steps.step import Step

TICK_SECONDS = 10.0  # between two looks at whether the run is still wanted


class Trainings(Writes, Protocol):
    """What following a training needs of a cluster; see `headrace.cluster.Cluster`."""

    namespace: str

    def get(self, kind: Kind, name: str) -> Object | None:
        """See there."""

    def list(self, kind: Kind, *, labels: str) -> list[dict[str, Any]]:
        """See there."""

    def apply(self, kind: Kind, manifest: Mapping[str, Any]) -> Object:
        """See there."""

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> bool:
        """See there."""

    def follow(self, kind: Kind, name: str, *, tick_seconds: float) -> Iterator[Seen]:
        """See there."""


class ClusterTraining:
    """The training of STEP's run in CLUSTER."""

    def __init__(self, step: Step, cluster: Trainings) -> None:
        self.step = step
        self.name = f"{step.run_id}-{step.attempt}"
        self._cluster = cluster
        self._hold = Hold(cluster, self.name)
        self._told: tuple[Any, ...] = ()

    def carry_out(self, spec: TrainingRunSpec) -> dict[str, Any]:
        """Have SPEC trained, or wait on for it; what the driver that trained it left as its result.

        Raises:
            HeadraceError: what the driver failed with; RunFailed where it died without a word.
            Cancelled, KeyboardInterrupt: the step was told to end; the training rests if that was somebody's wish.
        """
        try:
            self._begin(spec)
            return self._wait()
        except (KeyboardInterrupt, Cancelled):
            if self.step.ends_by_wish():
                self._hold.let_go()
            raise

    def _begin(self, spec: TrainingRunSpec) -> None:
        self._end_earlier_attempts()
        found = self._cluster.get(TRAINING_RUN, self.name)
        if found is None:
            self.step.message(f"training as TrainingRun {self.name}")
            self._cluster.apply(TRAINING_RUN, self._manifest(spec))
            return
        if (found["metadata"].get("labels") or {}).get(RUN_ID_LABEL) != self.step.run_id:
            raise RunFailed(
                f"TrainingRun {self.name} is there and is of no run of ours",
                action="delete it, then resume the run",
                code="name-taken",
            )
        self.step.message(f"goes on with TrainingRun {self.name}, which is there")
        self._hold.renew()

    def _manifest(self, spec: TrainingRunSpec) -> dict[str, Any]:
        labels = {RUN_ID_LABEL: self.step.run_id}
        metadata = {"name": self.name, "labels": labels, "annotations": self._hold.annotation()}
        return {"metadata": metadata, "spec": spec.to_record()}

    def _end_earlier_attempts(self) -> None:
        """Delete what earlier attempts of the run left under way: this one goes on from their checkpoints."""
        for obj in self._cluster.list(TRAINING_RUN, labels=f"{RUN_ID_LABEL}={self.step.run_id}"):
            earlier = int(obj["spec"].get("runAttempt", 1)) < int(self.step.attempt)
            if earlier and "completionTime" not in (obj.get("status") or {}):
                self._cluster.delete(TRAINING_RUN, obj["metadata"]["name"], uid=obj["metadata"]["uid"])

    # waiting

    def _wait(self) -> dict[str, Any]:
        for seen in self._cluster.follow(TRAINING_RUN, self.name, tick_seconds=TICK_SECONDS):
            if seen.object is None:
                self._gone()
            status = TrainingRunStatus.model_validate(seen.object.get("status") or {})
            self._tell(status)
            ended = condition(status, "Succeeded")
            if ended is not None and ended.status != "Unknown":
                return outcome(self.step, self._cluster.namespace, self.name, status)
            self._refuse_the_refused(seen.object, status)
            self.step.check_wanted()
            self._hold.renew_if_due()
        raise AssertionError("a watch never ends by itself")

    def _gone(self) -> NoReturn:
        self.step.check_wanted()
        raise RunFailed(
            f"somebody deleted TrainingRun {self.name}",
            action=f"`headrace resume {self.step.run_id}` goes on from the newest checkpoint",
            code="training-run-deleted",
        )

    def _refuse_the_refused(self, obj: Object, status: TrainingRunStatus) -> None:
        """A spec that the operator cannot carry out waits for somebody to mend it; a run has nobody."""
        accepted = condition(status, "Accepted")
        current = accepted is not None and accepted.observed_generation == obj["metadata"].get("generation")
        if accepted is not None and current and accepted.status == "False" and status.attempt == 0:
            self._hold.let_go()
            raise SpecInvalid(
                f"the cluster cannot carry out the training: {accepted.message}",
                action="correct the spec, or the pods that the chart's values give trainings",
            )

    def _tell(self, status: TrainingRunStatus) -> None:
        """Tell people where it stands, and programs everything, when something has changed."""
        epoch = status.checkpoint.epoch if status.checkpoint is not None else 0
        now = (status.phase, status.message, status.attempt, status.failures, epoch, tuple(status.metrics.items()))
        if now == self._told:
            return
        before, self._told = self._told, now
        events.emit(
            "training",
            step=self.step.name,
            phase=status.phase,
            text=status.message,
            attempt=status.attempt,
            failures=status.failures,
            epoch=epoch,
            metrics=status.metrics,
        )
        if before[:2] != now[:2] and status.message:
            self.step.message(f"{status.phase}: {status.message}")
