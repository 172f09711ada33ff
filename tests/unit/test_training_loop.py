"""The loop itself, on one worker and a network of six weights: what a step sees, and what an epoch leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from headrace.base.errors import RunFailed
from headrace.training.batches import share_out
from headrace.training.components import small_batch_norm
from headrace.training.group import Group
from headrace.training.loop import LossTerm, Objective, Trainer, judge
from headrace.training.progress import Teller
from headrace.training.state import MovingAverage, weights_of
from headrace_models.tasks.base import Batch, Metrics, Task, WithAuxiliary

ALONE = Group(0, 1, torch.device("cpu"))


class Sum(Metrics):
    """The sum of the targets it has seen, and how many."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: Any, batch: Batch) -> None:
        self.total += float(batch["y"].sum())
        self.count += len(batch["y"])

    def state(self) -> Any:
        return self.total, self.count

    def merge(self, states: Sequence[Any]) -> None:
        self.total, self.count = (sum(part) for part in zip(*states, strict=True))

    def compute(self) -> dict[str, float]:
        return {"total": self.total, "count": float(self.count)}


class Line(Task):
    """Fits y from x."""

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return (batch["x"],)

    def loss(self, outputs: Any, batch: Batch, loss: Any) -> torch.Tensor:
        mean: torch.Tensor = loss(outputs.float(), batch["y"])
        return mean

    def new_metrics(self) -> Metrics:
        return Sum()


Line.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def batches(count: int, size: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count * size, 3, generator=generator)
    return [{"x": part, "y": part.sum(1, keepdim=True)} for part in x.split(size)]


