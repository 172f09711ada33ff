"""TrainingRun: one training, carried out by one RayJob an attempt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from headrace.api.data import Data
from headrace.api.parts import GROUP, Authentication, Condition, MLflowSettings, Part, Status, StoreSettings
from headrace.api.pods import PodSettings
from headrace.api.rules import list_map, rule, rules
from headrace.api.texts import Address, ObjectName, Text, Time, pattern
from headrace.api.training import Model, Named, Train
from headrace.spec.model import LABEL_PATTERN

KIND = "TrainingRun"

# Annotation: until when (RFC 3339) a run goes on that somebody waits for, who writes it anew while waiting. Without it
# a run goes on by itself.
HELD_UNTIL = f"{GROUP}/held-until"

# What all attempts of a run must have in common, since the next one goes on from the checkpoint of the one before. It
# may still be mended until the first attempt is made. The rest (pods, deadlines, secrets) holds from the next attempt.
FIXED = (
    *("runID", "runAttempt", "experiment", "tasks", "model", "train", "manifestURI", "data", "championPackageURI"),
    *("store.uri", "mlflow.trackingURI"),
)


class TrainingRunSpec(Part):
    """What is to be trained, on what, with what, and for how long it may try."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.manifestURI) || has(self.data)",
                "there is nothing to train on: give manifestURI (a split that was made) or data (which is split first)",
            ),
            rule(
                "!has(self.manifestURI) || !has(self.data)",
                "both manifestURI and data are given: keep manifestURI to train on that split, or data to "
                "make a new one",
            ),
            rule(
                "!has(self.train.losses) || self.train.losses.all(loss, "
                "self.tasks.exists(task, task.name == loss.task))",
                "a loss names a task that is not in tasks: write the name of one of them",
                field=".train.losses",
            ),
            rule(
                "self.train.gpusPerWorker <= self.pods.worker.gpu",
                "train.gpusPerWorker is more than pods.worker.gpu (0 where it is left out): raise pods.worker.gpu, or "
                "lower train.gpusPerWorker",
                field=".train.gpusPerWorker",
            ),
            rule(
                "quantity(self.pods.worker.cpu).asApproximateFloat() >= double(self.train.resources.cpusPerWorker)",
                "pods.worker.cpu is ${self.pods.worker.cpu}, less than train.resources.cpusPerWorker asks for: raise "
                "pods.worker.cpu, or lower cpusPerWorker",
                field=".pods.worker.cpu",
            ),
        )
    )

    run_id: (
        Annotated[
            str,
            pattern(LABEL_PATTERN, "${self} can be no run: write small letters, digits and -, a letter first", 40),
        ]
        | None
    ) = Field(
        default=None,
        alias="runID",
        description="The run that this belongs to; its files and its MLflow run are found by it. Default: made of the "
        "object's name and uid.",
    )
    run_attempt: int = Field(
        default=1, ge=1, description="The run's own attempt (`headrace resume` adds one); orders writes of one run."
    )
    experiment: Text | None = Field(default=None, description="MLflow experiment. Default: the run id's stem.")
    tasks: tuple[Named, ...] = Field(
        min_length=1,
        max_length=16,
        description="What is to be predicted: decides metrics, default losses and the served signature.",
        json_schema_extra=list_map("name"),
    )
    model: Model = Field(description="The network: one of the catalog, or a class of your own.")
    train: Train = Field(default=Train(), description="How it learns: epochs, batch size, optimizer, losses, workers.")
    manifest_uri: Address | None = Field(
        default=None, alias="manifestURI", description="The split to train on: `<store>/splits/<fingerprint>`."
    )
    data: Data | None = Field(default=None, description="The data to split first, where there is no manifestURI.")
    champion_package_uri: Address | None = Field(
        default=None,
        alias="championPackageURI",
        description="Package of the version to beat: measured on the same test split. Default: none.",
    )
    store: StoreSettings = Field(description="Where checkpoints, splits and packages lie.")
    mlflow: MLflowSettings = Field(description="The MLflow server that metrics go to, and that the operator reads.")
    pods: PodSettings = Field(
        default=PodSettings(),
        description="What the pods have: image, resources, nodes, environment. A change holds from the next attempt.",
    )
    authentication: Authentication = Field(default=Authentication(), description="Who may use the Ray cluster's ports.")
    queue: ObjectName | None = Field(
        default=None, description="Kueue's LocalQueue that admits the attempts. Default: they start at once."
    )
    suspend: bool = Field(
        default=False,
        description="True ends the current attempt, keeps the checkpoint and counts no failure; false goes on from it.",
    )
    max_retries: int = Field(
        default=3, ge=0, le=100, description="Failed attempts that are tried again: lost heads, evictions, crashes."
    )
    deadline_seconds: int | None = Field(
        default=None, ge=1, description="Seconds from the first attempt's start to the end of the last; default: none."
    )
    pre_running_deadline_seconds: int = Field(
        default=900, ge=10, description="Seconds an attempt may wait for its pods and image before it has failed."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, description="Seconds after its end when the object is deleted. Default: it stays."
    )


