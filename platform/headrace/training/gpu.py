"""What keeps a GPU busy: batches that are on their way while it computes, and the layout its convolutions are fast in.

Copies to a GPU run beside its work only from pinned memory and on a stream of their own; otherwise each waits for all
work before it, and the GPU then waits for the next batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import nn

from headrace.training.batches import ahead
from headrace_models.tasks.base import Batch


def repeatable(device: torch.device) -> None:
    """Let convolutions take the same algorithm every time, so that a resumed training repeats itself."""
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def laid_out(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Keep the weights of MODEL's convolutions channels last, in place, where they compute in 16 bits on a GPU.

    Its matrix units want them so, and the convolutions' outputs follow. A model must then not `view` such an output in
    another shape, but `reshape` or `flatten` it.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)


def supplied(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """BATCHES, for a GPU in pinned memory and made in a thread that runs ahead."""
    if device.type == "cpu":
        return iter(batches)
    return ahead(lambda: _pinned(batches, device))


def _pinned(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    torch.cuda.set_device(device)  # of this thread; pinning would else open the first GPU as well
    for batch in batches:
        yield {name: value.pin_memory() for name, value in batch.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """BATCH on DEVICE; what is called next on it waits for it, the caller does not if the batch is pinned."""
    if device.type == "cpu":
        return batch
    copies, work = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        sent = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    work.wait_stream(copies)
    for value in sent.values():
        value.record_stream(work)  # its memory is not given to another copy before the work is done
    return sent


@cache
def _copies(device: torch.device) -> Any:
    """The stream of copies to DEVICE."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
