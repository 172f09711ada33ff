"""Expectation and maximisation by the trainer: the example of docs/own-model.md, alone and on two workers."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import two_workers
import zoo
from sklearn.mixture import GaussianMixture

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace.spec import load_spec
from headrace.training.batches import Examples, share_out
from headrace.training.checkpoint import read_checkpoint, write_checkpoint
from headrace.training.components import make_learner, make_model, make_objective
from headrace.training.progress import Teller
from headrace.training.state import weights_of
from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import Task
from headrace_models.tasks.base import Sample

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_mixture"
CODE = EXAMPLE / "src"
PAGE = EXAMPLE.parents[1] / "docs" / "own-model.md"
SILENT = Teller(speaks=False)


def settings(**train: Any) -> dict[str, Any]:
    spec: dict[str, Any] = load_spec(EXAMPLE / "own_mixture.yaml").to_record()
    return {**spec["train"], **train}


def model_part(**args: Any) -> dict[str, Any]:
    return {"name": "mixture:Mixtures", "args": args, "freeze": []}


def learner_of(task: Task, training: list[Sample], model: Any, **train: Any) -> tuple[Any, Any, Any]:
    given = settings(**train)
    given["losses"] = [{**given["losses"][0], "task": task.card.name}]
    schedule = share_out(given["batch_size"], [len(training)])
    learner = make_learner(
        given, model, make_objective(given, task, zoo.ALONE.device), zoo.ALONE, schedule, own_code=True
    )
    return learner, Examples(training, task), schedule


def epochs(learner: Any, examples: Any, schedule: Any, count: int) -> list[float]:
    losses = []
    for epoch in range(1, count + 1):
        batches = learner.batches(examples, schedule, seed=0, epoch=epoch)
        losses.append(learner.epoch(epoch, batches, schedule, SILENT, count))
    return losses


def test_an_epoch_is_one_step_of_em_as_scikit_learn_takes_it(tables: Any, learned: Any) -> None:
    """One class, three components, from the same start: the likelihoods of five steps and what they learn agree."""
    flowers, _, schema = tables["iris"]
    task = learned("tabular-classification", flowers, schema)
    ones = [sample for sample in flowers if sample.labels["kind"] == schema.classes[0]]
    torch.manual_seed(0)
    model: Any = build_model(model_part(components=3, floor=0.0), task, CODE)
    model.share = torch.full_like(model.share, 1 / 3)  # of p(x, component), the only class having all
    start = {
        "means_init": model.mean[0].double().numpy(),
        "precisions_init": 1 / model.variance[0].double().numpy(),
        "weights_init": np.full(3, 1 / 3),
    }
    learner, examples, schedule = learner_of(task, ones, model, batch_size=16)
    losses = epochs(learner, examples, schedule, 5)
    x = np.concatenate([task.inputs(task.collate([task.decode(sample)]))[0].numpy() for sample in ones]).astype(float)
    oracle = GaussianMixture(3, covariance_type="diag", max_iter=5, tol=0, reg_covar=0, **start)
    with pytest.warns(UserWarning, match="did not converge"):
        oracle.fit(x)
    assert losses[-1] == pytest.approx(-oracle.lower_bound_, rel=1e-4)
    assert model.mean[0].numpy() == pytest.approx(oracle.means_, abs=1e-3)
    assert model.variance[0].numpy() == pytest.approx(oracle.covariances_, rel=1e-2)


def test_the_example_reads_digits_and_its_loss_never_rises(digits: Any, learned: Any, tmp_path: Path) -> None:
    training, test, schema = digits
    task = learned("image-classification", training, schema)
    torch.manual_seed(0)
    model = make_model(model_part(components=4), task, CODE, task.request(training[:1]), on_init=None)
    learner, examples, schedule = learner_of(task, training, model)
    losses = epochs(learner, examples, schedule, 15)
    assert all(now <= before + 1e-6 for before, now in pairwise(losses))
    assert losses[-1] < losses[0] - 10
    metrics = task.new_metrics()
    rows = task.collate([task.decode(sample) for sample in test])
    metrics.update(model(*task.inputs(rows)), rows)
    assert metrics.compute()["accuracy"] >= 0.9  # measured: .970
    example = task.request(test[:3])
    write_package(
        tmp_path / "p",
        task=task,
        model=model,
        model_record=model_part(components=4),
        code_folder=CODE,
        provenance={},
        example=example,
    )
    loaded = load_package(tmp_path / "p")
    assert torch.equal(loaded.forward(rows), model(*task.inputs(rows)))


def test_going_on_from_a_checkpoint_gives_the_same_bits(digits: Any, learned: Any, tmp_path: Path) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)

    def learns(model: Any, first: int, last: int) -> None:
        learner, examples, schedule = learner_of(task, training, model)
        for epoch in range(first, last + 1):
            learner.epoch(epoch, learner.batches(examples, schedule, seed=0, epoch=epoch), schedule, SILENT, last)

    torch.manual_seed(0)
    straight: Any = build_model(model_part(components=3), task, CODE)
    learns(straight, 1, 3)
    write_checkpoint(tmp_path, weights_of(straight), {})
    resumed: Any = build_model(model_part(components=3), task, CODE)
    resumed.load_state_dict(read_checkpoint(tmp_path)[0])
    for model in (straight, resumed):
        learns(model, 4, 8)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_ends_where_it_would_change_nothing_any_more(digits: Any, learned: Any) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)
    torch.manual_seed(0)
    model: Any = build_model(model_part(components=1), task, CODE)
    learner, examples, schedule = learner_of(task, training, model)
    ends = []
    for epoch in range(1, 5):
        learner.epoch(epoch, learner.batches(examples, schedule, seed=0, epoch=epoch), schedule, SILENT, 4)
        ends.append(learner.settled)
    assert ends == [False, False, True, True]  # one component is right after one epoch; the third epoch's loss shows it


def test_the_code_of_the_page_on_own_models_learns_digits(digits: Any, learned: Any, tmp_path: Path) -> None:
    (block,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "class Prototypes" in block
    ]
    (tmp_path / "prototypes.py").write_text(f"import torch\n{block}")
    training, test, schema = digits
    task = learned("image-classification", training, schema)
    model = build_model({"name": "prototypes:Prototypes"}, task, tmp_path)
    learner, examples, schedule = learner_of(task, training, model)
    assert epochs(learner, examples, schedule, 1) == [None]
    metrics = task.new_metrics()
    rows = task.collate([task.decode(sample) for sample in test])
    metrics.update(model(*task.inputs(rows)), rows)
    assert metrics.compute()["accuracy"] >= 0.85  # measured: .896


def test_settings_of_gradients_are_refused_where_the_model_is_built(digits: Any, learned: Any) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)
    with pytest.raises(SpecInvalid, match="Mixtures learns from statistics") as raised:
        learner_of(task, training, build_model(model_part(), task, CODE), clip_norm=1.0)
    assert [finding.where for finding in raised.value.findings] == ["train.clip_norm"]


BACKED = """
from torch import nn

