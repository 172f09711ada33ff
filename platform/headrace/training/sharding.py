"""A model whose weights lie in shares on the workers: PyTorch's FSDP2, `torch.distributed.fsdp.fully_shard`.

Every worker keeps one share of each weight, of its gradient and of the optimizer's state; a block's weights are whole
only while it runs (Rajbhandari et al. 2020, section 5: ZeRO stage 3). What leaves the workers (checkpoints, packages)
is whole again, so that nobody can tell how a model was trained, and a training may go on in the other way.

All that is called here is called by every worker alike, in the same order. FSDP is imported where it is used: that
takes 0.4 s of CPU, which the other trainings need not spend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from headrace.base.errors import InvalidInput
from headrace.training.group import Group

# A block is gathered and put back by itself if it has so many parameters; below, the messages' latency costs more than
# the memory is worth, and the block is gathered together with what no block has.
SMALLEST_BLOCK = 1 << 16

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks_of(model: nn.Module, smallest: int = SMALLEST_BLOCK) -> list[nn.Module]:
    """The parts of MODEL that are gathered one at a time: what repeats in its sequences and lists of modules.

    A sequence within a sequence is looked into; what else a block holds is part of it. Blocks that share parameters
    with anything else are left out: these have to be whole in two places at once.
    """
    uses = _uses(model)
    return [
        block
        for block in _items(model)
        if sum(parameter.numel() for parameter in block.parameters()) >= smallest
        and all(uses[parameter] == count for parameter, count in _uses(block).items())
    ]


def _items(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, _CONTAINERS) and not isinstance(child, _CONTAINERS):
            yield child
        else:
            yield from _items(child)


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """How often each parameter stands in MODULE."""
    return Counter(parameter for _, parameter in module.named_parameters(remove_duplicate=False))


def shard(model: nn.Module, group: Group) -> None:
    """Leave of MODEL's parameters, which are the same on all workers, this worker's share, on its device; in place.

    An optimizer is made afterwards: the parameters are other ones.

    Raises:
        InvalidInput: a parameter is a single number, which has no shares.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise InvalidInput(
                f"train.parallel is fsdp, and the model's parameter {name!r} is a single number, which has no shares",
                action="give it the shape [1], or set train.parallel: ddp",
            )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(group.device.type, (group.world,))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_share(value: Any) -> bool:
    """Whether VALUE is a sharded tensor (a DTensor, whose class is not imported for that)."""
    return isinstance(value, torch.Tensor) and hasattr(value, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was here."""
    return any(is_share(parameter) for parameter in model.parameters())


def own_part(value: torch.Tensor) -> torch.Tensor:
    """What of VALUE lies on this worker: all, unless it is sharded."""
    return value.to_local() if is_share(value) else value  # type: ignore[attr-defined]


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Within the block every worker has all of MODEL's weights, and runs it without waiting for the others.

    That is what judging needs, where workers have different numbers of batches.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)  # as `fully_shard` has it


def whole(value: Any, *, keep: bool) -> Any:
    """VALUE, a nest of mappings and lists, with whole tensors on the CPU in place of shares where KEEP is true.

    They are gathered one by one; elsewhere what came is dropped at once, and None stands in its place.
    """
    if is_share(value):
        full = value.detach().full_tensor()
        return full.to("cpu", copy=True).contiguous() if keep else None
    if isinstance(value, Mapping):
        return {name: whole(part, keep=keep) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part, keep=keep) for part in value]
    return value


def share_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This worker's share of VALUE, which all workers have whole, cut as LIKE is; VALUE itself if LIKE is whole."""
    if not is_share(like):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # src_data_rank=None: nothing is sent. A copy, since a part of VALUE would keep all of it in memory.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None).clone()


def shares_of_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """STATE of an optimizer, whole, cut as the parameters of OPTIMIZER are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def cut(value: Any, parameter: torch.Tensor) -> Any:
        fits = isinstance(value, torch.Tensor) and value.shape == parameter.shape
        return share_of(value, parameter) if fits else value

    cut_state = {
        place: {name: cut(value, parameters[place]) for name, value in entries.items()}
        for place, entries in state["state"].items()
    }
    return {**state, "state": cut_state}
