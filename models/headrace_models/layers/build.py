"""Training components from their names and arguments, judged by their cards."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from headrace.base.errors import InvalidInput
from headrace_models import catalog
from headrace_models.tasks.base import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from headrace_models.layers.losses import Loss


def build_activation(name: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """A fresh activation module."""
    card = catalog.get("activation", name)
    return cast("nn.Module", card.load()(**catalog.arguments(card, args or {}).model_dump()))


def build_loss(name: str, args: Mapping[str, Any] | None, task: Task) -> Loss:
    """The loss for `task.loss(outputs, batch, loss)`: a module without parameters.

    Raises:
        InvalidInput: no such loss, one that the task cannot use, or wrong arguments.
    """
    card = catalog.get("loss", name)
    if name not in task.card.losses:
        raise InvalidInput(
            f"the loss {name!r} does not fit {task.card.name}",
            action=f"choose one of: {catalog.listed(name, task.card.losses)}",
        )
    target = card.load()
    takes = inspect.signature(target).parameters
    facts = {key: value for key, value in task.loss_facts().items() if key in takes}
    return cast("Loss", target(**facts, **catalog.arguments(card, args or {}).model_dump()))


def build_optimizer(
    name: str, args: Mapping[str, Any] | None, parameters: Iterable[tuple[str, torch.Tensor]]
) -> torch.optim.Optimizer:
    """The optimizer over PARAMETERS, as `named_parameters` gives them: those that are trained.

    Raises:
        SpecInvalid: wrong arguments, or a group that no parameter belongs to.
    """
    from headrace_models.layers.groups import parameter_groups

    card = catalog.get("optimizer", name)
    chosen = catalog.arguments(card, args or {}).model_dump()
    groups = parameter_groups(list(parameters), chosen["lr"], chosen.pop("groups"), chosen.pop("layer_decay"))
    return cast("torch.optim.Optimizer", card.load()(groups, **chosen))


def build_schedule(
    name: str,
    args: Mapping[str, Any] | None,
    optimizer: torch.optim.Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of OPTIMIZER's learning rates: call `step()` after each optimizer step.

    Args:
        total_steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of one epoch.
    """
    from torch.optim.lr_scheduler import LambdaLR

    card = catalog.get("schedule", name)
    factor = card.load()(catalog.arguments(card, args or {}), max(1, total_steps), max(1, steps_per_epoch))
    return LambdaLR(optimizer, lambda step: float(factor(step)))  # a plain function is kept out of its state_dict