def transition_rules() -> tuple[JsonDict, ...]:
    """Rules over the whole object: what may not change any more."""
    new = "!has(oldSelf.status) || !has(oldSelf.status.attempt) || oldSelf.status.attempt == 0"
    fixed = [
        rule(
            f"{new} || {_unchanged(f'spec.{name}')}",
            f"spec.{name} cannot change any more, as training began: put it back, or make a new TrainingRun",
            field=f".spec.{name}",
        )
        for name in FIXED
    ]
    queue = rule(
        f"{new} || self.spec.suspend || ({_unchanged('spec.queue')})",
        "spec.queue cannot change while an attempt goes on: set suspend to true first, and to false afterwards",
        field=".spec.queue",
    )
    return (*fixed, queue)


def _unchanged(path: str) -> str:
    """That what lies at PATH is as it was, in CEL. (Of `.?` the API server could not tell what it costs.)"""
    now, before = f"self.{path}", f"oldSelf.{path}"
    return f"has({now}) == has({before}) && (!has({now}) || {now} == {before})"


class MLflowRun(Status):
    """The run in MLflow."""

    run_id: str = Field(alias="runID", description="MLflow's id of the run.")
    experiment_id: str = Field(default="", alias="experimentID", description="MLflow's id of the experiment.")


class Checkpoint(Status):
    """The newest whole checkpoint."""

    uri: str = Field(description="Where it lies.")
    epoch: int = Field(default=0, ge=0, description="Epochs it holds.")


Phase = Literal["Pending", "Waiting", "Running", "Suspended", "Retrying", "Succeeded", "Failed"]


class TrainingRunStatus(Status):
    """What became of it so far. Conditions: Accepted, Running, Suspended, MLflowReachable, and Succeeded, which is
    Unknown until the end."""

    observed_generation: int = Field(default=0, ge=0, description="Generation of the spec that this tells of.")
    phase: Phase = Field(default="Pending", description="Where it stands, in one word.")
    message: str = Field(default="", max_length=4096, description="Why it stands there; why it waits.")
    attempt: int = Field(default=0, ge=0, description="Number of the newest attempt; each is one RayJob.")
    failures: int = Field(default=0, ge=0, description="Attempts that failed and count against maxRetries.")
    ray_job_name: str | None = Field(default=None, description="RayJob of the newest attempt.")
    ray_job_uid: str | None = Field(default=None, alias="rayJobUID", description="Its uid.")
    head_pod_uid: str | None = Field(
        default=None,
        alias="headPodUID",
        description="Head pod that ran the attempt's driver; another one is a lost head.",
    )
    job_start_time: Time | None = Field(
        default=None, description="When Ray says that the attempt's driver began; a jump is a second run."
    )
    next_attempt_time: Time | None = Field(default=None, description="When the next attempt may begin.")
    start_time: Time | None = Field(default=None, description="When the first attempt was made.")
    attempt_start_time: Time | None = Field(default=None, description="When the newest attempt was made.")
    completion_time: Time | None = Field(default=None, description="When it ended for good.")
    mlflow: MLflowRun | None = Field(default=None, description="Its run in MLflow.")
    metrics: dict[str, float] = Field(default={}, max_length=256, description="Last value of each metric.")
    checkpoint: Checkpoint | None = Field(default=None, description="Newest whole checkpoint.")
    package_uri: str | None = Field(default=None, alias="packageURI", description="The trained model's package.")
    cpu_seconds: float = Field(default=0, ge=0, description="CPU seconds reserved, all attempts together.")
    gpu_seconds: float = Field(default=0, ge=0, description="GPU seconds reserved, all attempts together.")
    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=32, description="One of each type.", json_schema_extra=list_map("type")
    )