def trainer(dtype: torch.dtype = torch.float32, lr: float = 0.1, **rest: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    if rest.pop("ema", False):
        rest["average"] = MovingAverage(model, 0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    objective = Objective(Line.__new__(Line), (LossTerm(nn.MSELoss(), 1.0),), ALONE.device, dtype)
    return Trainer(model, objective, optimizer, schedule, ALONE, **rest)


def run(one: Trainer, given: list[Batch], epoch: int = 1) -> float:
    size = len(given[0]["x"])
    schedule = share_out(size, [size * len(given)])
    return one.epoch(epoch, given, schedule, Teller(speaks=False), 1)


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    small, large = trainer(accumulate_steps=3), trainer()
    run(small, batches(3, 4))
    run(large, batches(1, 12))
    torch.testing.assert_close(weights_of(small.model), weights_of(large.model))
    assert small.learning_rate == large.learning_rate == 0.05  # one step each


def test_a_last_group_that_is_shorter_counts_by_its_own_batches() -> None:
    one = trainer(accumulate_steps=2)
    run(one, batches(3))
    assert one.learning_rate == 0.1 * 0.5**2


def test_a_long_gradient_is_cut_to_the_norm() -> None:
    one = trainer(clip_norm=0.01, lr=1.0)
    before = weights_of(one.model)
    run(one, batches(1))
    moved = torch.cat([(value - before[name]).reshape(-1) for name, value in weights_of(one.model).items()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_float16_makes_no_step_with_a_gradient_that_overflowed_and_tries_a_smaller_scale() -> None:
    one = trainer(torch.float16, ema=True)
    before = weights_of(one.model)["weight"]
    run(one, [{"x": 1000 * batch["x"], "y": batch["y"]} for batch in batches(1)])
    assert torch.equal(weights_of(one.model)["weight"], before)
    assert one.learning_rate == 0.1
    assert one.scaler.get_scale() == 2**15
    for epoch in range(30):
        run(one, batches(4), epoch)
    assert not torch.equal(weights_of(one.model)["weight"], before)


def test_bfloat16_trains_to_nearly_the_same_weights() -> None:
    short, full = trainer(torch.bfloat16), trainer()
    losses = [run(short, batches(8)), run(full, batches(8))]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    torch.testing.assert_close(weights_of(short.model), weights_of(full.model), atol=0.02, rtol=0.05)


def test_a_loss_that_is_not_a_number_stops_at_its_batch() -> None:
    given = batches(5)
    given[2]["y"] = torch.full_like(given[2]["y"], math.inf)
    with pytest.raises(RunFailed) as raised:
        run(trainer(), given, epoch=4)
    assert "epoch 4, at batch 3 of 5" in raised.value.message
    assert "clip_norm" in raised.value.action


def test_the_moving_average_is_judged_and_the_weights_themselves_go_on() -> None:
    one = trainer(ema=True)
    run(one, batches(4))
    own = weights_of(one.model)
    with one.judged_weights():
        assert not torch.equal(weights_of(one.model)["weight"], own["weight"])
    assert torch.equal(weights_of(one.model)["weight"], own["weight"])


def test_a_trainer_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    straight, first, second = (trainer(ema=True, clip_norm=1.0) for _ in range(3))
    run(straight, batches(3))
    run(straight, batches(3), epoch=2)
    run(first, batches(3))
    second.model.load_state_dict(weights_of(first.model))
    second.load(first.state())
    run(second, batches(3), epoch=2)
    for name, value in weights_of(straight.model).items():
        assert torch.equal(value, weights_of(second.model)[name])
    assert straight.average is not None
    assert second.average is not None
    assert straight.average.state()["updates"] == second.average.state()["updates"] == 6


def test_judging_counts_every_sample_once_and_weighs_the_loss_by_samples() -> None:
    one = trainer()
    given = [*batches(2), {"x": torch.zeros(1, 3), "y": torch.ones(1, 1)}]
    metrics, loss, samples = judge(one.model, one.objective, one.objective.task, given, ALONE)
    everything = {name: torch.cat([batch[name] for batch in given]) for name in ("x", "y")}
    assert samples == 9
    assert metrics.compute()["count"] == 9
    with torch.inference_mode():
        assert loss == pytest.approx(one.objective(one.model, everything)[0].item(), rel=1e-6)
    assert judge(one.model, one.objective, one.objective.task, [], ALONE)[1:] == (None, 0)


class TwoHeads(nn.Module):
    """A line with a second line that helps in training."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return WithAuxiliary(self.main(x), ((0.25, self.side(x)),)) if self.training else self.main(x)


def test_auxiliary_outputs_count_by_their_weight_in_training_and_are_not_there_in_judging() -> None:
    torch.manual_seed(0)
    model, (batch,) = TwoHeads(), batches(1)
    objective = Objective(Line.__new__(Line), (LossTerm(nn.MSELoss(), 2.0),), ALONE.device, torch.float32)
    loss, outputs = objective(model.train(), batch)
    main, side = (nn.functional.mse_loss(head(batch["x"]), batch["y"]) for head in (model.main, model.side))
    assert loss.item() == pytest.approx((2 * (main + 0.25 * side)).item())
    assert torch.equal(outputs, model.main(batch["x"]))
    _, mean, _ = judge(model, objective, objective.task, [batch], ALONE)
    assert mean == pytest.approx((2 * main).item())


@pytest.mark.parametrize(
    ("batch", "workers", "normed", "told"),
    [(8, 2, True, True), (8, 1, True, False), (16, 2, True, False), (8, 2, False, False), (25, 4, True, True)],
)
def test_batch_norm_on_few_samples_of_a_worker_is_told(batch: int, workers: int, normed: bool, told: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3) if normed else nn.ReLU())
    note = small_batch_norm(model, share_out(batch, [100] * workers), synchronised=False)
    assert (note is not None) == told
    if note is not None:
        assert f"from {batch // workers} samples" in note
        assert f"set train.sync_batch_norm: true, or train.batch_size to {8 * workers} or more" in note
    assert small_batch_norm(model, share_out(batch, [100] * workers), synchronised=True) is None


def test_frozen_batch_norm_needs_no_large_batch() -> None:
    assert small_batch_norm(nn.Sequential(nn.BatchNorm1d(3)).eval(), share_out(2, [9, 9]), synchronised=False) is None
