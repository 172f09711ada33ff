"""`train.sync_batch_norm`: two workers take the steps that one worker takes, though each sees its own share only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import two_workers
from torch import nn

from headrace.base.errors import InvalidInput
from headrace.training.batch_norm import SynchronisedBatchNorm, synchronise
from headrace.training.group import Group

# Shares of 3 and 2; the first layer counts its batches (momentum null). In double precision but for the loss, so that
# no rounding hides what differs.
SCRIPT = """
from headrace.training.batch_norm import SynchronisedBatchNorm
from headrace.training.loop import Objective

HOW = {how!r}
settings |= {{
    "losses": [{{"name": "cross-entropy", "args": {{}}, "task": "image-classification", "weight": 1.0}}],
    "optimizer": {{"name": "momentum", "args": {{"lr": 0.1, "layer_decay": 0.9}}}},
    "accumulate_steps": 2,
    "clip_norm": 0.5,
    "ema_decay": 0.9,
    **HOW,
}}


def pictures(epoch, share):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(6):
        image = torch.randint(0, 255, (5, 1, 8, 8), dtype=torch.uint8, generator=generator)
        yield {{"image": image[share], "label": torch.arange(5)[share] % 3}}


def train(group, schedule, share, sync):
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), nn.ReLU(inplace=True)),
        nn.Flatten(), nn.Linear(96, 5), nn.BatchNorm1d(5, bias=False), nn.Linear(5, 3),
    ).double()
    task.inputs = lambda batch: (batch["image"].double() / 255,)
    objective = make_objective(settings, task, group.device)
    compiled = sync and group.world > 1 and HOW.get("compile", False)  # once is slow enough
    words = {{**settings, "sync_batch_norm": sync, "compile": compiled}}
    trainer = make_trainer(words, model, objective, group, schedule, own_code=False)
    assert any(isinstance(layer, SynchronisedBatchNorm) for layer in model.modules()) is (sync and group.world > 1)
    losses = [trainer.epoch(epoch, pictures(epoch, share), schedule, Teller(speaks=False), 2) for epoch in (1, 2)]
    model.eval()
    with torch.no_grad(), trainer.whole_weights():
        judged = model(next(pictures(9, slice(0, 5)))["image"].double() / 255)
    return losses, trainer.weights(), trainer.state()["average"], judged


both = train(Group(rank, 2, torch.device("cpu")), share_out(5, [18, 12]), [slice(0, 3), slice(3, 5)][rank], True)
apart = train(Group(rank, 2, torch.device("cpu")), share_out(5, [18, 12]), [slice(0, 3), slice(3, 5)][rank], False)
alone = train(Group(0, 1, torch.device("cpu")), share_out(5, [30]), slice(0, 5), True)
close = dict(rtol=1e-5, atol=1e-6)
torch.testing.assert_close(both[0], alone[0], **close)
torch.testing.assert_close(both[3], alone[3], **close)
assert abs(apart[0][1] - alone[0][1]) > 1e-3, (apart[0], alone[0])
if rank == 0:
    torch.testing.assert_close(both[1], alone[1], **close)
    torch.testing.assert_close(both[2], alone[2], **close)
dist.destroy_process_group()
"""


@pytest.mark.timeout(960)
@pytest.mark.parametrize(
    "how",
    [
        {"parallel": "ddp"},
        {"parallel": "fsdp"},
        pytest.param(
            {"compile": True},
            marks=pytest.mark.skipif(
                shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++"
            ),
        ),
    ],
    ids=["ddp", "fsdp", "compiled"],
)
def test_two_workers_take_the_steps_of_one(how: dict[str, object], tmp_path: Path) -> None:
    folder = str(tmp_path / "compiled")
    two_workers.run(SCRIPT.format(how=how), tmp_path, seconds=900, TORCHINDUCTOR_CACHE_DIR=folder)


BF16 = """
from headrace.training.batch_norm import synchronise
torch.manual_seed(rank)
group = Group(rank, 2, torch.device("cpu"))
layer = synchronise(torch.nn.BatchNorm2d(3), group)
rows = torch.randn([4, 0][rank], 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
result = layer(rows)  # the second worker has no rows, and is waited for
assert result.dtype is torch.bfloat16 and result.shape == rows.shape
target = torch.arange(rows.numel()).view(rows.shape).sin()
(result * target).sum().backward()
assert rows.grad.shape == rows.shape
if rank == 0:
    plain, own = torch.nn.BatchNorm2d(3), rows.detach().clone().requires_grad_()
    torch.testing.assert_close(result, plain(own))
    torch.testing.assert_close(layer.running_var, plain.running_var)
    (plain(own) * target).sum().backward()
    torch.testing.assert_close(rows.grad, own.grad, rtol=0.02, atol=0.01)
    assert rows.grad.abs().max() > 0.1
try:
    layer(torch.zeros([1, 0][rank], 3, 1, 1))
except ValueError as error:
    assert "more than one value a channel; all workers have 1" in str(error)
else:
    raise AssertionError("a single value has no variance")
dist.destroy_process_group()
"""


def test_a_worker_without_rows_and_a_shorter_number_format(tmp_path: Path) -> None:
    two_workers.run(BF16, tmp_path)


def test_weights_and_what_is_frozen_stay_the_objects_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, momentum=0.3, eps=0.01), nn.LayerNorm(4))
    model[1].bias.requires_grad_(False)
    model[1].eval()
    before, names = dict(model.named_parameters()), list(model.state_dict())
    assert synchronise(model, Group(0, 2, torch.device("cpu"))) is model
    made = model[1]
    assert isinstance(made, SynchronisedBatchNorm)
    assert (made.momentum, made.eps, made.training) == (0.3, 0.01, False)
    assert list(model.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert torch.equal(made(torch.ones(1, 2, 3)), nn.BatchNorm1d(2, eps=0.01).eval()(torch.ones(1, 2, 3)))


class Own(nn.BatchNorm2d):
    pass


def test_a_layer_of_somebodys_own_kind_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Sequential(Own(2)))
    with pytest.raises(InvalidInput, match=r"layer '0\.0' is of the class Own") as raised:
        synchronise(model, Group(0, 2, torch.device("cpu")))
    assert "sync_batch_norm: false" in raised.value.action
    assert isinstance(model[0][0], Own)


def test_a_layer_that_stands_at_two_places_stays_one() -> None:
    layer = nn.BatchNorm1d(2)
    model = nn.ModuleDict({"first": layer, "second": layer, "third": nn.Sequential(layer)})
    synchronise(model, Group(0, 2, torch.device("cpu")))
    assert isinstance(model["first"], SynchronisedBatchNorm)
    assert model["first"] is model["second"] is model["third"][0]


def test_one_worker_and_a_model_without_such_layers_are_left_as_they_are() -> None:
    layer = nn.BatchNorm1d(2)
    assert synchronise(layer, Group(0, 1, torch.device("cpu"))) is layer
    assert isinstance(synchronise(layer, Group(0, 2, torch.device("cpu"))), SynchronisedBatchNorm)
    plain = nn.Sequential(nn.Linear(1, 1))
    kinds = [type(part) for part in plain.modules()]
    assert [type(part) for part in synchronise(plain, Group(0, 2, torch.device("cpu"))).modules()] == kinds
