"""What a TrainingRun says of the training itself: the run spec's canonical form, bounded for the API server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from headrace.api.parts import Part
from headrace.api.rules import list_set, rule, rules
from headrace.api.texts import Address, Name, pattern

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
    losses: tuple[Loss, ...] = Field(
        default=(), max_length=32, description="What is minimised, summed by weight. Default: each task's own loss."
    )
    schedule: Named = Field(default=Named(name="constant"), description="How the learning rate changes.")
    workers: Workers = Field(default=Workers(), description="Training processes, each in a pod of its own.")
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="What several workers share: the data (ddp), or weights, gradients and optimizer state too (fsdp).",
    )
    gpus_per_worker: int = Field(default=0, ge=0, le=64, description="GPUs that each worker reserves.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and augmentation.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Number format of the forward pass; the shorter ones are faster on GPUs."
    )
    compile: bool = Field(default=False, description="Compile the training step; the image must have a C++ compiler.")
    sync_batch_norm: bool = Field(
        default=False, description="Batch normalisation takes its means over all workers' samples."
    )
    accumulate_steps: int = Field(default=1, ge=1, description="Batches whose gradients are averaged into one step.")
    clip_norm: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient; longer ones are shortened to it. Default: none."
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay per step of the moving average of weights that is kept. Default: no average.",
    )
    early_stop: EarlyStop | None = Field(default=None, description="Stop when validation gets no better. Default: no.")
    checkpoint_every_epochs: int = Field(default=1, ge=1, description="Epochs between checkpoints.")
    max_failures: int = Field(
        default=2, ge=0, description="Crashed workers after which an attempt gives up instead of starting them again."
    )
    resources: TrainResources = Field(default=TrainResources(), description="What each worker reserves of Ray.")
