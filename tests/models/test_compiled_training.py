"""`train.compile`: the same training, compiled; held to the plain one on two workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headrace.base.errors import InvalidInput
from headrace.training.compiling import require_compiler

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from headrace.training.batches import share_out
from headrace.training.components import make_objective, make_trainer
from headrace.training.group import Group
from headrace.training.progress import Teller
from headrace_models.package import build_model
from headrace_models.tasks import Schema, build_task

rank = int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
task = build_task({"name": "image-classification"}, Schema("label", ("a", "b", "c")))
task.preprocessing = {"image_size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.2]}
settings = {
    "losses": [{"name": "cross-entropy", "args": {}, "task": "image-classification", "weight": 1.0}],
    "precision": "float32",
    "optimizer": {"name": "momentum", "args": {"lr": 0.05}},
    "schedule": {"name": "cosine", "args": {}},
    "accumulate_steps": 2,
    "epochs": 2,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
}
group, schedule = Group(rank, 2, torch.device("cpu")), share_out(13, [28, 24])


def batches(epoch):
    generator = torch.Generator().manual_seed(10 * epoch + rank)
    for _ in range(schedule.batches):
        image = torch.randint(0, 255, (schedule.sizes[rank], 1, 8, 8), dtype=torch.uint8, generator=generator)
        yield {"image": image, "label": image[:, 0, 0, 0].long() // 86}


def losses(compile):
    torch.manual_seed(0)
    model = build_model({"name": "resnet8", "args": {"width": 4}}, task)
    objective = make_objective(settings, task, group.device)
    trainer = make_trainer({**settings, "compile": compile}, model, objective, group, schedule, own_code=False)
    assert isinstance(trainer.step_model, torch._dynamo.OptimizedModule) is compile
    found = [trainer.epoch(epoch, batches(epoch), schedule, Teller(speaks=False), 2) for epoch in (1, 2)]
    return found, trainer.weights()


plain, compiled = losses(False), losses(True)
counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert counted >= 1, torch._dynamo.utils.counters
for one, other in zip(plain[0], compiled[0]):
    assert abs(one - other) < 1e-4, (plain[0], compiled[0])
assert plain[1].keys() == compiled[1].keys()
for name, value in plain[1].items():
    torch.testing.assert_close(value, compiled[1][name], rtol=1e-3, atol=1e-3)
dist.destroy_process_group()
"""


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++")
def test_a_compiled_training_takes_the_plain_ones_steps(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "meet"), str(rank)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=500)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(told)


def test_without_a_compiler_it_is_refused_before_the_first_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InvalidInput, match=r"no compiler \(g\+\+\)") as raised:
        require_compiler(torch.device("cpu"))
    assert "train.compile: false" in raised.value.action
    monkeypatch.setenv("CXX", sys.executable)
    require_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidInput, match="no-such-compiler"):
        require_compiler(torch.device("cpu"))
