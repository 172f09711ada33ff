"""A request's words made into objects: the network, its losses, its optimizer, its schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from headrace.base.errors import InvalidInput
from headrace.spec.learning import require_statistics_settings
from headrace.store import Store
from headrace.training.batch_norm import synchronise
from headrace.training.batches import Schedule
from headrace.training.counting import CountingTrainer
from headrace.training.gpu import laid_out
from headrace.training.group import Group
from headrace.training.heads import head_of_others
from headrace.training.initialise import Matching, freeze, load_weights
from headrace.training.learner import Learner
from headrace.training.loop import DTYPES, LossTerm, Objective, Trainer
from headrace.training.sharding import shard
from headrace.training.state import MovingAverage
from headrace_models.layers import build_loss, build_optimizer, build_schedule
from headrace_models.layers.counting import Counting
from headrace_models.package import build_model, materialise, unpack_code
from headrace_models.tasks.base import Arrays, Task

FEW_SAMPLES = 8  # for batch norm


def fetch_code(store: Store, code: Mapping[str, Any] | None, into: Path) -> Path | None:
    """The user's own model code as a folder of this machine."""
    if code is None:
        return None
    archive = store.read_bytes(str(code["uri"]))
    if archive is None:
        raise InvalidInput(f"the model's own code is gone: {code['uri']}", action="run the spec again")
    return unpack_code(archive, into / str(code["sha256"]))


def make_model(
    part: Mapping[str, Any],
    task: Task,
    code_folder: Path | None,
    example: Arrays,
    *,
    on_init: Callable[[Matching], None] | None,
) -> torch.nn.Module:
    """The network of a training. EXAMPLE is a request of one sample.

    ON_INIT hears what was taken of the weights of `init_from`; without it none are, as a resumed training has its own.

    Raises:
        SpecInvalid: `freeze` fits none or all of its parameters, or it learns from statistics.
        InvalidInput: the network cannot be built, has nothing to train, or `init_from` cannot be read.
    """
    model = build_model(part, task, code_folder)
    materialise(model, task, example)
    if isinstance(model, Counting):
        require_statistics_settings(task.names, {}, type(model).__name__, part)
    if on_init is not None and part.get("init_from"):
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        head = partial(head_of_others, part, task, code_folder, example, shapes)
        on_init(load_weights(model, str(part["init_from"]), head))
    if part.get("freeze"):
        freeze(model, part["freeze"])
    if not isinstance(model, Counting) and not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidInput(
            f"the model {part['name']!r} has no parameters to train",
            action="check its code; one that learns from statistics is a headrace_models.layers.counting.Counting",
        )
    return model


def make_objective(train: Mapping[str, Any], task: Task, device: torch.device) -> Objective:
    """What is minimised."""
    terms = tuple(
        LossTerm(
            build_loss(loss["name"], loss["args"], task.part(loss["task"])).to(device),
            float(loss["weight"]),
            loss["task"],
        )
        for loss in train["losses"]
    )
    return Objective(task, terms, device, DTYPES[train["precision"]])


def small_batch_norm(model: torch.nn.Module, schedule: Schedule, *, synchronised: bool) -> str | None:
    """A word where batch norm would take its means from few samples: unless it is SYNCHRONISED, a worker's own share.

    Wu & He 2018 (Group Normalization, figure 1): its error rises below 16 samples, and steeply below 8.
    """
    if synchronised or len(schedule.sizes) == 1 or min(schedule.sizes) >= FEW_SAMPLES:
        return None
    if not any(isinstance(layer, _BatchNorm) and layer.training for layer in model.modules()):
        return None
    return (
        f"batch norm takes its means from {min(schedule.sizes)} samples: each worker's share of train.batch_size "
        f"{schedule.global_size}; set train.sync_batch_norm: true, or train.batch_size to "
        f"{FEW_SAMPLES * len(schedule.sizes)} or more, if the model learns worse than on one worker"
    )


def make_learner(
    train: Mapping[str, Any],
    model: torch.nn.Module,
    objective: Objective,
    group: Group,
    schedule: Schedule,
    *,
    own_code: bool,
) -> Learner:
    """What trains MODEL, by statistics if it is made for them, else by gradients (`make_trainer`).

    Raises:
        SpecInvalid: the train part says something that means nothing to a model that learns from statistics.
    """
    if isinstance(model, Counting):
        require_statistics_settings(objective.task.names, train, type(model).__name__)
        return CountingTrainer(model.to(group.device), objective, group, seed=int(train["seed"]))
    return make_trainer(train, model, objective, group, schedule, own_code=own_code)


def make_trainer(
    train: Mapping[str, Any],
    model: torch.nn.Module,
    objective: Objective,
    group: Group,
    schedule: Schedule,
    *,
    own_code: bool,
) -> Trainer:
    """The trainer of MODEL, which it puts on the group's device, whole or sharded, as the spec's train part says.

    Of a user's OWN_CODE nothing is taken for granted.
    """
    # A run that was begun by an older version knows none of the three keys.
    if train.get("sync_batch_norm"):
        model = synchronise(model, group)
    if train.get("parallel") == "fsdp" and group.world > 1:
        shard(model, group)
    else:
        model.to(group.device)
        if not own_code:
            laid_out(model, group.device, objective.dtype)
    steps = -(-schedule.batches // int(train["accumulate_steps"]))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = build_optimizer(train["optimizer"]["name"], train["optimizer"]["args"], trained)
    scheduler = build_schedule(
        train["schedule"]["name"],
        train["schedule"]["args"],
        optimizer,
        total_steps=steps * int(train["epochs"]),
        steps_per_epoch=steps,
    )
    return Trainer(
        model,
        objective,
        optimizer,
        scheduler,
        group,
        accumulate_steps=int(train["accumulate_steps"]),
        clip_norm=train["clip_norm"],
        compiled=bool(train.get("compile")),
        average=MovingAverage(model, float(train["ema_decay"])) if train["ema_decay"] is not None else None,
        idle_parameters=own_code,
    )
