"""Runs a script as two workers that meet over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What such a script begins with: it is `rank`, has a `task` on grey pictures of 8 x 8, and `settings` that lack losses
# and an optimizer.
BEGINNING = """
import sys
import torch
import torch.distributed as dist
from headrace.training.batches import share_out
from headrace.training.components import make_objective, make_trainer
from headrace.training.group import Group
from headrace.training.progress import Teller
from headrace_models.tasks import Schema, build_task

rank = int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
task = build_task({"name": "image-classification"}, Schema("label", ("a", "b", "c")))
task.preprocessing = {"image_size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.2]}
settings = {
    "precision": "float32",
    "schedule": {"name": "constant", "args": {}},
    "accumulate_steps": 1,
    "epochs": 1,
    "clip_norm": None,
    "ema_decay": None,
}
"""


def run(script: str, folder: Path, *, seconds: float, **environment: str) -> None:
    """Run BEGINNING and SCRIPT on two workers, which meet in FOLDER; both must end well within SECONDS."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BEGINNING + script, str(folder / "meet"), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=seconds)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(told)
