"""Statistics of a network that counts, on one worker: added up, kept, judged, and learned from."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from headrace.base.errors import InvalidInput, RunFailed
from headrace.training.batches import share_out
from headrace.training.counting import CountingTrainer
from headrace.training.group import Group
from headrace.training.learner import Learner
from headrace.training.loop import Objective
from headrace.training.progress import Teller
from headrace.training.statistics import Totals, _joined
from headrace_models.layers.counting import Counting, Statistics
from headrace_models.tasks.base import Batch, Task

ALONE = Group(0, 1, torch.device("cpu"))
SILENT = Teller(speaks=False)


class Plain:
    """As much of a task as an epoch needs: the batch's `x` is the network's input."""

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        return (batch["x"],)


class Mean(Counting):
    """Learns the mean of what it sees, keeps it, and draws a number."""

    sized_by_data: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self, loss: float | None = 1.0) -> None:
        super().__init__()
        self.loss = loss
        self.heard: list[int] = []
        self.modes: list[bool] = []
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("drawn", torch.zeros(()))

    def begin(self, samples: int) -> None:
        self.heard.append(samples)

    def accumulate(self, inputs: tuple[torch.Tensor, ...], batch: Batch) -> Statistics:
        (x,) = inputs
        self.modes += [self.training, torch.is_grad_enabled()]
        loss = None if self.loss is None else torch.tensor(self.loss) * len(x)
        return Statistics({"sum": x.sum(), "count": torch.tensor(len(x))}, {"x": x}, loss)

    def maximize(self, statistics: Statistics) -> None:
        assert statistics.sums["sum"].dtype is torch.float64
        assert statistics.sums["count"].dtype is torch.int64
        self.mean = (statistics.sums["sum"] / statistics.sums["count"]).float()
        self.seen = statistics.kept["x"]
        self.drawn = torch.rand(()) + random.random() + float(np.random.rand())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean


def trainer(model: Counting, seed: int = 0) -> CountingTrainer:
    return CountingTrainer(model, Objective(cast(Task, Plain()), (), ALONE.device, torch.float32), ALONE, seed=seed)


def batches(*rows: Sequence[float]) -> Iterator[Batch]:
    return iter([{"x": torch.tensor(row)} for row in rows])


def epoch(given: CountingTrainer, *rows: Sequence[float], number: int = 1) -> float | None:
    count = sum(map(len, rows))
    return given.epoch(number, batches(*rows), share_out(2, [count]), SILENT, 3)


def test_an_epoch_adds_up_keeps_and_maximises() -> None:
    model = Mean()
    learner: Learner = trainer(model)
    loss = learner.epoch(1, batches([1.0, 2.0], [6.0]), share_out(2, [3]), SILENT, 3)
    assert loss == 1.0
    assert float(model.mean) == 3.0
    assert model.seen.tolist() == [1.0, 2.0, 6.0]
    assert model.heard == [3]
    assert not any(model.modes)  # neither in training mode nor with gradients
    assert learner.learning_rate is None


def test_each_worker_is_shown_its_own_samples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("headrace.training.counting.whole_batches", lambda *_, **how: asked.update(how) or iter(()))
    group = Group(1, 2, ALONE.device)
    objective = Objective(cast(Task, Plain()), (), ALONE.device, torch.float32)
    schedule = share_out(9, [30, 7])  # 5 and 4 in a batch; gradients would show 60 samples, the second worker's again
    learner = CountingTrainer(Mean(), objective, group, seed=0)
    learner.batches(cast(Any, None), schedule, seed=3, epoch=2)
    assert asked == {"size": 4, "seed": 3, "epoch": 2}
    assert learner.shown(schedule) == 37


def test_a_network_without_a_loss_has_none() -> None:
    assert epoch(trainer(Mean(loss=None)), [1.0, 2.0], [6.0]) is None


def test_what_maximising_draws_depends_on_seed_and_epoch_alone_and_leaves_the_workers_own_state() -> None:
    def drawn(seed: int, number: int, before: int) -> tuple[float, float]:
        torch.manual_seed(before)
        model = Mean()
        epoch(trainer(model, seed), [1.0], number=number)
        return float(model.drawn), float(torch.rand(()))

    torch.manual_seed(5)
    after_five = float(torch.rand(()))
    assert drawn(0, 1, 5)[0] == drawn(0, 1, 6)[0]
    assert len({drawn(seed, number, 5)[0] for seed in (0, 1) for number in (1, 2)}) == 4
    assert drawn(0, 1, 5)[1] == after_five


def test_buffers_lie_as_a_checkpoint_gives_them_back() -> None:
    """Else a resumed training adds up in another order than one that went on, and their last bits differ."""

    class Transposed(Mean):
        def maximize(self, statistics: Statistics) -> None:
            self.seen = torch.arange(6.0).view(2, 3).T

    model = Transposed()
    epoch(trainer(model), [1.0])
    assert model.seen.is_contiguous()
    assert model.seen.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert dict(model.named_buffers()).keys() == {"mean", "seen", "drawn"}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(loss: float) -> None:
    with pytest.raises(RunFailed, match=f"the training loss became {loss} in epoch 2") as raised:
        epoch(trainer(Mean(loss)), [1.0], number=2)
    assert raised.value.code == "loss-not-finite"


def test_a_value_that_is_not_a_number_is_told_by_its_name() -> None:
    with pytest.raises(RunFailed, match="after epoch 1 the model's mean holds values that are not numbers"):
        epoch(trainer(Mean()), [math.nan])


def test_minus_infinity_may_be_learned() -> None:
    """The logarithm of a probability of 0: a transition that a left-to-right model does not have."""
    model = Mean()
    epoch(trainer(model), [-math.inf])
    assert float(model.mean) == -math.inf


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (Statistics({"n": torch.ones(2)}), r"sum n is \[3\] torch.float64 and \[2\] torch.float64"),
        (Statistics({"n": torch.ones(3, dtype=torch.int32)}), "sum n is .*float64 and .*int64"),
        (Statistics({}), r"sum n is \[3\] torch.float64 and not there"),
        (Statistics({"n": torch.ones(3)}, {"x": torch.ones(1, 2)}), r"kept x is not there and \[2\] torch.float32"),
        (Statistics({"n": torch.ones(3)}, loss=torch.ones(())), "loss is not there"),
    ],
)
def test_statistics_that_do_not_fit_those_before_are_told(second: Statistics, words: str) -> None:
    totals = Totals()
    totals.add(Statistics({"n": torch.ones(3)}), 4)
    with pytest.raises(InvalidInput, match=words) as raised:
        totals.add(second, 4)
    assert "zeros for what it says nothing about" in raised.value.action


def test_sums_are_in_double_precision() -> None:
    """A float32 sum of ten million and ones would stop growing at 2**24."""
    totals = Totals()
    totals.add(Statistics({"n": torch.tensor(2.0**24)}), 1)
    for _ in range(8):
        totals.add(Statistics({"n": torch.tensor(1.0)}), 1)
    statistics, samples = totals.everyones(ALONE)
    assert (float(statistics.sums["n"]), samples) == (2**24 + 8, 9)


def test_batches_may_keep_no_rows() -> None:
    totals = Totals()
    for rows in (0, 2, 0, 1):
        totals.add(Statistics({}, {"x": torch.ones(rows, 3)}), 5)
    assert totals.everyones(ALONE)[0].kept["x"].shape == (3, 3)


def test_rows_that_no_worker_keeps_need_no_word_between_them() -> None:
    rows = torch.zeros(0, 3, dtype=torch.bfloat16)
    assert _joined(rows, [0, 0]) is rows  # there is no process group here that could be asked


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        (Statistics({"n": cast(Any, 3)}), "sum n as a int"),
        (Statistics(kept={"x": cast(Any, [1.0])}), "kept x as a list"),
        (Statistics(kept={"x": torch.tensor(1.0)}), "kept x as a tensor without rows"),
        (Statistics(loss=cast(Any, 0.5)), "loss as a float"),
    ],
)
def test_statistics_that_cannot_be_added_up_or_kept_are_told(statistics: Statistics, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"`accumulate` gave {words}") as raised:
        Totals().add(statistics, 4)
    assert raised.value.action.startswith("give ")


def test_a_buffer_that_data_sizes_takes_the_shape_it_is_loaded_with_and_no_other_does() -> None:
    model = Mean()
    epoch(trainer(model), [1.0, 2.0, 6.0])
    fresh = Mean()
    fresh.load_state_dict(model.state_dict())
    assert fresh.seen.tolist() == [1.0, 2.0, 6.0]
    outer = torch.nn.Sequential(Mean())  # as a part of another network, too
    outer.load_state_dict({f"0.{name}": value for name, value in model.state_dict().items()})
    assert cast(Any, outer[0]).seen.tolist() == [1.0, 2.0, 6.0]
    wrong: Mapping[str, Any] = {**model.state_dict(), "mean": torch.zeros(2)}
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        fresh.load_state_dict(wrong)


class Told(Teller):
    """Remembers what it was to tell."""

    def __init__(self) -> None:
        super().__init__(speaks=False)
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


class Once(Mean):
    """Is done after one epoch."""

    @property
    def settled(self) -> bool:
        return len(self.seen) > 0


@pytest.mark.parametrize(("model", "epochs"), [(Mean(loss=None), 4), (Once(), 1)])
def test_epochs_end_where_another_would_change_nothing(
    monkeypatch: pytest.MonkeyPatch, model: Mean, epochs: int
) -> None:
    """The loop of a training, but for its reports to Ray and its validation."""
    from headrace.training.work import EpochLoop, Work

    learner, told = trainer(model), Told()
    monkeypatch.setattr(learner, "batches", lambda *_, **__: batches([1.0, 2.0], [6.0]))
    monkeypatch.setattr(EpochLoop, "_report", lambda *_, **__: None)
    monkeypatch.setattr(EpochLoop, "_validate", lambda _: {"validation.accuracy": 0.5})
    train = {"epochs": 4, "seed": 0, "checkpoint_every_epochs": 1, "early_stop": None}
    work = SimpleNamespace(request=SimpleNamespace(train={"train": train}), group=ALONE, teller=told, history=[])
    task = cast(Task, SimpleNamespace(card=SimpleNamespace(metrics={"accuracy": "max"}, primary_metric="accuracy")))
    loop = EpochLoop(cast(Work, work), learner, task, share_out(2, [3]), cast(Any, None), cast(Any, None), None)
    loop.run()
    assert [entry["epoch"] for entry in work.history] == list(range(1, epochs + 1))
    assert set(work.history[0]["metrics"]) == {
        "train.samples_per_second",
        "validation.accuracy",
        *(() if model.loss is None else ("train.loss",)),
    }
    assert told.texts == ([] if epochs == 4 else ["training ends after epoch 1 of 4: another would change nothing"])
    assert loop.best_weights["mean"] == 3.0
    loop.run()  # as a resumed training that has no epoch left
    assert len(work.history) == epochs
