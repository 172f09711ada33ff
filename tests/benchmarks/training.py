"""Training throughput beside a bare DDP loop: the same network, data, batch and processes (DESIGN §12: at least 0.97).

Both loops live in the same two processes and take turns epoch by epoch, so that whatever else the machine does slows
both alike; the figure is the median of the ratios of neighbouring epochs. The bare loop holds the whole split as one
tensor and indexes it, the fastest that PyTorch users write for data that fits into memory; ours collates batches from
decoded examples, checks every loss, tells progress and averages statistics. What happens between epochs (validation,
checkpoint, report) is in overhead.py.

    torchrun --nproc-per-node 2 tests/benchmarks/training.py [EPOCHS] [MODEL]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from headrace.data import Manifest, split_data
from headrace.store import Store
from headrace.training.batches import Examples, share_out, training_batches
from headrace.training.group import Group
from headrace.training.loop import LossTerm, Objective, Trainer
from headrace.training.progress import Teller
from headrace_models.layers import build_loss, build_optimizer, build_schedule
from headrace_models.package import build_model
from headrace_models.tasks import build_task
from headrace_models.tasks.base import Task

TASK = {"name": "image-classification", "args": {}}
GLOBAL_BATCH = 64


def prepare(group: Group) -> tuple[Task, Examples]:
    """The digits, split by the first process, decoded by each for its own share."""
    folder = group.from_first(tempfile.mkdtemp(prefix="headrace-bench-"))
    store = Store(folder)
    part: dict[str, object] = {"source": "builtin:digits", "format": "image-folder", "max_corrupt": 0.01}
    part |= dict.fromkeys(("label", "features", "id", "group", "time"))
    part["split"] = {"strategy": "stratified", "train": 0.9, "validation": 0.05, "test": 0.05, "seed": 0}
    part["tasks"] = [TASK]
    made = split_data(part, store=store, source_fingerprint="", tell=lambda _: None) if group.first else None
    manifest = Manifest(store, group.from_first(made.fingerprint if made else None))
    shard = manifest.shard("train", group.rank, group.world)
    task = build_task(TASK, manifest.schema)
    task.learn(group.gather(task.summarise(shard)))
    examples = Examples(shard, task)
    for index in range(len(examples)):
        examples[index]
    return task, examples


def our_epoch(model: nn.Module, task: Task, examples: Examples, group: Group) -> Callable[[int], int]:
    """An epoch of ours: trains, and gives the number of this process's samples."""
    schedule = share_out(GLOBAL_BATCH, group.gather(len(examples)))
    optimizer = build_optimizer("adam", {"lr": 1e-3}, model.named_parameters())
    scheduler = build_schedule("constant", {}, optimizer, total_steps=1, steps_per_epoch=1)
    objective = Objective(task, (LossTerm(build_loss("cross-entropy", {}, task), 1.0),), group.device, torch.float32)
    trainer = Trainer(model, objective, optimizer, scheduler, group)
    teller = Teller(speaks=group.first)

    def epoch(number: int) -> int:
        batches = training_batches(examples, task, schedule=schedule, rank=group.rank, seed=0, epoch=number)
        trainer.epoch(number, batches, schedule, teller, 0)
        return schedule.batches * schedule.sizes[group.rank]

    return epoch


def bare_epoch(model: nn.Module, task: Task, examples: Examples, group: Group) -> Callable[[int], int]:
    """An epoch of the bare loop."""
    whole = task.collate([examples[index][1] for index in range(len(examples))])
    (x,) = task.inputs(whole)
    y = next(value for value in whole.values() if value.dtype == torch.int64)
    replica = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(replica.parameters(), lr=1e-3)

    def epoch(number: int) -> int:
        replica.train()
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(number))
        for indices in order.split(GLOBAL_BATCH // group.world):
            optimizer.zero_grad()
            cross_entropy(replica(x[indices]), y[indices]).backward()
            optimizer.step()
        return len(y)

    return epoch


def main(epochs: int, model: str) -> None:
    """Run EPOCHS pairs of epochs after one to warm up; the first process prints the table."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group = Group(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    task, examples = prepare(group)
    loops = {
        name: make(build_model({"name": model, "args": {}}, task), task, examples, group)
        for name, make in (("headrace", our_epoch), ("bare", bare_epoch))
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(epochs + 1):
        for name in sorted(loops, reverse=bool(number % 2)):
            dist.barrier()
            started = time.perf_counter()
            samples = loops[name](number)
            dist.barrier()
            if number:
                rates[name].append(group.world * samples / (time.perf_counter() - started))
    if group.first:
        ratios = [ours / bare for ours, bare in zip(rates["headrace"], rates["bare"], strict=True)]
        for name, values in rates.items():
            print(f"{name:<10}{statistics.median(values):>10.0f} samples/s (median of {epochs} epochs)")
        print(f"{'ratio':<10}{statistics.median(ratios):>10.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2] if len(sys.argv) > 2 else "resnet8")
