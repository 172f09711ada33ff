"""Pictures a second of a training on a GPU beside a bare PyTorch loop: ResNet-50 in bfloat16 (at least 0.97 of it).

Both train the same network in one process and take turns, so that whatever else the machine does slows both alike; the
figure is the median of the ratios of neighbouring turns. The bare loop has one batch on the GPU and trains on it again
and again, channels last, under PyTorch's own defaults: it never waits for data. Ours has what a training of Headrace
has: batches of the decoded pictures collated in memory, pinned and sent, normalised on the GPU, losses that are summed
and checked, progress that is told, and convolutions that repeat themselves. Pictures are noise; decoding is left out.
A turn is an epoch: before the GPU can begin one, its first batch is made, which shows if an epoch is short (ratio .94
with 8 steps on an H100, .98 with 32; ImageNet has 5,000).

    python tests/benchmarks/resnet50_gpu.py [--batch 256] [--pictures 8192] [--rounds 10] [--least 0.97]

Without a GPU it says so and does nothing; `--device cpu --size 32 --width 0.125 --batch 8 --pictures 16` runs its code.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from headrace.base import events
from headrace.training.batches import Examples, share_out, training_batches
from headrace.training.components import make_objective, make_trainer
from headrace.training.gpu import repeatable
from headrace.training.group import Group
from headrace.training.progress import Teller
from headrace_models.package import build_model
from headrace_models.tasks import Sample, Schema, Task, build_task

CLASSES = 1000
SETTINGS: Mapping[str, Any] = {
    "losses": [{"task": "image-classification", "name": "cross-entropy", "args": {}, "weight": 1.0}],
    "precision": "bfloat16",
    "optimizer": {"name": "momentum", "args": {"lr": 0.01}},
    "schedule": {"name": "constant", "args": {}},
    "accumulate_steps": 1,
    "clip_norm": None,
    "ema_decay": None,
    "epochs": 1,
}
Turn = Callable[[int], None]


class Noise(Examples):
    """Decoded pictures of noise with a class each, as a shard of a real data set is once all of it is in memory."""

    def __init__(self, task: Task, pictures: int, size: int) -> None:
        super().__init__([Sample(str(number), b"") for number in range(pictures)], task, cache_bytes=1 << 40)
        rng = np.random.default_rng(0)
        for number in range(pictures):
            pixels = rng.integers(0, 256, (3, size, size), dtype=np.uint8)
            self._kept[number] = str(number), {"image": pixels, "label": int(rng.integers(CLASSES))}
        self._missing = 0


def learned(size: int) -> Task:
    """A task for pictures of SIZE x SIZE, as if it had seen them."""
    task = build_task({"name": "image-classification", "args": {}}, Schema("label", tuple(map(str, range(CLASSES)))))
    task.preprocessing = {"image_size": [size, size], "channels": 3, "mean": [0.5] * 3, "std": [0.29] * 3}
    task.preprocessing["class_counts"] = [1] * CLASSES
    return task


def our_turn(model: torch.nn.Module, task: Task, examples: Examples, batch: int, group: Group) -> Turn:
    """An epoch of ours."""
    schedule = share_out(batch, [len(examples)])
    objective = make_objective(SETTINGS, task, group.device)
    trainer = make_trainer(SETTINGS, model, objective, group, schedule, own_code=False)
    teller = Teller(speaks=True)

    def epoch(number: int) -> None:
        batches = training_batches(examples, task, schedule=schedule, rank=0, seed=0, epoch=number)
        trainer.epoch(number, batches, schedule, teller, 0)

    return epoch


def bare_turn(model: torch.nn.Module, task: Task, examples: Examples, batch: int, group: Group) -> Turn:
    """As many steps of the bare loop."""
    device, steps = group.device, -(-len(examples) // batch)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    first = task.collate([examples[number][1] for number in range(batch)])
    (image,) = task.inputs(first)
    image = image.to(device, memory_format=torch.channels_last)
    label = first["label"].to(device)

    def epoch(number: int) -> None:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()

    return epoch


def settings_of(name: str) -> AbstractContextManager[Any]:
    """How cuDNN chooses: ours as `repeatable` has it, the bare loop as PyTorch does by itself."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=name == "headrace")


def synchronise(device: torch.device) -> None:
    """Wait until DEVICE has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(turns: Mapping[str, Turn], rounds: int, pictures: int, device: torch.device) -> dict[str, list[float]]:
    """Pictures a second of each of TURNS, in each of ROUNDS after one to warm up; who begins changes."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in sorted(turns, reverse=bool(number % 2)):
            with settings_of(name):
                synchronise(device)
                started = time.perf_counter()
                turns[name](number)
                synchronise(device)
                seconds = time.perf_counter() - started
            if number:
                rates[name].append(pictures / seconds)
    return rates


def main(words: Sequence[str]) -> int:
    """Measure and print; 1 if the ratio is below `--least`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=8192)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--least", type=float, default=0.97)
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here: nothing was measured")
        return 0
    device = torch.device(given.device, 0) if given.device == "cuda" else torch.device(given.device)
    if device.type == "cuda":
        repeatable(device)
    os.environ.setdefault(events.VARIABLE, os.devnull)  # progress is told, to nobody
    group, task = Group(0, 1, device), learned(given.size)
    examples = Noise(task, given.pictures, given.size)
    record = {"name": "resnet50", "args": {"width": given.width}}
    turns = {
        name: make(build_model(record, task), task, examples, given.batch, group)
        for name, make in (("headrace", our_turn), ("bare", bare_turn))
    }
    steps = -(-given.pictures // given.batch)
    rates = measured(turns, given.rounds, steps * given.batch, device)
    ratios = [ours / bare for ours, bare in zip(rates["headrace"], rates["bare"], strict=True)]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(
        f"ResNet-50 (width {given.width:g}), bfloat16, {given.size} x {given.size}, batches of {given.batch}: {where}"
    )
    for name, values in rates.items():
        print(f"{name:<10}{statistics.median(values):>10.1f} pictures/s (median of {given.rounds} turns)")
    ratio = statistics.median(ratios)
    print(f"{'ratio':<10}{ratio:>10.3f} ({min(ratios):.3f} to {max(ratios):.3f}); at least {given.least:g} is wanted")
    return int(ratio < given.least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
