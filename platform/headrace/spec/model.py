"""The run spec in its one canonical form: what hashes, records and steps see.

People may write shorter (`fold` widens that to this); nothing else in Headrace knows the short forms. Field
descriptions are the reference: each states its unit, its effect and the reason for its default, and the published
reference and the editors' schema are made from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool, StrictFloat, StrictInt

from headrace.base.ids import LONGEST_NAME
from headrace.base.jsonfile import sha256_of
from headrace.spec.gate import parse_check

LABEL_PATTERN = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
ENDPOINT_PATTERN = rf"^[a-z]([-a-z0-9]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?$"  # also on a laptop: a spec runs anywhere
ALIAS_PATTERN = r"^(?![vV]\d+$)(?![lL][aA][tT][eE][sS][tT]$)[A-Za-z][A-Za-z0-9_-]{0,99}$"

FORMATS = ("image-folder", "voc", "coco", "mot", "csv", "parquet", "text-lines", "audio-manifest")
TABLE_FORMATS = ("csv", "parquet")
GROUPED_FORMATS = ("mot",)  # their samples belong together in groups that no column names: the frames of a video
BUILTIN_SOURCES = tuple(
    f"builtin:{name}"
    for name in ("digits", "digit-scenes", "digit-scenes-low", "digit-scenes-high", "shapes", "shape-tracks")
)


def _canonical_check(value: Any) -> Any:
    return parse_check(value).text if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
EndpointName = Annotated[str, Field(pattern=ENDPOINT_PATTERN)]
DnsLabel = Annotated[str, Field(pattern=LABEL_PATTERN)]
Check = Annotated[str, BeforeValidator(_canonical_check)]
Share = Annotated[StrictFloat, Field(ge=0, le=1)]
Whole = Annotated[StrictInt, Field(ge=0)]
Count = Annotated[StrictInt, Field(ge=1)]


class Part(BaseModel):
    """Base of the spec's parts: unknown keys are mistakes, values do not change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, regex_engine="python-re")


class Named(Part):
    """Something from the catalog: its name and the arguments that its card judges."""

    name: Text = Field(description="Its name in the catalog.")
    args: dict[str, JsonValue] = Field(default={}, description="Its arguments; the card says which there are.")


class Split(Part):
    """How samples are dealt out to training, validation and test."""

    strategy: Literal["random", "stratified", "group", "time", "hash"] = Field(
        default="stratified",
        description=(
            "`stratified`: every class, or range of a number, in the same proportion; `random`; "
            "`group`: all samples of one `data.group` on one side; `time`: the oldest train, the newest test; "
            "`hash`: by the sample's id, so that a sample never changes sides when data is added, in constant memory. "
            "Default: `group` or `time` where that column is named, `group` for videos (`mot`), else `stratified`."
        ),
    )
    train: Share = Field(default=0.7, description="Share of samples that the model learns from, 0..1. Default 0.7.")
    validation: Share = Field(
        default=0.15,
        description="Share that picks the best epoch and stops early, 0..1. Default: half of what `train` leaves.",
    )
    test: Share = Field(
        default=0.15,
        description="Share held back for the gate, 0..1, never seen in training. Default: half of what `train` leaves.",
    )
    seed: Whole = Field(default=0, description="Seed of the deal: the same seed and data give the same split.")


class Data(Part):
    """Where the samples are and how to read them."""

    source: Text = Field(
        description="`builtin:digits` or another built-in set, a file or folder (relative to this file), or any fsspec "
        "URL (s3://, gs://, https://)."
    )
    format: Literal["image-folder", "voc", "coco", "mot", "csv", "parquet", "text-lines", "audio-manifest"] = Field(
        description="How the source is laid out. Default: the task's usual format, where it has one."
    )
    label: Text | None = Field(
        default=None, description="Column that holds what is to be predicted; tables (csv, parquet) must name it."
    )
    features: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Columns the model may see. Default: all but label, id, group and time.",
    )
    id: Text | None = Field(
        default=None, description="Column that identifies a sample. Default: a hash of its content."
    )
    group: Text | None = Field(
        default=None,
        description="Column whose equal values must lie on one side of the split (patient, speaker, video).",
    )
    time: Text | None = Field(default=None, description="Column by which the `time` strategy orders samples.")
    max_corrupt: Share = Field(
        default=0.01,
        description="Share of unreadable samples that is left out and named; above it: refused. Default 0.01.",
    )
    split: Split = Field(default=Split(), description="How samples are dealt out. Default 70 : 15 : 15.")


