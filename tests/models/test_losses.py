"""Losses and activations against plain formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from headrace.base.errors import InvalidInput
from headrace_models import catalog
from headrace_models.layers import build_activation, build_loss
from headrace_models.layers.losses import Ctc
from headrace_models.tasks import Schema, Task, build_task

SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0], [-0.3, 0.0, 0.0], [5.0, 1.0, 1.5]])
LABEL = torch.tensor([0, 2, 1, 2])
CLASSES = ("ant", "bee", "cat")
COUNTS = (10, 20, 30)


@pytest.fixture
def classes() -> Task:
    task = build_task({"name": "tabular-classification"}, Schema("y", CLASSES, {"x": "number"}))
    task.preprocessing = {"columns": [{"name": "x", "mean": 0.0, "scale": 1.0}], "class_counts": list(COUNTS)}
    return task


@pytest.fixture
def values() -> Task:
    return build_task({"name": "tabular-regression"}, Schema("y", (), {"x": "number"}))


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def mean_over_samples(each: Callable[[list[float], int], float]) -> float:
    rows, labels = SCORES.tolist(), LABEL.tolist()
    return sum(each(row, label) for row, label in zip(rows, labels, strict=True)) / len(rows)


def of(task: Task, name: str, **args: object) -> float:
    return float(task.loss(SCORES, {"label": LABEL}, build_loss(name, args, task)))


def test_cross_entropy_is_the_mean_of_minus_log_p(classes: Task) -> None:
    assert of(classes, "cross-entropy") == pytest.approx(mean_over_samples(lambda r, y: -math.log(softmax(r)[y])))


def test_label_smoothing_spreads_part_of_the_target_over_all_classes(classes: Task) -> None:
    def each(row: list[float], label: int) -> float:
        target = [0.1 / 3 + (0.9 if place == label else 0) for place in range(3)]
        return -sum(q * math.log(p) for q, p in zip(target, softmax(row), strict=True))

    assert of(classes, "cross-entropy", label_smoothing=0.1) == pytest.approx(mean_over_samples(each))


def test_balanced_weights_make_every_class_count_alike(classes: Task) -> None:
    weights = [60 / (3 * count) for count in COUNTS]
    expected = mean_over_samples(lambda r, y: -weights[y] * math.log(softmax(r)[y]))
    assert of(classes, "cross-entropy", class_weights="balanced") == pytest.approx(expected)
    assert sum(w * c for w, c in zip(weights, COUNTS, strict=True)) / 60 == pytest.approx(1)


def test_weights_by_name_leave_the_others_at_one(classes: Task) -> None:
    expected = mean_over_samples(lambda r, y: -[1, 1, 4][y] * math.log(softmax(r)[y]))
    assert of(classes, "cross-entropy", class_weights={"cat": 4}) == pytest.approx(expected)


def test_a_weight_for_an_unknown_class_suggests_the_nearest(classes: Task) -> None:
    with pytest.raises(InvalidInput) as raised:
        build_loss("cross-entropy", {"class_weights": {"bees": 2}}, classes)
    assert "'bees'" in raised.value.message
    assert raised.value.action == "did you mean 'bee'?"


def test_focal_plays_down_what_is_classified_well(classes: Task) -> None:
    def each(row: list[float], label: int) -> float:
        p = softmax(row)[label]
        return -((1 - p) ** 2) * math.log(p)

    assert of(classes, "focal") == pytest.approx(mean_over_samples(each), rel=1e-5)
    assert of(classes, "focal", gamma=0) == pytest.approx(of(classes, "cross-entropy"), rel=1e-5)


def test_focal_has_a_finite_gradient_where_the_model_is_sure(classes: Task) -> None:
    scores = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    loss = build_loss("focal", {"gamma": 0.5}, classes)
    classes.loss(scores, {"label": torch.tensor([0])}, loss).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("power", [1, 2])
def test_hinge_is_the_mean_lag_behind_the_margin(classes: Task, power: int) -> None:
    def each(row: list[float], label: int) -> float:
        return sum(max(0.0, 1.5 - row[label] + row[k]) ** power for k in range(3) if k != label) / 2

    assert of(classes, "hinge", margin=1.5, power=power) == pytest.approx(mean_over_samples(each))


def test_mse_on_classes_is_the_brier_score(classes: Task) -> None:
    def each(row: list[float], label: int) -> float:
        return sum((p - (k == label)) ** 2 for k, p in enumerate(softmax(row)))

    assert of(classes, "mse") == pytest.approx(mean_over_samples(each))


def test_dice_is_the_overlap_that_is_missing(classes: Task) -> None:
    def each(row: list[float], label: int) -> float:
        p = softmax(row)
        return 1 - 2 * p[label] / (sum(value**2 for value in p) + 1)

    assert of(classes, "dice") == pytest.approx(mean_over_samples(each))


def test_dice_of_a_picture_takes_all_its_places_together(classes: Task) -> None:
    scores = torch.zeros(1, 2, 1, 2)
    scores[0, 1] = torch.tensor([40.0, -40.0])
    target = torch.tensor([[[1, 1]]])  # two places: one right, one wrong, both with certainty
    loss = build_loss("dice", {}, classes)
    assert float(loss(scores, target)) == pytest.approx(1 - 2 * 1 / (2 + 2))


def ctc_by_hand(scores: list[list[float]], target: tuple[int, ...]) -> float:
    """-log of the sum over every path of classes that is TARGET once repetitions and blanks are taken out."""
    total = 0.0
    for path in itertools.product(range(len(scores[0])), repeat=len(scores)):
        if tuple(key for key, _ in itertools.groupby(path) if key) == target:
            total += math.prod(softmax(row)[step] for row, step in zip(scores, path, strict=True))
    return -math.log(total)


def test_ctc_sums_over_every_alignment() -> None:
    """Graves et al. 2006, eq. 3: B(path) = target; among the targets one that repeats an index."""
    scores = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([[1, 2, -1], [2, 2, -1], [1, 2, 1]])
    frames = torch.tensor([5, 4, 5])
    given = Ctc()(scores, target, frames)
    by_hand = [
        ctc_by_hand(scores[place, :count].tolist(), tuple(c for c in row if c >= 0))
        for place, (row, count) in enumerate(zip(target.tolist(), frames.tolist(), strict=True))
    ]
    assert given.item() == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    given.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[1, 4] == 0).all()  # a frame that does not count
    all_frames = [ctc_by_hand(scores[0].tolist(), (1, 2))]
    assert float(Ctc()(scores[:1], target[:1])) == pytest.approx(all_frames[0], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "args", "formula"),
    [
        ("mse", {}, lambda r: r * r),
        ("l2", {}, lambda r: r * r / 2),
        ("l1", {}, abs),
        ("smooth-l1", {"beta": 0.5}, lambda r: r * r if abs(r) < 0.5 else abs(r) - 0.25),
        ("huber", {"delta": 2.0}, lambda r: r * r / 2 if abs(r) < 2 else 2 * (abs(r) - 1)),
    ],
)
def test_losses_of_values_follow_their_formula(
    values: Task, name: str, args: dict[str, float], formula: Callable[[float], float]
) -> None:
    predicted, target = torch.tensor([[0.1], [2.0], [-4.0], [1.0]]), torch.tensor([0.0, 0.5, 1.0, 1.0])
    loss = build_loss(name, args, values)
    expected = sum(formula(r) for r in [0.1, 1.5, -5.0, 0.0]) / 4
    assert float(values.loss(predicted, {"target": target}, loss)) == pytest.approx(expected)


def test_a_batch_in_two_parts_has_the_mean_of_the_whole(classes: Task) -> None:
    """What makes the mean over workers exact: losses are means over samples, weighted ones too."""
    for name in classes.card.losses:
        args = {} if name in ("mse", "dice") else {"class_weights": "balanced"}
        loss = build_loss(name, args, classes)
        whole = classes.loss(SCORES, {"label": LABEL}, loss)
        parts = [(SCORES[:3], LABEL[:3]), (SCORES[3:], LABEL[3:])]
        mean = sum(len(y) * classes.loss(x, {"label": y}, loss) for x, y in parts) / 4
        assert float(mean) == pytest.approx(float(whole), rel=1e-6)


def test_losses_are_computed_in_float32_whatever_the_outputs_are(classes: Task) -> None:
    for name in classes.card.losses:
        loss = build_loss(name, {}, classes)
        assert classes.loss(SCORES.bfloat16(), {"label": LABEL}, loss).dtype is torch.float32


def test_a_loss_that_does_not_fit_the_task_is_refused_with_those_that_do(values: Task) -> None:
    with pytest.raises(InvalidInput) as raised:
        build_loss("cross-entropy", {}, values)
    assert "mse" in raised.value.action
    assert "tabular-regression" in raised.value.message


def test_outputs_of_a_wrong_shape_are_named(classes: Task, values: Task) -> None:
    loss = build_loss("cross-entropy", {}, classes)
    with pytest.raises(InvalidInput, match=r"shape \[4, 2\], where scores of shape \[batch, 3\]"):
        classes.loss(SCORES[:, :2], {"label": LABEL}, loss)
    with pytest.raises(InvalidInput, match=r"a tuple, where scores"):
        classes.loss((SCORES,), {"label": LABEL}, loss)
    with pytest.raises(InvalidInput, match=r"\[batch, 1\]"):
        values.loss(SCORES, {"target": LABEL.float()}, build_loss("mse", {}, values))


FORMULAS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "leaky-relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "relu6": lambda x: min(max(0.0, x), 6.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "hardsigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", list(catalog.activations()))
def test_an_activation_follows_its_formula(name: str) -> None:
    points = [-8.0, -2.5, -0.7, 0.0, 0.3, 1.9, 7.5]
    given = build_activation(name)(torch.tensor(points, dtype=torch.float64)).tolist()
    assert given == pytest.approx([FORMULAS[name](point) for point in points], abs=1e-9)


def test_an_activations_argument_changes_it() -> None:
    assert float(build_activation("leaky-relu", {"negative_slope": 0.3})(torch.tensor(-1.0))) == pytest.approx(-0.3)


def test_a_loss_has_nothing_to_train_or_to_keep(classes: Task) -> None:
    loss = build_loss("cross-entropy", {"class_weights": "balanced"}, classes)
    assert list(loss.state_dict()) == []
    assert list(loss.parameters()) == []
