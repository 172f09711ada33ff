"""The workers of one training as seen from one of them: who am I, how many are we, and what do we know together.

A single worker needs no process group at all. Objects travel over gloo also where gradients travel over NCCL.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from headrace.training.rendezvous import RENDEZVOUS

# A peer that died is noticed at once (its sockets close); this is for one that hangs. Packaging and plots are waited
# for in a barrier, so it must be longer than they take.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Group:
    """This worker among its peers."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this worker writes what is written once."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every worker's VALUE, in rank order, on every worker."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The first worker's VALUE, on every worker."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of VALUES over all workers, in double precision."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def average_buffers(self, buffers: Iterable[torch.Tensor]) -> None:
        """Make floating BUFFERS (batch norm's statistics) the mean over all workers, the others those of the first."""
        if self.world == 1:
            return
        given = list(buffers)
        floating = [buffer for buffer in given if buffer.is_floating_point()]
        others = [buffer for buffer in given if not buffer.is_floating_point()]
        if floating:
            flat = _flat(floating, torch.float64)
            dist.all_reduce(flat)
            _put_back(flat / self.world, floating)
        if others:
            flat = _flat(others, torch.int64)
            dist.broadcast(flat, src=0)
            _put_back(flat, others)


def _flat(tensors: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """All of TENSORS in one, so that they travel together."""
    return torch.cat([tensor.detach().to(dtype).reshape(-1) for tensor in tensors])


def _put_back(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def open_group(rank: int, world: int, local_world: int, device: torch.device) -> Group:
    """Meet the peers; returns when all are there."""
    if world > 1:
        kind, _, place = os.environ[RENDEZVOUS].partition(":")
        if local_world == world:  # one machine: data, too, stays on loopback
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{place}" if kind == "file" else f"tcp://{place}",
            rank=rank,
            world_size=world,
            timeout=COLLECTIVE_TIMEOUT,
        )
    return Group(rank, world, device)


def close_group() -> None:
    """Leave the peers in order, so that no worker sees another's end as a lost connection."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
