"""Training on a GPU: the parts of a worker's train step, held to the CPU's results and to the CPU's metrics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from conftest import load_digits, load_shapes

from headrace.training.batches import Examples, evaluation_batches, share_out, training_batches
from headrace.training.checkpoint import read_checkpoint, write_checkpoint
from headrace.training.components import make_objective, make_trainer
from headrace.training.gpu import supplied, to_device
from headrace.training.group import Group
from headrace.training.loop import Trainer, judge
from headrace.training.progress import Teller
from headrace_models.package import build_model
from headrace_models.tasks import Task, build_task

SILENT = Teller(speaks=False)
SETTINGS: Mapping[str, Any] = {
    "losses": [{"task": "image-classification", "name": "cross-entropy", "args": {}, "weight": 1.0}],
    "precision": "float32",
    "optimizer": {"name": "momentum", "args": {"lr": 0.05}},
    "schedule": {"name": "cosine", "args": {}},
    "accumulate_steps": 2,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
    "epochs": 3,
}
SCHEDULE = share_out(64, [640])


@pytest.fixture(scope="module")
def task() -> Task:
    samples, _, schema = load_digits()
    found = build_task({"name": "image-classification", "args": {}}, schema)
    found.learn([found.summarise(samples)])
    return found


@pytest.fixture(scope="module")
def examples(task: Task) -> Examples:
    return Examples(load_digits()[0][:640], task)


def batches(examples: Examples, task: Task, epoch: int) -> Iterator[Any]:
    return training_batches(examples, task, schedule=SCHEDULE, rank=0, seed=0, epoch=epoch)


def trainer_on(group: Group, task: Task, **changed: Any) -> Trainer:
    torch.manual_seed(0)
    model = build_model({"name": "resnet8", "args": {"width": 8}}, task)
    settings = {**SETTINGS, **changed}
    objective = make_objective(settings, task, group.device)
    return make_trainer(settings, model, objective, group, SCHEDULE, own_code=False)


def losses(trainer: Trainer, examples: Examples, task: Task, epochs: range = range(1, 4)) -> list[float]:
    return [trainer.epoch(epoch, batches(examples, task, epoch), SCHEDULE, SILENT, 3) for epoch in epochs]


def test_batches_arrive_as_they_were_made(examples: Examples, task: Task, device: torch.device) -> None:
    made = list(batches(examples, task, 1))
    sums = []
    for batch in supplied(batches(examples, task, 1), device):
        moved = to_device(batch, device)
        assert all(value.device == device for value in moved.values())
        sums.append({name: value.long().sum() for name, value in moved.items()})
        torch.ones(1000, 1000, device=device) @ torch.ones(1000, 1000, device=device)  # work that copies run beside
    assert [{name: int(value) for name, value in each.items()} for each in sums] == [
        {name: int(value.long().sum()) for name, value in batch.items()} for batch in made
    ]


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 0.02), ("float16", 0.005)])
def test_the_loss_and_its_gradient_are_those_of_the_cpu(
    examples: Examples, task: Task, device: torch.device, precision: str, near: float
) -> None:
    batch = next(batches(examples, task, 1))
    found = []
    for place, settings in ((torch.device("cpu"), SETTINGS), (device, {**SETTINGS, "precision": precision})):
        torch.manual_seed(0)
        model = build_model({"name": "resnet8", "args": {"width": 8}}, task).to(place)
        loss, outputs = make_objective(settings, task, place)(model, to_device(batch, place))
        loss.backward()
        assert outputs.device == place
        found.append(
            (loss.item(), torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
        )
    (loss, gradient), (loss_too, gradient_too) = found
    assert loss_too == pytest.approx(loss, rel=near)
    assert torch.nn.functional.cosine_similarity(gradient, gradient_too, dim=0) > 1 - 10 * near


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_epochs_losses_are_near_the_cpus(examples: Examples, task: Task, group: Group, precision: str) -> None:
    on_cpu = losses(trainer_on(zoo.ALONE, task), examples, task)
    found = losses(trainer_on(group, task, precision=precision), examples, task)
    assert found == pytest.approx(on_cpu, rel=0.15)
    assert found[2] < found[0]


def test_in_bfloat16_convolutions_are_channels_last_and_weights_come_back_as_they_were(
    examples: Examples, task: Task, group: Group
) -> None:
    trainer = trainer_on(group, task, precision="bfloat16")
    if group.device.type == "cuda":
        convolution = next(module for module in trainer.model.modules() if isinstance(module, torch.nn.Conv2d))
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    losses(trainer, examples, task, range(1, 2))
    weights = trainer.weights()
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in weights.values())
    other = build_model({"name": "resnet8", "args": {"width": 8}}, task)
    other.load_state_dict(weights)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.cpu(), other.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_training_goes_on_from_its_checkpoint_as_if_nothing_had_happened(
    examples: Examples, task: Task, group: Group, tmp_path: Path, precision: str
) -> None:
    whole = trainer_on(group, task, precision=precision)
    expected = losses(whole, examples, task)
    first = trainer_on(group, task, precision=precision)
    losses(first, examples, task, range(1, 3))
    write_checkpoint(tmp_path, first.weights(), first.state())
    weights, state = read_checkpoint(tmp_path)
    again = trainer_on(group, task, precision=precision)
    again.model.load_state_dict(weights)
    again.load(state)
    assert losses(again, examples, task, range(3, 4)) == pytest.approx(expected[2:], rel=1e-5)
    for name, value in whole.weights().items():
        torch.testing.assert_close(again.weights()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("name", "least"), [("resnet8", 0.97), ("resnet18", 0.96), ("googlenet", 0.96), ("vgg11", 0.96)]
)
def test_digits_are_read_in_bfloat16(name: str, least: float, group: Group) -> None:
    spec = zoo.example(name)
    spec["train"]["precision"] = "bfloat16"
    assert zoo.train(spec, *load_digits(), group).metrics["accuracy"] >= least


def test_a_detector_learns_in_bfloat16(group: Group) -> None:
    spec = zoo.example("yolo")
    spec["train"] |= {"precision": "bfloat16", "epochs": 12}
    done = zoo.train(spec, *load_shapes(), group)
    assert done.losses[-1] < 0.6 * done.losses[0]
    objective = make_objective(spec["train"], done.task, group.device)
    judged = evaluation_batches(Examples(load_shapes()[1], done.task), done.task, 16)
    metrics, loss, _ = judge(done.model, objective, done.task, judged, group)
    assert loss is not None
    assert metrics.compute()["map50"] >= 0.2


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "gcc")) is None, reason="torch.compile needs a C compiler")
def test_a_compiled_training_takes_the_plain_ones_steps(examples: Examples, task: Task, group: Group) -> None:
    plain = losses(trainer_on(group, task), examples, task)
    assert losses(trainer_on(group, task, compile=True), examples, task) == pytest.approx(plain, rel=0.02)


SHARDED = """
import json, sys, torch, torch.distributed as dist
place, backend = sys.argv[1], sys.argv[2]
sys.path[:0] = json.loads(sys.argv[3])
from pathlib import Path
from headrace.training.group import Group
from headrace.training.sharding import shard
from headrace.training.components import make_objective
from headrace.training.loop import Trainer
from headrace_models.layers import build_optimizer, build_schedule
from headrace_models.package import build_model
import test_training as t
device = torch.device(place)
if device.type == "cuda":
    torch.cuda.set_device(device)
