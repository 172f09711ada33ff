"""The same training as examples/digits.yaml without Headrace: what `torchrun` users write. Started by overhead.py.

torchrun --nproc-per-node 2 tests/benchmarks/bare_loop.py EPOCHS SEED
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from headrace_models.classification.cifar_resnet import resnet8

GLOBAL_BATCH = 64


def main(epochs: int, seed: int) -> None:
    """Train, validate each epoch, test once; rank 0 prints the test accuracy."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    pictures, labels = load_digits(return_X_y=True)
    x = torch.tensor(pictures, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    train, rest = train_test_split(range(len(y)), test_size=0.3, stratify=labels, random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    x = (x - x[train].mean()) / x[train].std()
    torch.manual_seed(seed)
    model = DistributedDataParallel(resnet8(num_classes=10, in_channels=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    mine = torch.tensor(train)[rank::world]
    steps = epochs * -(-len(mine) // (GLOBAL_BATCH // world))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)

    def accuracy(indices: list[int]) -> float:
        model.eval()
        own = torch.tensor(indices)[rank::world]
        with torch.inference_mode():
            right = (model.module(x[own]).argmax(1) == y[own]).sum().float()
        dist.all_reduce(right)
        return float(right) / len(indices)

    for epoch in range(epochs):
        model.train()
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        for indices in mine[torch.randperm(len(mine), generator=generator)].split(GLOBAL_BATCH // world):
            optimizer.zero_grad()
            cross_entropy(model(x[indices]), y[indices]).backward()
            optimizer.step()
            schedule.step()
        accuracy(validation)
    result = accuracy(test)
    if rank == 0:
        print(f"test accuracy {result:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