from headrace_models.layers.counting import Counting


class Backed(Counting):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)

    def accumulate(self, inputs, batch): ...
    def maximize(self, statistics): ...
    def forward(self, x): ...
"""


@pytest.mark.parametrize("pattern", ["backbone.weight", "backbone.", "nowhere."])
def test_frozen_weights_of_ones_own_model_that_counts_are_refused(
    digits: Any, learned: Any, tmp_path: Path, pattern: str
) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)
    (tmp_path / "backed.py").write_text(BACKED)
    part = {"name": "backed:Backed", "args": {}, "freeze": [pattern]}
    with pytest.raises(SpecInvalid, match="Backed learns from statistics") as raised:
        make_model(part, task, tmp_path, task.request(training[:1]), on_init=None)
    assert [finding.where for finding in raised.value.findings] == ["model.freeze"]
    model = make_model({**part, "freeze": []}, task, tmp_path, task.request(training[:1]), on_init=None)
    assert len(list(model.parameters())) == 2


def test_a_network_without_parameters_is_told_how_others_learn(digits: Any, learned: Any, tmp_path: Path) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)
    (tmp_path / "flat.py").write_text("from torch import nn\n\nclass Flat(nn.Flatten):\n    pass\n")
    with pytest.raises(InvalidInput, match="has no parameters to train") as raised:
        make_model({"name": "flat:Flat", "args": {}}, task, tmp_path, task.request(training[:1]), on_init=None)
    assert "headrace_models.layers.counting.Counting" in raised.value.action


# The same 41 pictures in all: alone, and as 25 on one worker and 16 on the other, in batches that do not come out even.
SCRIPT = """
import os
from pathlib import Path
import numpy as np
from headrace.base.errors import InvalidInput
from headrace.training.components import make_learner
from headrace.training.statistics import Totals
from headrace_models.layers.counting import Statistics
from headrace_models.package import build_model

