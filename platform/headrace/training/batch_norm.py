"""Batch normalisation over all workers' samples: `train.sync_batch_norm`.

Left alone, every worker normalises by its own share of a batch: with more workers the moments are of fewer samples, and
a step is not the one that a single worker would take. Here the moments are everyone's (Peng et al. 2018, MegDet,
section 3.3), and so is the gradient through them; workers' shares may differ in size.

On a GPU this is PyTorch's own `SyncBatchNorm`, which runs nowhere else; on a CPU it is `SynchronisedBatchNorm`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from headrace.base.errors import InvalidInput
from headrace.training.group import Group

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Standardise(torch.autograd.Function):
    """What has mean 0 and variance 1 over axis 0 and the trailing axes, all workers' rows taken together.

    The two derivatives through the moments (Ioffe & Szegedy 2015, section 3) need one message each way back.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(standardised rows, mean [C], variance [C], number of values behind each of them [1]) of ROWS [N, C, ...]."""
        axes = _axes(rows)
        values = rows.new_full((1,), rows.numel() / rows.shape[1])
        sums = torch.cat([rows.sum(axes), values])
        dist.all_reduce(sums)
        values = sums[-1:]
        if values.item() <= 1:
            raise ValueError(
                f"batch normalisation needs more than one value a channel; all workers have {values.item():g}"
            )
        mean = sums[:-1] / values
        # Only now what is around the mean: large squares less a large square would leave nothing exact.
        centred = rows - _along(mean, rows)
        squares = centred.square().sum(axes)
        dist.all_reduce(squares)
        variance = squares / values
        scale = torch.rsqrt(variance + eps)
        standard = centred.mul_(_along(scale, rows))
        ctx.save_for_backward(standard, scale, values)
        ctx.mark_non_differentiable(mean, variance, values)
        return standard, mean, variance, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of the rows, of that of the standardised ones."""
        standard, scale, values = ctx.saved_tensors
        gradient = gradients[0]
        axes = _axes(gradient)
        sums = torch.stack([gradient.sum(axes), (gradient * standard).sum(axes)])
        dist.all_reduce(sums)
        plain, along = sums / values
        around = gradient - _along(plain, gradient) - standard * _along(along, gradient)
        return around * _along(scale, gradient), None


def _axes(rows: torch.Tensor) -> list[int]:
    """The axes of ROWS [N, C, ...] but that of the channels."""
    return [axis for axis in range(rows.ndim) if axis != 1]


def _along(channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """CHANNELS [C] so that they broadcast over LIKE [N, C, ...]."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))


class SynchronisedBatchNorm(_BatchNorm):
    """Batch normalisation (Ioffe & Szegedy 2015, algorithm 1) of [N, C, ...] by the moments over all workers' N.

    In training all workers call it equally often, and one of them may have no rows. In judging it is what the layer is
    in whose place it stands, and needs nobody.
    """

    def _check_input_dim(self, given: torch.Tensor) -> None:
        if given.ndim < 2:
            raise ValueError(f"batch normalisation takes [N, C, ...], and was given {list(given.shape)}")

    @torch.compiler.disable
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """GIVEN normalised channel by channel, of its own shape and type."""
        if not self.training:
            return super().forward(given)
        self._check_input_dim(given)
        rows = given.to(torch.promote_types(given.dtype, torch.float32))
        result, mean, variance, values = _Standardise.apply(rows, self.eps)
        if self.track_running_stats:
            self._remember(mean, variance, values)
        # What was standardised is kept for the way back, so whoever comes next gets something else to write into.
        result = result * _along(self.weight, rows) if self.weight is not None else result.clone()
        if self.bias is not None:
            result = result + _along(self.bias, rows)
        return torch.as_tensor(result, dtype=given.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, values: torch.Tensor) -> None:
        """Move the running statistics towards these; the variance as an unbiased estimate."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (values / (values - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def synchronise(model: nn.Module, group: Group) -> nn.Module:
    """MODEL with its layers of batch normalisation over all workers of GROUP; the same object, unless it is such a one.

    Parameters and buffers stay the objects they are, under their names: weights, packages and what is frozen know
    nothing of it.

    Raises:
        InvalidInput: a layer is of a class of somebody's own, whose forward would be lost.
    """
    if group.world == 1:
        return model
    made: dict[nn.Module, nn.Module] = {}  # what stands at several places of the model stays one
    for name, layer in model.named_modules():
        if type(layer) in _PLAIN:
            made[layer] = _synchronised(layer, group)
        elif isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            raise InvalidInput(
                f"train.sync_batch_norm is true, and the layer {name!r} is of the class {type(layer).__name__}: "
                "batch normalisation of its own kind, whose means nobody else can take",
                action="make it a torch.nn.BatchNorm, or set train.sync_batch_norm: false",
            )
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in made:
                setattr(parent, name, made[child])
    return made.get(model, model)


def _synchronised(layer: nn.Module, group: Group) -> nn.Module:
    assert isinstance(layer, _BatchNorm)
    if group.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        return converted
    made = SynchronisedBatchNorm(layer.num_features, layer.eps, layer.momentum, affine=False, track_running_stats=False)
    made.affine, made.track_running_stats = layer.affine, layer.track_running_stats
    made.weight, made.bias = layer.weight, layer.bias
    made.running_mean, made.running_var = layer.running_mean, layer.running_var
    made.num_batches_tracked = layer.num_batches_tracked
    return made.train(layer.training)
