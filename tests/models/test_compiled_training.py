"""`train.compile`: the same training, compiled; held to the plain one on two workers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import two_workers

from headrace.base.errors import InvalidInput
from headrace.training.compiling import require_compiler

SCRIPT = """
from headrace_models.package import build_model
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


@pytest.mark.timeout(960)
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++")
def test_a_compiled_training_takes_the_plain_ones_steps(tmp_path: Path) -> None:
    two_workers.run(SCRIPT, tmp_path, seconds=900, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "compiled"))


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