TWO, ALONE = Group(rank, 2, torch.device("cpu")), Group(0, 1, torch.device("cpu"))
MINE = list(range(25)) if rank == 0 else list(range(25, 41))

def batches(numbers, size):
    for start in range(0, len(numbers), size):
        chosen = numbers[start : start + size]
        pictures = [np.random.default_rng(n).integers(0, 255, (1, 8, 8), dtype=np.uint8) for n in chosen]
        yield {"image": torch.from_numpy(np.stack(pictures)), "label": torch.tensor([n % 3 for n in chosen])}

def learn(numbers, counts, group, part, count):
    loss = {"name": "cross-entropy", "args": {}, "task": "image-classification", "weight": 1.0}
    settings, schedule = {"losses": [loss], "precision": "float32", "seed": 0}, share_out(8, counts)
    torch.manual_seed(0)
    model = build_model(part, task, Path(os.environ["CODE"]))
    objective = make_objective(settings, task, group.device)
    learner = make_learner(settings, model, objective, group, schedule, own_code=True)
    losses = []
    for epoch in range(1, count + 1):
        shown = batches(numbers, schedule.sizes[group.rank])
        losses.append(learner.epoch(epoch, shown, schedule, Teller(speaks=False), count))
    return model.state_dict(), losses

def close(one, other, **how):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], **how), name

mixtures = {"name": "mixture:Mixtures", "args": {"components": 2}}
neighbours = {"name": "nearest-neighbours", "args": {"k": 3}}
for part, count in ((mixtures, 4), (neighbours, 1)):
    state, losses = learn(MINE, [25, 16], TWO, part, count)
    (first, its_losses), (second, others_losses) = TWO.gather((state, losses))
    close(first, second, rtol=0, atol=0)
    assert its_losses == others_losses
    alone, losses_alone = learn(list(range(41)), [41], ALONE, part, count)
    close(state, alone, rtol=1e-4, atol=1e-5)
    if part is mixtures:
        assert np.allclose(losses, losses_alone, rtol=1e-5), (losses, losses_alone)
    else:
        assert losses == [None] and len(state["bank"]) == 41

rows = torch.arange(3 * rank, dtype=torch.bfloat16)[:, None, None] + torch.zeros(2, 1, dtype=torch.bfloat16)
kept = Totals()  # the first worker has no rows
kept.add(Statistics({}, {"rows": rows, "flag": torch.tensor([rank == 0] * (2 - rank))}), 1)
together = kept.everyones(TWO)[0].kept
assert together["rows"].tolist() == [[[0], [0]], [[1], [1]], [[2], [2]]], together
assert together["flag"].tolist() == [True, True, False]

nobody = Totals()
nobody.add(Statistics({}, {"rows": torch.zeros(0, 3)}), 1)
assert nobody.everyones(TWO)[0].kept["rows"].shape == (0, 3)

table = torch.arange(6.0).view(2, 3)
strides = Totals()  # the same table, which lies differently in the memory of the two
strides.add(Statistics({"n": table if rank == 0 else table.T.contiguous().T}), 1)
assert torch.equal(strides.everyones(TWO)[0].sums["n"], 2 * table.double())

totals = Totals()
totals.add(Statistics({"n": torch.ones(2 + rank)}), 1)
try:
    totals.everyones(TWO)
except InvalidInput as error:
    assert "two workers gave different statistics: sum n is [2] torch.float64 and [3] torch.float64" in error.message
else:
    raise AssertionError("nobody noticed")
dist.destroy_process_group()
"""


def test_two_workers_learn_what_one_learns_and_are_told_where_they_disagree(tmp_path: Path) -> None:
    """Workers of different size, whose batches do not come out even: each sample counts once, however dealt out.

    A mixture's sums agree up to rounding, neighbours are kept in one order. Rows of any type are joined by rank, also
    where a worker has none; statistics of different shapes are an error on both and no worker waits for ever.
    """
    two_workers.run(SCRIPT, tmp_path, CODE=str(CODE))