dist.init_process_group(backend, init_method="file://" + sys.argv[4], rank=0, world_size=1)
samples, _, schema = t.load_digits()
task = t.build_task({"name": "image-classification", "args": {}}, schema)
task.learn([task.summarise(samples)])
examples, group, found = t.Examples(samples[:640], task), Group(0, 1, device), []
for sharded in (False, True):
    torch.manual_seed(0)
    model = build_model({"name": "resnet8", "args": {"width": 8}}, task)
    shard(model, group) if sharded else model.to(device)
    objective = make_objective({**t.SETTINGS, "precision": "bfloat16"}, task, device)
    optimizer = build_optimizer("momentum", {"lr": 0.05}, list(model.named_parameters()))
    schedule = build_schedule("cosine", {}, optimizer, total_steps=30, steps_per_epoch=10)
    trainer = Trainer(model, objective, optimizer, schedule, group, clip_norm=1.0)
    assert trainer.sharded is sharded
    found.append((t.losses(trainer, examples, task), trainer.weights()))
(plain, weights), (shared, weights_too) = found
assert all(abs(one - other) < 0.02 for one, other in zip(plain, shared)), (plain, shared)
assert weights.keys() == weights_too.keys()
print(json.dumps([plain, shared]))
dist.destroy_process_group()
"""


def test_a_sharded_training_takes_the_plain_ones_steps(device: torch.device, tmp_path: Path) -> None:
    """One worker's share is the whole, but all of FSDP2 is passed through: gathering, scattering, whole checkpoints."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    folder = Path(__file__).parent
    paths = json.dumps([str(folder.parent / "models"), str(folder)])
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        command = [sys.executable, "-c", SHARDED, str(device), backend, paths, f"{short}/meet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
