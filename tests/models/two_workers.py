"""Runs a script as two workers that meet over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

Worker = subprocess.Popen[bytes]
AFTER_A_FAILURE = 5.0  # seconds that the other worker may take to notice: it may wait for the one that failed for ever

# What such a script begins with: it is `rank`, has a `task` on grey pictures of 8 x 8, `settings` that lack losses and
# an optimizer, and its own words from sys.argv[3] on.
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


def run(script: str, folder: Path, *words: str, seconds: float = 240, **environment: str) -> None:
    """Run BEGINNING and SCRIPT with WORDS on two workers, which meet in FOLDER; both must end well within SECONDS."""
    told = [folder / f"worker-{rank}.txt" for rank in range(2)]
    workers = [_start(rank, BEGINNING + script, folder, words, environment) for rank in range(2)]
    deadline = time.monotonic() + seconds
    try:
        while None in (codes := [worker.poll() for worker in workers]) and time.monotonic() < deadline:
            if any(codes):
                deadline = min(deadline, time.monotonic() + AFTER_A_FAILURE)
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    codes = [worker.returncode for worker in workers]
    assert codes == [0, 0], "\n".join([str(codes), *(path.read_text(errors="replace") for path in told)])


def _start(rank: int, script: str, folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> Worker:
    with open(folder / f"worker-{rank}.txt", "wb") as told:
        return subprocess.Popen(
            [sys.executable, "-c", script, str(folder / "meet"), str(rank), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=told,
            stderr=told,
        )
