"""Tables: columns to numbers, missing values, both tasks' metrics, and what they serve."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from headrace.base.errors import DataInvalid
from headrace_models.tasks import BadInput, Sample, Schema, Task, build_task, task_from_record
from headrace_models.tasks.columns import Moments, text
from headrace_models.tasks.judging import RegressionMetrics

COLUMNS = {"age": "number", "city": "category", "fare": "number"}
ROWS: list[dict[str, Any]] = [
    {"age": 20, "city": "Rome", "fare": 1.5},
    {"age": None, "city": "Oslo", "fare": 2.5},
    {"age": 40, "city": None, "fare": math.nan},
    {"age": 30.0, "city": "Rome", "fare": 9.0},
    {"age": "50", "city": "", "fare": math.inf},
]


def samples(label: Any = "yes") -> list[Sample]:
    return [Sample(f"r{n}", row, {"y": label if n % 2 else "no"}) for n, row in enumerate(ROWS)]


def classification(workers: int = 1, **args: Any) -> Task:
    task = build_task({"name": "tabular-classification", "args": args}, Schema("y", ("no", "yes"), COLUMNS))
    task.learn([task.summarise(samples()[rank::workers]) for rank in range(workers)])
    return task


def regression(targets: list[float]) -> Task:
    task = build_task({"name": "tabular-regression"}, Schema("y", (), {"x": "number"}))
    rows = [Sample(f"r{n}", {"x": float(n)}, {"y": target}) for n, target in enumerate(targets)]
    task.learn([task.summarise(rows[::2]), task.summarise(rows[1::2])])
    return task


def test_numbers_are_standardised_and_categories_one_hot_with_one_for_all_others() -> None:
    task = classification()
    assert task.model_facts() == {"in_features": 5, "num_outputs": 2, "num_classes": 2}
    age = (20 - 35) / math.sqrt(125)  # of 20, 30, 40, 50
    fares = [1.5, 2.5, 9.0]
    fare = (1.5 - np.mean(fares)) / np.std(fares)
    features = task.decode(samples()[0])["features"]
    assert features.dtype == np.float32
    assert features.tolist() == pytest.approx([age, 0, 1, 0, fare])


def test_missing_and_infinite_numbers_become_the_mean_and_missing_categories_other() -> None:
    task = classification()
    assert task.decode(samples()[1])["features"][0] == 0
    assert task.decode(samples()[2])["features"].tolist()[1:] == [0, 0, 1, 0]
    assert task.decode(samples()[4])["features"].tolist()[1:] == [0, 0, 1, 0]
    assert task.decode(Sample("x", {}))["features"].tolist() == [0, 0, 0, 1, 0]
    assert task.decode(Sample("x", {"city": "Paris"}))["features"].tolist() == [0, 0, 0, 1, 0]


def test_the_rarer_categories_share_one_input() -> None:
    task = classification(max_categories=1)
    assert task.preprocessing["columns"][1]["values"] == ["Rome"]
    assert task.decode(samples()[1])["features"].tolist()[1:3] == [0, 1]


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_learn_together_what_one_learns_alone(workers: int) -> None:
    alone, together = classification().preprocessing, classification(workers).preprocessing
    assert together["class_counts"] == alone["class_counts"] == [3, 2]
    for one, other in zip(alone["columns"], together["columns"], strict=True):
        if "values" in one:
            assert other == one
        else:
            assert (other["mean"], other["scale"]) == pytest.approx((one["mean"], one["scale"]))


def test_moments_do_not_cancel_far_from_zero() -> None:
    values = np.random.default_rng(0).normal(1.7e9, 3.0, 1000)
    parts = [Moments() for _ in range(3)]
    for place, value in enumerate(values):
        parts[place % 3].add(float(value))
    merged = Moments.merged(part.to_record() for part in parts)
    assert merged.mean == pytest.approx(values.mean(), rel=1e-12)
    assert merged.scale == pytest.approx(values.std(), rel=1e-6)


def test_a_constant_column_does_not_divide_by_zero() -> None:
    moments = Moments()
    for _ in range(7):
        moments.add(0.1)
    assert moments.scale == 1.0


@pytest.mark.parametrize(
    ("value", "seen"),
    [(3, "3"), (3.0, "3"), (np.int64(3), "3"), ("3", "3"), (b"3", "3"), (2.5, "2.5"), (True, "true"), (None, None)],
)
def test_a_category_is_the_same_whatever_type_a_file_gives_it(value: Any, seen: str | None) -> None:
    assert text(value) == seen


def test_training_and_serving_encode_a_row_to_the_same_bits() -> None:
    task = classification()
    rows = [task.decode(sample)["features"] for sample in samples()]
    served = task.preprocess(task.request(samples()))["features"]
    assert torch.equal(served, torch.from_numpy(np.stack(rows)))


def test_a_task_survives_its_record() -> None:
    task = classification()
    record = json.loads(json.dumps(task.to_record(), allow_nan=False))
    again = task_from_record(json.loads(json.dumps(record, sort_keys=True)))
    assert list(again.schema.columns) == ["age", "city", "fare"]
    assert np.array_equal(again.decode(samples()[3])["features"], task.decode(samples()[3])["features"])


def test_numbers_of_any_type_and_columns_of_one_are_taken() -> None:
    task = classification()
    city = np.array(["Rome", "Oslo"], dtype=object)
    base = task.preprocess({"age": np.array([20.0, 30.0]), "city": city, "fare": np.array([1.0, 2.0])})["features"]
    for kind in (np.float32, np.int64, np.int32, np.uint8):
        given = {"age": np.array([[20], [30]], kind), "city": city[:, None], "fare": np.array([1, 2], kind)}
        assert torch.equal(task.preprocess(given)["features"], base)
    as_bytes = np.array([b"Rome", b"Oslo"], dtype=object)
    given = {"age": np.array([20.0, 30.0]), "city": as_bytes, "fare": np.array([1.0, 2.0])}
    assert torch.equal(task.preprocess(given)["features"], base)


def test_the_signature_has_one_input_a_column_in_their_order() -> None:
    signature = classification().signature()
    assert [(s.name, s.datatype, s.shape) for s in signature.inputs] == [
        ("age", "FP64", (-1,)),
        ("city", "BYTES", (-1,)),
        ("fare", "FP64", (-1,)),
    ]
    kinds = {(specs[0].datatype, specs[0].shape) for specs in signature.alternatives}
    assert kinds == {("FP32", (-1,)), ("INT64", (-1,)), ("FP64", (-1, 1)), ("FP32", (-1, 1)), ("INT64", (-1, 1))}
    assert regression([1.0, 2.0]).signature().outputs[0].to_record() == {
        "name": "prediction",
        "datatype": "FP64",
        "shape": [-1],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agee": np.zeros(1)}, "no column 'agee'; the columns are age, city, fare"),
        ({"age": None}, "the column 'age' is missing"),
        ({"age": np.zeros(2)}, "same number of rows"),
        ({"age": np.zeros((1, 2))}, "shape [1, 2]"),
        ({"age": np.array([b"old"], dtype=object)}, "b'old' is not one"),
        ({"age": np.array(["x"])}, "allowed are numbers"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_in_a_sentence(change: dict[str, Any], message: str) -> None:
    inputs = {"age": np.zeros(1), "city": np.array(["Rome"], dtype=object), "fare": np.zeros(1), **change}
    with pytest.raises(BadInput) as raised:
        classification().preprocess({name: array for name, array in inputs.items() if array is not None})
    assert message in str(raised.value)


def test_a_word_among_numbers_is_refused_in_training_too() -> None:
    with pytest.raises(BadInput, match="column 'age' holds numbers; 'old' is not one"):
        classification().decode(Sample("x", {"age": "old"}))


def test_tables_need_columns_and_rows() -> None:
    with pytest.raises(DataInvalid, match="feature column"):
        build_task({"name": "tabular-regression"}, Schema("y", (), {}))
    task = build_task({"name": "tabular-classification"}, Schema("y", ("a", "b"), COLUMNS))
    with pytest.raises(DataInvalid, match="no row"):
        task.learn([task.summarise([])])


# regression


def test_the_target_is_learned_standardised_and_answered_in_its_unit() -> None:
    targets = [100.0, 300.0, 200.0, 400.0]
    task = regression(targets)
    examples = [task.decode(Sample("r", {"x": 1.0}, {"y": target})) for target in targets]
    batch = task.collate(examples)
    assert batch["target"].mean() == pytest.approx(0)
    assert batch["target"].std(correction=0) == pytest.approx(1)
    answer = task.postprocess(batch["target"][:, None], batch)["prediction"]
    assert answer.dtype == np.float64
    assert answer.tolist() == pytest.approx(targets)


def test_a_missing_target_is_refused() -> None:
    with pytest.raises(BadInput, match="label of r1 is missing"):
        regression([1.0, math.nan])


def test_regression_metrics_are_scikit_learns_in_the_targets_unit() -> None:
    random = np.random.default_rng(1)
    true, error = random.normal(5000, 40, 300), random.normal(0, 15, 300)
    whole = RegressionMetrics(5000.0, 40.0)
    parts = [RegressionMetrics(5000.0, 40.0) for _ in range(3)]
    standard, said = torch.from_numpy((true - 5000) / 40), torch.from_numpy((true + error - 5000) / 40)
    for rank, part in enumerate(parts):
        part.update(said[rank::3, None], {"target": standard[rank::3]})
    whole.merge([part.state() for part in parts])
    wanted = {
        "rmse": oracle.root_mean_squared_error(true, true + error),
        "mae": oracle.mean_absolute_error(true, true + error),
        "r2": oracle.r2_score(true, true + error),
    }
    assert whole.compute() == pytest.approx(wanted)
    assert RegressionMetrics(0.0, 1.0).compute() == {}


def test_regression_metrics_are_finite_for_constant_targets_and_wild_predictions() -> None:
    metrics = RegressionMetrics(0.0, 1.0)
    metrics.update(torch.tensor([float("nan"), float("inf")]), {"target": torch.tensor([1.0, 1.0])})
    assert all(np.isfinite(value) for value in metrics.compute().values())
    assert metrics.compute()["r2"] == 0


def test_the_picture_of_a_regression_is_drawn() -> None:
    task = regression([1.0, 2.0, 3.0])
    metrics = task.new_metrics()
    metrics.update(torch.zeros(3), {"target": torch.zeros(3)})
    buffer = io.BytesIO()
    task.plots(metrics)["predicted_by_true"].savefig(buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")