class Model(Named):
    """The network: one from the catalog, or your own."""

    name: Text = Field(description='A model of the catalog (`headrace models`), or "module:Class" from `code`.')
    args: dict[str, JsonValue] = Field(default={}, description="Its arguments; `headrace models NAME` lists them.")
    code: Text | None = Field(
        default=None,
        description="Folder beside this file that holds your own model; hashed, kept with each version.",
    )
    init_from: Text | None = Field(
        default=None,
        description="Where the first weights come from: a `.safetensors`, `.pth` or `.pt` file, a URL, a package, a "
        "registered version (`NAME@ALIAS`), or `torchvision:NAME` of weights that this machine has.",
    )
    freeze: tuple[Text, ...] = Field(
        default=(),
        description="Beginnings of parameter names (`layer1.`) or patterns (`*.bias`) that training leaves alone.",
    )


class Workers(Part):
    """How many training processes there are; `min` below `max` lets the number change while the run goes on."""

    min: Count = Field(default=1, description="Fewest workers to go on with.")
    max: Count = Field(default=1, description="Most workers to use.")


class Loss(Named):
    """One term of what training minimises."""

    task: Text = Field(description="The task it judges. Default: the only task.")
    name: Text = Field(description="A loss of the catalog that suits the task. Default: the task's own.")
    weight: Annotated[StrictFloat, Field(gt=0)] = Field(default=1.0, description="Factor of this term in the sum.")


class EarlyStop(Part):
    """When to stop before the last epoch."""

    metric: Text | None = Field(default=None, description="Validation metric to watch. Default: the task's first.")
    patience: Count = Field(default=5, description="Epochs without a better value before training stops. Default 5.")
    min_delta: Annotated[StrictFloat, Field(ge=0)] = Field(
        default=0.0, description="What counts as better, in the metric's own unit. Default 0."
    )


class TrainResources(Part):
    """What each training process reserves."""

    cpus_per_worker: Count = Field(default=1, description="CPU cores each worker reserves. Default 1.")


class Train(Part):
    """How the model learns."""

    epochs: Count = Field(default=10, description="Passes over the training split. Default 10.")
    batch_size: Count = Field(
        default=64, description="Samples of one pass forward and back, over all workers together. Default 64."
    )
    optimizer: Named = Field(default=Named(name="adam"), description="How weights are updated. Default `adam`.")
    losses: tuple[Loss, ...] = Field(
        default=(), description="What is minimised, summed by weight. Default: each task's own loss."
    )
    schedule: Named = Field(
        default=Named(name="constant"), description="How the learning rate changes. Default `constant`."
    )
    workers: Workers = Field(default=Workers(), description="Training processes. Default 1.")
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description=(
            "What several workers share. `ddp`: the data, each has the whole model; `fsdp`: weights, gradients and "
            "optimizer state as well, for models that are too large for one worker. Checkpoints and packages are the "
            "same. Default `ddp`."
        ),
    )
    gpus_per_worker: Literal["auto"] | Whole = Field(
        default="auto",
        description="GPUs each worker reserves; `auto`: one if every worker can have one, else none. Default `auto`.",
    )
    seed: Whole = Field(default=0, description="Seed of initial weights, order and augmentation. Default 0.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Number format of the forward pass; the shorter ones are faster on GPUs."
    )
    compile: StrictBool = Field(
        default=False,
        description=(
            "Compile the training step (torch.compile): faster steps after minutes of compiling, worth it for long "
            "trainings; needs a C++ compiler where the workers are. Default false."
        ),
    )
    sync_batch_norm: StrictBool = Field(
        default=False,
        description=(
            "Batch normalisation takes its means over all workers' samples, as a single worker would, instead of each "
            "worker's own: more messages a step, for batches that leave a worker few samples. Default false."
        ),
    )
    accumulate_steps: Count = Field(
        default=1, description="Batches whose gradients are averaged before weights change. Default 1."
    )
    clip_norm: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        default=None, description="Largest norm of the gradient; longer ones are shortened to it. Default: none."
    )
    ema_decay: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Decay per step of the moving average of weights that is evaluated and kept. Default: no average.",
    )
    early_stop: EarlyStop | None = Field(default=None, description="Stop when validation gets no better. Default: no.")
    checkpoint_every_epochs: Count = Field(
        default=1, description="Epochs between checkpoints: what a crash can cost. Default 1."
    )
    max_failures: Whole = Field(
        default=2, description="Crashed workers after which training gives up instead of starting again. Default 2."
    )
    resources: TrainResources = Field(default=TrainResources(), description="What each worker reserves.")


