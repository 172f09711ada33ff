"""TrainingRun: one training, carried out by one RayJob an attempt."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from headrace.api.parts import (
    Address,
    Authentication,
    Condition,
    MLflowSettings,
    Name,
    ObjectName,
    Part,
    PodSettings,
    Status,
    StoreSettings,
    Text,
    Time,
    pattern,
)
from headrace.api.rules import list_map, list_set, rule, rules
from headrace.spec.model import LABEL_PATTERN

KIND = "TrainingRun"

# What all attempts of a run must have in common, since the next one goes on from the checkpoint of the one before. It
# may still be mended until the first attempt is made. The rest (pods, deadlines, secrets) holds from the next attempt.
FIXED = (
    *("runID", "runAttempt", "experiment", "tasks", "model", "train", "manifestURI", "data", "championPackageURI"),
    *("store.uri", "mlflow.trackingURI"),
)

Arguments = dict[str, Any]  # judged by the card of the name beside it; the API server keeps it as it is


class Named(Part):
    """Something from the catalog."""

    name: Name = Field(description="Its name in the catalog.")
    args: Arguments = Field(default={}, description="Its arguments; the catalog's card says which there are.")


class Code(Part):
    """A user's own model code in the store."""

    sha256: Annotated[str, pattern(r"^[0-9a-f]{64}$", "${self} is no SHA-256: write its 64 digits 0-9a-f", 64)] = Field(
        description="Hash of the archive."
    )
    uri: Address = Field(description="Where the archive lies: `<store>/code/<sha256>.tar`.")


class Model(Named):
    """The network."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!self.name.contains(':') || has(self.code)",
                "name is ${self.name}, a class of your own, and there is no code: add code (sha256 and uri of the "
                "archive), or take a model of the catalog",
                field=".name",
            ),
            rule(
                r"!has(self.code) || self.name.matches('^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$')",
                "name is ${self.name}, and code is given: name the class in it as module:Class, or remove code",
                field=".name",
            ),
            rule(
                "!has(self.initFrom) || !self.initFrom.startsWith('file://')",
                "initFrom is ${self.initFrom}, which pods cannot read: copy the weights to the store and name that",
                field=".initFrom",
            ),
        )
    )

    name: Name = Field(description='A model of the catalog, or "module:Class" from `code`.')
    code: Code | None = Field(default=None, description="The user's own code, when the name is of it.")
    init_from: Address | None = Field(
        default=None, description="Where the first weights come from: URL of a `.safetensors` file or of a package."
    )
    freeze: tuple[Name, ...] = Field(
        default=(),
        max_length=256,
        description="Beginnings of parameter names (`layer1.`) that training leaves as they are.",
        json_schema_extra=list_set(),
    )


class Split(Part):
    """How samples are dealt out."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.train + self.validation + self.test > 0.999999 "
                "&& self.train + self.validation + self.test < 1.000001",
                "train, validation and test do not add up to 1: write shares that do; what is left out is 0.7, 0.15 "
                "or 0.15",
            ),
            rule("self.train > 0.0", "train is 0: leave the model something to learn from", field=".train"),
            rule("self.test > 0.0", "test is 0: leave something to judge the model by", field=".test"),
        )
    )

    strategy: Literal["random", "stratified", "group", "time", "hash"] = Field(
        default="stratified", description="How samples are dealt out. Default stratified."
    )
    train: float = Field(default=0.7, ge=0, le=1, description="Share that the model learns from.")
    validation: float = Field(default=0.15, ge=0, le=1, description="Share that picks the best epoch.")
    test: float = Field(default=0.15, ge=0, le=1, description="Share held back for the gate.")
    seed: int = Field(default=0, ge=0, description="Seed of the deal.")


