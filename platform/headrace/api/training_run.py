"""TrainingRun: one training, carried out by one RayJob an attempt."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headrace.api.parts import (
    Address,
    Authentication,
    Condition,
    MLflowSettings,
    ObjectName,
    Part,
    PodSettings,
    Status,
    StoreSettings,
    Text,
)
from headrace.spec.model import LABEL_PATTERN

KIND = "TrainingRun"

Arguments = dict[str, Any]  # judged by the card of the name beside it; the API server keeps it as it is


class Named(Part):
    """Something from the catalog."""

    name: Text = Field(description="Its name in the catalog.")
    args: Arguments = Field(default={}, description="Its arguments; the catalog's card says which there are.")


class Code(Part):
    """A user's own model code in the store."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", max_length=64, description="Hash of the archive.")
    uri: Address = Field(description="Where the archive lies: `<store>/code/<sha256>.tar`.")


class Model(Named):
    """The network."""

    name: Text = Field(description='A model of the catalog, or "module:Class" from `code`.')
    code: Code | None = Field(default=None, description="The user's own code, when the name is of it.")
    init_from: Text | None = Field(default=None, description="Where the first weights come from.")
    freeze: tuple[Text, ...] = Field(default=(), max_length=256, description="Beginnings of parameter names that stay.")


class Split(Part):
    """How samples are dealt out."""

    strategy: Literal["random", "stratified", "group", "time", "hash"] = Field(
        default="stratified", description="How samples are dealt out. Default stratified."
    )
    train: float = Field(default=0.7, ge=0, le=1, description="Share that the model learns from.")
    validation: float = Field(default=0.15, ge=0, le=1, description="Share that picks the best epoch.")
    test: float = Field(default=0.15, ge=0, le=1, description="Share held back for the gate.")
    seed: int = Field(default=0, ge=0, description="Seed of the deal.")


class Data(Part):
    """Where the samples are; the run's driver splits them first, into the store."""

    source: Text = Field(description="`builtin:digits` or any fsspec URL.")
    format: Literal["image-folder", "voc", "coco", "mot", "csv", "parquet", "text-lines", "audio-manifest"] = Field(
        description="How the source is laid out."
    )
    label: Text | None = Field(default=None, description="Column that is to be predicted; tables must name it.")
    features: tuple[Text, ...] | None = Field(default=None, max_length=1024, description="Columns the model may see.")
    id: Text | None = Field(default=None, description="Column that identifies a sample.")
    group: Text | None = Field(default=None, description="Column whose equal values lie on one side of the split.")
    time: Text | None = Field(default=None, description="Column by which the `time` strategy orders samples.")
    max_corrupt: float = Field(default=0.01, ge=0, le=1, description="Share of unreadable samples that is left out.")
    split: Split = Field(default=Split(), description="How samples are dealt out.")


class Workers(Part):
    """How many workers there are; `min` below `max` lets the number change while the run goes on."""

    min: int = Field(default=1, ge=1, le=4096, description="Fewest workers to go on with.")
    max: int = Field(default=1, ge=1, le=4096, description="Most workers to use.")


class Loss(Named):
    """One term of what training minimises."""

    task: Text = Field(description="The task it judges.")
    weight: float = Field(default=1.0, gt=0, description="Factor of this term in the sum.")


class EarlyStop(Part):
    """When to stop before the last epoch."""

    metric: Text | None = Field(default=None, description="Validation metric to watch. Default: the task's first.")
    patience: int = Field(default=5, ge=1, description="Epochs without a better value before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="What counts as better, in the metric's own unit.")


class TrainResources(Part):
    """What each training process reserves of Ray."""

    cpus_per_worker: int = Field(default=1, ge=1, le=1024, description="CPU cores that each worker reserves.")


class Train(Part):
    """How the model learns: the run spec's `train` part in its canonical form."""

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

    run_id: Annotated[str, Field(max_length=40, pattern=LABEL_PATTERN)] | None = Field(
        default=None,
        alias="runID",
        description="The run that this belongs to; its files and its MLflow run are found by it. Default: the name.",
    )
    run_attempt: int = Field(
        default=1, ge=1, description="The run's own attempt (`headrace resume` adds one); orders writes of one run."
    )
    experiment: Text | None = Field(default=None, description="MLflow experiment. Default: the run id's stem.")
    tasks: tuple[Named, ...] = Field(min_length=1, max_length=16, description="What is to be predicted.")
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
    job_start_time: str | None = Field(
        default=None, description="When Ray says that the attempt's driver began; a jump is a second run."
    )
    next_attempt_time: str | None = Field(default=None, description="When the next attempt may begin.")
    start_time: str | None = Field(default=None, description="When the first attempt was made.")
    attempt_start_time: str | None = Field(default=None, description="When the newest attempt was made.")
    completion_time: str | None = Field(default=None, description="When it ended for good.")
    mlflow: MLflowRun | None = Field(default=None, description="Its run in MLflow.")
    metrics: dict[str, float] = Field(default={}, description="Last value of each metric.")
    checkpoint: Checkpoint | None = Field(default=None, description="Newest whole checkpoint.")
    package_uri: str | None = Field(default=None, alias="packageURI", description="The trained model's package.")
    cpu_seconds: float = Field(default=0, ge=0, description="CPU seconds reserved, all attempts together.")
    gpu_seconds: float = Field(default=0, ge=0, description="GPU seconds reserved, all attempts together.")
    conditions: tuple[Condition, ...] = Field(default=(), description="See above.")
