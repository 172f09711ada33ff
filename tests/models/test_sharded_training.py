"""Sharded training is the same training: held to DDP on two workers, step by step, and through its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import two_workers

SCRIPT = """
from pathlib import Path
from torch import nn
from headrace.training.checkpoint import read_checkpoint, write_checkpoint
from headrace.training.loop import DTYPES, LossTerm, Objective, judge
from headrace.training.sharding import is_sharded, own_part
from headrace_models.tasks import Task

folder, precision, optimizer = Path(sys.argv[1]).parent, sys.argv[3], sys.argv[4]
group, schedule = Group(rank, 2, torch.device("cpu")), share_out(7, [16, 12])
task = build_task({"name": "tabular-classification"}, Schema("y", ("a", "b", "c"), {"x": "number"}))
settings |= {
    "precision": precision,
    "optimizer": {"name": optimizer, "args": {"lr": 0.02, "weight_decay": 0.01, "layer_decay": 0.9,
                                              "groups": [{"match": "5.", "lr": 0.05}]}},
    "schedule": {"name": "cosine", "args": {}},
    "accumulate_steps": 2,
    "epochs": 3,
    "clip_norm": 0.05,
    "ema_decay": 0.9,
}


class Table(Task):
    card = task.card

    def __init__(self):
        pass

    def inputs(self, batch):
        return (batch["x"],)

    def loss(self, outputs, batch, loss):
        return loss(outputs.float(), batch["label"])

    def new_metrics(self):
        return task.new_metrics()


Table.__abstractmethods__ = frozenset()


def batches(epoch, count, size):
    generator = torch.Generator().manual_seed(100 * epoch + rank)
    for _ in range(count):
        x = torch.randn(size, 8, generator=generator)
        yield {"x": x, "label": x[:, :3].argmax(1)}


def trainer(parallel, weights=None):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 257), nn.BatchNorm1d(257), nn.ReLU(), nn.Linear(257, 257), nn.ReLU(), nn.Linear(257, 3)
    )
    model[0].bias.requires_grad_(False)
    if weights is not None:
        model.load_state_dict(weights)
    objective = Objective(Table(), (LossTerm(nn.CrossEntropyLoss(), 1.0),), group.device, DTYPES[precision])
    words = {**settings, "parallel": parallel}
    return make_trainer(words, model, objective, group, schedule, own_code=False)


def epoch(one, number):
    loss = one.epoch(number, batches(number, schedule.batches, schedule.sizes[rank]), schedule, Teller(speaks=False), 3)
    with one.judged_weights(), one.whole_weights():  # the workers have different numbers of batches
        _, judged, samples = judge(one.model, one.objective, Table(), batches(9, 2 + 3 * rank, 5), group)
    assert samples == 35
    return loss, judged


def same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), (one.keys(), other.keys())
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            same(left, right)
    elif isinstance(one, torch.Tensor):
        assert type(one) is type(other) is torch.Tensor and one.device == other.device
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    elif isinstance(one, float):
        assert abs(one - other) <= TOLERANCE * (1 + abs(other)), (one, other)
    else:
        assert one == other, (one, other)


def kept(one, name):
    weights, state = one.weights(), one.state()
    if group.first:
        (folder / name).mkdir()
        write_checkpoint(folder / name, weights, state)
    dist.barrier()
    return read_checkpoint(folder / name)


TOLERANCE = 2e-5 if precision == "float32" else 5e-3
ddp, fsdp = trainer("ddp"), trainer("fsdp")
assert is_sharded(fsdp.model) and not is_sharded(ddp.model)
here, there = (sum(own_part(p).numel() for p in one.model.parameters()) for one in (fsdp, ddp))
assert here < 0.51 * there
for number in (1, 2):
    same(epoch(ddp, number), epoch(fsdp, number))
with ddp.judged_weights(), fsdp.judged_weights():
    ours, theirs = fsdp.weights(), ddp.weights()
    if group.first:
        same(ours, theirs)
    else:
        assert ours == {}
saved, plain = kept(fsdp, "fsdp"), kept(ddp, "ddp")
same(saved, plain)
frozen = saved[0]["0.bias"]
resumed, crossed, back = trainer("fsdp", saved[0]), trainer("ddp", saved[0]), trainer("fsdp", plain[0])
resumed.load(saved[1]), crossed.load(read_checkpoint(folder / "fsdp")[1]), back.load(plain[1])
straight = epoch(fsdp, 3)
again = epoch(resumed, 3)
assert again == straight, (again, straight)  # to the bit
same(epoch(crossed, 3), straight)
same(epoch(back, 3), straight)
end = kept(resumed, "resumed")
assert all(torch.equal(value, end[0][name]) for name, value in kept(fsdp, "straight")[0].items())
assert torch.equal(end[0]["0.bias"], frozen) and not torch.equal(end[0]["0.weight"], saved[0]["0.weight"])
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize(("precision", "optimizer"), [("float32", "adam"), ("float32", "momentum"), ("float16", "sgd")])
def test_fsdp_takes_ddps_steps_and_leaves_ddps_checkpoints(tmp_path: Path, precision: str, optimizer: str) -> None:
    """Two epochs with clipping, accumulation, a moving average, frozen parameters and batches of 4 and 3; then on from
    the checkpoint in the same way and in the other way."""
    two_workers.run(SCRIPT, tmp_path, precision, optimizer)