class Data(Part):
    """Where the samples are; the run's driver splits them first, into the store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(self.format in ['csv', 'parquet']) || has(self.label)",
                "format ${self.format} needs label: name the column that is to be predicted",
                field=".label",
            ),
            *(
                rule(
                    f"self.split.strategy != '{strategy}' || has(self.{strategy})",
                    f"split.strategy {strategy} goes by a column: name it in data.{strategy}, or take another strategy "
                    "(stratified, random, hash)",
                    field=".split.strategy",
                )
                for strategy in ("group", "time")
            ),
        )
    )

    source: Text = Field(
        description="`builtin:digits`, or any fsspec URL that the pods can read: s3://, gs://, https://.",
        json_schema_extra=rules(
            rule(
                r"self.matches('^(builtin:|[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://).+$') "
                "&& !self.startsWith('file://')",
                "${self} is a place on somebody's machine, which the pods cannot read: copy the data to a bucket and "
                "name that (s3://, gs://, https://), or take builtin:digits",
            )
        ),
    )
    format: Literal["image-folder", "voc", "coco", "mot", "csv", "parquet", "text-lines", "audio-manifest"] = Field(
        description="How the source is laid out."
    )
    label: Name | None = Field(default=None, description="Column that is to be predicted; tables must name it.")
    features: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Columns the model may see. Default: all but label, id, group and time.",
    )
    id: Name | None = Field(
        default=None, description="Column that identifies a sample. Default: a hash of its content."
    )
    group: Name | None = Field(
        default=None,
        description="Column whose equal values (patient, speaker, video) must lie on one side of the split.",
    )
    time: Name | None = Field(default=None, description="Column by which the `time` strategy orders samples.")
    max_corrupt: float = Field(default=0.01, ge=0, le=1, description="Share of unreadable samples that is left out.")
    split: Split = Field(default=Split(), description="How samples are dealt out.")


class Workers(Part):
    """How many workers there are; `min` below `max` lets the number change while the run goes on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.min <= self.max",
                "min is above max (each is 1 where it is left out): raise max, or lower min",
            )
        )
    )

    min: int = Field(default=1, ge=1, le=4096, description="Fewest workers to go on with.")
    max: int = Field(default=1, ge=1, le=4096, description="Most workers to use.")


class Loss(Named):
    """One term of what training minimises."""

    task: Name = Field(description="The task it judges.")
    weight: float = Field(default=1.0, gt=0, description="Factor of this term in the sum.")


class EarlyStop(Part):
    """When to stop before the last epoch."""

    metric: Name | None = Field(default=None, description="Validation metric to watch. Default: the task's first.")
    patience: int = Field(default=5, ge=1, description="Epochs without a better value before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="What counts as better, in the metric's own unit.")


class TrainResources(Part):
    """What each training process reserves of Ray."""

    cpus_per_worker: int = Field(default=1, ge=1, le=1024, description="CPU cores that each worker reserves.")


class Train(Part):
    """How the model learns: the run spec's `train` part in its canonical form."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.batchSize >= self.workers.max",
                "batchSize is less than workers.max, and each worker needs a sample: raise batchSize (summed over all "
                "workers), or lower workers.max",
                field=".batchSize",
            )
        )
    )

    epochs: int = Field(default=10, ge=1, description="Passes over the training split.")
    batch_size: int = Field(default=64, ge=1, description="Samples of one step, over all workers together.")
    optimizer: Named = Field(default=Named(name="adam"), description="How weights are updated.")
    losses: tuple[Loss, ...] = Field(default=(), max_length=32, description="What is minimised; default: the task's.")
    schedule: Named = Field(default=Named(name="constant"), description="How the learning rate changes.")
    workers: Workers = Field(default=Workers(), description="Training processes, each in a pod of its own.")
    gpus_per_worker: int = Field(default=0, ge=0, le=64, description="GPUs that each worker reserves.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and augmentation.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="Number format.")
    accumulate_steps: int = Field(default=1, ge=1, description="Batches whose gradients are averaged into one step.")
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of the gradient.")
    ema_decay: float | None = Field(default=None, gt=0, lt=1, description="Decay of the moving average of weights.")
    early_stop: EarlyStop | None = Field(default=None, description="Stop when validation gets no better.")
    checkpoint_every_epochs: int = Field(default=1, ge=1, description="Epochs between checkpoints.")
    max_failures: int = Field(default=2, ge=0, description="Crashed workers after which an attempt gives up.")
    resources: TrainResources = Field(default=TrainResources(), description="What each worker reserves of Ray.")


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
        min_length=1, max_length=16, description="What is to be predicted.", json_schema_extra=list_map("name")
    )
    model: Model = Field(description="The network.")
    train: Train = Field(default=Train(), description="How it learns.")
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
    mlflow: MLflowSettings = Field(description="Where metrics go.")
    pods: PodSettings = Field(default=PodSettings(), description="What the pods have.")
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