class Register(Part):
    """Where the trained model is kept."""

    name: DnsLabel = Field(description="Name in the registry. Default: the spec's name.")
    alias: Annotated[str, Field(pattern=ALIAS_PATTERN)] = Field(
        default="champion", description="Alias that moves to the new version once it passed. Default `champion`."
    )


class DeployResources(Part):
    """What each replica reserves."""

    cpus: Annotated[StrictFloat, Field(ge=0)] | None = Field(
        default=None, description="CPU cores a replica reserves. Default: none, it takes what is free."
    )
    gpus: Annotated[StrictFloat, Field(ge=0)] | None = Field(
        default=None, description="GPUs a replica reserves; below 1 they share one. Default: none."
    )
    memory_bytes: Count | None = Field(default=None, description="Bytes of memory a replica reserves. Default: none.")


class Deploy(Part):
    """The endpoint that answers with the registered version."""

    name: EndpointName = Field(description="Name of the endpoint, and its path. Default: the spec's name.")
    replicas: Count = Field(default=1, description="Processes that answer. Default 1.")
    resources: DeployResources = Field(default=DeployResources(), description="What each replica reserves.")


class Domain(Part):
    """The values that one setting may take in a search."""

    draw: Literal["choice", "uniform", "loguniform", "integers"] = Field(
        description="`choice`: one of `values`; the others: between the two of them, both included."
    )
    values: Annotated[tuple[JsonValue, ...], Field(min_length=1)] = Field(
        description="What is chosen from, or the smallest and the largest value."
    )


class Tune(Part):
    """A search for better settings: one training for each trial, of which the best becomes the model."""

    metric: Text | None = Field(
        default=None, description="Validation metric by which the best trial is known. Default: the task's first."
    )
    search: Literal["random", "grid"] = Field(
        default="random",
        description="`random`: `samples` draws (Bergstra & Bengio 2012); `grid`: each combination. Default `random`.",
    )
    samples: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        default=8, description="Trials of a random search. More of them keep the first ones as they were. Default 8."
    )
    scheduler: Literal["none", "asha"] = Field(
        default="none",
        description="`asha`: trials that fall behind are stopped (Li et al. 2018); `none`: all go on to their end.",
    )
    grace_epochs: Count = Field(default=1, description="Epochs before ASHA may stop a trial. Default 1.")
    reduction_factor: Annotated[StrictInt, Field(ge=2)] = Field(
        default=3,
        description="Of the trials that reach a rung ASHA keeps the best 1/this; the next is at this times the epochs.",
    )
    concurrent: Count = Field(
        default=1, description="Trials at a time, as far as there is room; each has `train.workers`. Default 1."
    )
    seed: Whole = Field(default=0, description="Seed of the draws. Default 0.")
    space: Annotated[dict[Text, Domain], Field(min_length=1)] = Field(
        description=(
            "What is tried, by its place in the spec (`train.optimizer.lr`, `model.width`): a list of values, or "
            "`{uniform: [LOW, HIGH]}`, `{loguniform: [LOW, HIGH]}`, `{integers: [LOW, HIGH]}`."
        )
    )


class RunSpec(Part):
    """A model's life in one file: data, split, training, gate, registry, endpoint."""

    version: Literal[1] = Field(default=1, description="Version of this format; stored with the model. Only 1 so far.")
    name: DnsLabel = Field(description="What runs are called after; the default of register.name and deploy.name.")
    tasks: Annotated[tuple[Named, ...], Field(min_length=1)] = Field(
        description="What is to be predicted: decides metrics, default loss and the served signature."
    )
    data: Data = Field(description="Where the samples are.")
    model: Model = Field(description="The network.")
    train: Train = Field(default=Train(), description="How it learns.")
    tune: Tune | None = Field(
        default=None, description="Search for better settings before the gate; on this machine. Default: no."
    )
    gate: tuple[Check, ...] = Field(
        default=(),
        description=(
            "What the test split must show before the model is registered under its alias: "
            "`METRIC (>=|>|<=|<) (NUMBER | champion [(+|-) NUMBER])`. Default: nothing."
        ),
    )
    register_: Register | None = Field(
        default=None, alias="register", description="Keep the model in the registry. Default: no."
    )
    deploy: Deploy | None = Field(default=None, description="Serve it; needs `register`. Default: no.")

    def to_record(self) -> dict[str, Any]:
        """The canonical record: plain JSON values, every default written out. `load_spec` takes it back."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def sha256(self) -> str:
        """Hash of the canonical record: the same spec in any spelling has the same."""
        return sha256_of(self.to_record())
