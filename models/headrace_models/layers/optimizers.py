"""PyTorch's optimizers under the names and defaults of their cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import optim


def sgd(parameters: Iterable[Any], *, lr: float, weight_decay: float) -> optim.Optimizer:
    """w -= lr * g."""
    return optim.SGD(parameters, lr=lr, weight_decay=weight_decay)


def momentum(
    parameters: Iterable[Any], *, lr: float, weight_decay: float, momentum: float, nesterov: bool
) -> optim.Optimizer:
    """v = momentum * v + g; w -= lr * v, or with Nesterov w -= lr * (g + momentum * v)."""
    return optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)


def adam(parameters: Iterable[Any], **args: Any) -> optim.Optimizer:
    """w -= lr * m̂ / (sqrt(v̂) + eps), the hats marking bias correction."""
    return optim.Adam(parameters, **args)


def adamw(parameters: Iterable[Any], **args: Any) -> optim.Optimizer:
    """w -= lr * weight_decay * w, then Adam's step."""
    return optim.AdamW(parameters, **args)


def rmsprop(parameters: Iterable[Any], **args: Any) -> optim.Optimizer:
    """s = alpha * s + (1 - alpha) * g²; w -= lr * g / (sqrt(s) + eps)."""
    return optim.RMSprop(parameters, **args)


def adagrad(parameters: Iterable[Any], *, initial_accumulator: float, **args: Any) -> optim.Optimizer:
    """s += g²; w -= lr * g / (sqrt(s) + eps)."""
    return optim.Adagrad(parameters, initial_accumulator_value=initial_accumulator, **args)


def adadelta(parameters: Iterable[Any], **args: Any) -> optim.Optimizer:
    """d = sqrt(u + eps) / sqrt(s + eps) * g; w -= lr * d, s and u being the running mean squares of g and of d."""
    return optim.Adadelta(parameters, **args)
