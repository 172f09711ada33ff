"""The image task: what it learns of pictures, its batches, its metrics, and what it serves."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as oracle

from headrace.base.errors import DataInvalid, InvalidInput, SpecInvalid
from headrace_models.layers import build_loss
from headrace_models.tasks import BadInput, Sample, Schema, Task, build_task, plots, task_from_record
from headrace_models.tasks.judging import SMALLEST, ClassificationMetrics

SCHEMA = Schema("label", ("cat", "dog", "eel"))
RANDOM = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 1, label: str = "cat", name: str = "x") -> Sample:
    import io

    shape = (height, width) if channels == 1 else (height, width, channels)
    buffer = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return Sample(name, buffer.getvalue(), {"label": label})


def learned(samples: list[Sample], workers: int = 1, **args: Any) -> Task:
    task = build_task({"name": "image-classification", "args": args}, SCHEMA)
    task.learn([task.summarise(samples[rank::workers]) for rank in range(workers)])
    return task


@pytest.mark.parametrize(
    ("sizes", "args", "learned_size"),
    [
        ([(8, 8)] * 3, {}, [8, 8]),
        ([(28, 20)] * 2, {}, [28, 20]),
        ([(224, 100)] * 2, {}, [224, 100]),
        ([(300, 400)] * 2, {}, [224, 224]),
        ([(4, 9)] * 2, {}, [32, 32]),
        ([(50, 90), (60, 40), (44, 46)], {}, [48, 48]),
        ([(10, 12), (14, 10)], {}, [32, 32]),
        ([(300, 290), (400, 500)], {}, [224, 224]),
        ([(8, 8)], {"image_size": 24}, [24, 24]),
        ([(8, 8)], {"image_size": [16, 40]}, [16, 40]),
    ],
)
def test_the_size_is_learned_from_the_pictures_or_asked_for(
    sizes: list[tuple[int, int]], args: dict[str, Any], learned_size: list[int]
) -> None:
    task = learned([picture(height, width) for height, width in sizes], **args)
    assert task.preprocessing["image_size"] == learned_size


def test_one_coloured_picture_makes_the_network_see_colour() -> None:
    grey = [picture(8, 8) for _ in range(5)]
    assert learned(grey).model_facts()["in_channels"] == 1
    assert learned([*grey, picture(8, 8, 3)]).model_facts()["in_channels"] == 3
    assert learned([*grey, picture(8, 8, 3)], channels=1).model_facts()["in_channels"] == 1
    assert learned(grey, channels=3).model_facts()["in_channels"] == 3


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_learn_together_what_one_learns_alone(workers: int) -> None:
    samples = [picture(10 + place % 3, 14, 3, "dog" if place % 3 else "cat") for place in range(9)]
    alone, together = learned(samples).preprocessing, learned(samples, workers).preprocessing
    assert together["image_size"] == alone["image_size"]
    assert (
        together["class_counts"]
        == alone["class_counts"]
        == [
            3,
            6,
            0,
        ]
    )
    assert together["mean"] == pytest.approx(alone["mean"])
    assert together["std"] == pytest.approx(alone["std"])


def test_a_worker_without_samples_changes_nothing() -> None:
    samples = [picture(8, 8), picture(8, 8)]
    alone, together = learned(samples).preprocessing, learned(samples, workers=5).preprocessing
    assert together.pop("mean") == pytest.approx(alone.pop("mean"))
    assert together.pop("std") == pytest.approx(alone.pop("std"))
    assert together == alone


def test_an_empty_training_split_is_said() -> None:
    with pytest.raises(DataInvalid, match="holds no picture"):
        learned([])


def test_inputs_have_mean_zero_and_variance_one() -> None:
    task = learned([picture(8, 8, 3) for _ in range(40)])
    (x,) = task.inputs(task.collate([task.decode(picture(8, 8, 3)) for _ in range(40)]))
    assert x.dtype is torch.float32
    assert x.shape == (40, 3, 8, 8)
    assert x.mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert (x.std(dim=(0, 2, 3)) - 1).abs().max() < 0.1


def test_pictures_of_one_colour_do_not_divide_by_zero() -> None:
    import io

    buffer = io.BytesIO()
    Image.new("L", (8, 8), 77).save(buffer, "PNG")
    task = learned([Sample("x", buffer.getvalue(), {"label": "cat"})] * 3)
    (x,) = task.inputs(task.collate([task.decode(Sample("x", buffer.getvalue(), {"label": "cat"}))]))
    assert task.preprocessing["std"] == [1.0]
    assert x.abs().max() < 1e-6


def test_a_task_survives_its_record() -> None:
    task = learned([picture(8, 12, 3), picture(9, 9)], image_size=16)
    record = json.loads(json.dumps(task.to_record()))
    again = task_from_record(record)
    assert again.to_record() == record
    sample = picture(30, 21, 3)
    assert np.array_equal(again.decode(sample)["image"], task.decode(sample)["image"])


def test_labels_must_be_classes() -> None:
    task = learned([picture(8, 8)])
    with pytest.raises(BadInput, match="'cow' of x"):
        task.decode(picture(8, 8, label="cow"))
    unlabelled = task.decode(Sample("x", picture(8, 8).payload))
    assert "label" not in unlabelled
    assert "label" not in task.collate([unlabelled])


def test_one_class_is_not_enough() -> None:
    with pytest.raises(DataInvalid, match="two classes or more"):
        build_task({"name": "image-classification"}, Schema("label", ("cat",)))


# augmentation


@pytest.mark.parametrize("kind", ["none", "shift", "flip", "crop-flip"])
def test_augmentation_depends_on_its_seed_only_and_keeps_the_original(kind: str) -> None:
    task = learned([picture(16, 24, 3)], augment=kind)
    example = task.decode(picture(16, 24, 3))
    before = example["image"].copy()
    first = [task.augment(example, random.Random(seed))["image"] for seed in range(20)]
    again = [task.augment(example, random.Random(seed))["image"] for seed in range(20)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(example["image"], before)
    assert {image.shape for image in first} == {(3, 16, 24)}
    different = len({image.tobytes() for image in first})
    assert {"none": different == 1, "flip": different == 2}.get(kind, different > 8)


def test_a_shift_moves_by_an_eighth_at_most_and_repeats_the_edge() -> None:
    task = learned([picture(16, 16)], augment="shift")
    ramp = np.arange(16, dtype=np.uint8)[None, None, :] * np.ones((1, 16, 1), np.uint8)
    seen = {tuple(task.augment({"image": ramp}, random.Random(seed))["image"][0, 0].tolist()) for seed in range(100)}
    assert seen == {tuple(int(min(max(i + d, 0), 15)) for i in range(16)) for d in range(-2, 3)}


# metrics


def test_metrics_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.from_numpy(RANDOM.normal(size=(200, 5))).float()
    label = torch.from_numpy(RANDOM.integers(0, 4, 200))  # class 4 never occurs, but is predicted
    metrics = ClassificationMetrics(5)
    for start in range(0, 200, 64):
        metrics.update(scores[start : start + 64], {"label": label[start : start + 64]})
    said = scores.argmax(1).numpy()
    wanted = {
        "accuracy": oracle.accuracy_score(label, said),
        "macro_f1": oracle.f1_score(label, said, average="macro", zero_division=0),
        "macro_precision": oracle.precision_score(label, said, average="macro", zero_division=0),
        "macro_recall": oracle.recall_score(label, said, average="macro", zero_division=0),
        "log_loss": oracle.log_loss(label, scores.double().softmax(1).numpy(), labels=range(5)),
    }
    assert metrics.compute() == pytest.approx(wanted)


@pytest.mark.parametrize("classes", [3, 5, 6, 50])
def test_top5_accuracy_is_scikit_learns_and_1_for_five_classes_or_fewer(classes: int) -> None:
    scores = torch.from_numpy(RANDOM.normal(size=(300, classes))).float()
    label = torch.from_numpy(RANDOM.integers(0, classes, 300))
    metrics = ClassificationMetrics(classes, top=5)
    for start in range(0, 300, 77):
        metrics.update(scores[start : start + 77], {"label": label[start : start + 77]})
    found = metrics.compute()["top5_accuracy"]
    if classes > 5:
        assert found == pytest.approx(oracle.top_k_accuracy_score(label, scores, k=5, labels=range(classes)))
        assert metrics.compute()["accuracy"] < found < 1
    else:
        assert found == 1
    together = ClassificationMetrics(classes, top=5)
    together.merge([metrics.state(), metrics.state(), ClassificationMetrics(classes, top=5).state()])
    assert together.compute() == pytest.approx(metrics.compute())


def test_of_equal_scores_the_first_class_is_the_likelier_as_in_accuracy() -> None:
    label = torch.arange(8)
    metrics = ClassificationMetrics(8, top=5)
    metrics.update(torch.zeros(8, 8), {"label": label})
    assert metrics.compute()["accuracy"] == 1 / 8
    assert metrics.compute()["top5_accuracy"] == 5 / 8


def test_metrics_of_workers_add_up_to_those_of_one() -> None:
    scores, label = torch.from_numpy(RANDOM.normal(size=(90, 3))), torch.from_numpy(RANDOM.integers(0, 3, 90))
    whole, parts = ClassificationMetrics(3), [ClassificationMetrics(3) for _ in range(4)]
    whole.update(scores, {"label": label})
    for rank, part in enumerate(parts[:3]):  # the fourth worker has no sample
        part.update(scores[rank::3], {"label": label[rank::3]})
    total = ClassificationMetrics(3)
    total.merge([part.state() for part in parts])
    assert total.compute() == pytest.approx(whole.compute())


def test_metrics_are_finite_whatever_the_network_says() -> None:
    metrics = ClassificationMetrics(2)
    scores = torch.tensor([[1e30, -1e30], [float("nan"), 0.0], [float("inf"), 0.0]])
    metrics.update(scores, {"label": torch.tensor([1, 0, 1])})
    assert all(np.isfinite(value) for value in metrics.compute().values())
    assert metrics.compute()["log_loss"] <= -np.log(SMALLEST)
    assert ClassificationMetrics(2).compute() == {}


def test_the_metrics_are_those_of_the_card(digits: Any) -> None:
    task = learned([picture(8, 8)])
    metrics = task.new_metrics()
    metrics.update(torch.eye(3), {"label": torch.arange(3)})
    assert list(metrics.compute()) == list(task.card.metrics)


def test_the_precision_recall_curve_is_scikit_learns_within_a_bin() -> None:
    scores = torch.from_numpy(RANDOM.normal(size=(3000, 2)) * 2)
    label = torch.from_numpy((RANDOM.random(3000) < scores.softmax(1)[:, 1].numpy()).astype(int))
    metrics = ClassificationMetrics(2)
    metrics.update(scores, {"label": label})
    recall, precision = metrics.curve(slice(1, 2))
    p, r, _ = oracle.precision_recall_curve(label, scores.softmax(1)[:, 1])
    area = float(np.trapezoid(precision, recall))
    assert area == pytest.approx(float(np.trapezoid(p[::-1], r[::-1])), abs=0.01)


def cells(figure: Any) -> list[list[str]]:
    found: dict[int, dict[int, str]] = {}
    for (row, column), cell in figure.axes[0].tables[0].get_celld().items():
        found.setdefault(row, {})[column] = cell.get_text().get_text()
    return [[texts[column] for column in sorted(texts)] for _, texts in sorted(found.items())]


def test_the_table_of_classes_is_scikit_learns_report() -> None:
    names = tuple(f"class {n}" for n in range(6))
    label, said = RANDOM.integers(0, 6, 400), RANDOM.integers(0, 6, 400)
    said = np.where(RANDOM.random(400) < 0.6, label, said)
    metrics = ClassificationMetrics(6)
    metrics.update(torch.nn.functional.one_hot(torch.from_numpy(said), 6).float(), {"label": torch.from_numpy(label)})
    header, *rows = cells(plots.class_report(metrics, names))
    assert header == ["class", "precision", "recall", "F1", "support"]
    report = oracle.classification_report(label, said, target_names=names, output_dict=True)
    told = {row[0]: row[1:] for row in rows}
    assert set(told) == set(report) - {"accuracy"}
    for name, values in told.items():
        wanted = [report[name][key] for key in ("precision", "recall", "f1-score")]
        assert values == [*(f"{value:.3f}" for value in wanted), f"{int(report[name]['support'])}"], name


def test_of_a_thousand_classes_the_worst_are_told_in_pictures_of_a_readable_size() -> None:
    names = tuple(f"a class with a long name {n}" for n in range(1000))
    label = torch.arange(1000).repeat(3)
    said = label.clone()
    said[label == 700] = 701  # never right
    said[(label == 12).nonzero()[0]] = 13
    metrics = ClassificationMetrics(1000)
    metrics.update(torch.nn.functional.one_hot(said, 1000).float(), {"label": label})
    figure = plots.confusion_matrix(metrics, names)
    axes = figure.axes[0]
    assert len(axes.get_xticklabels()) == plots.NAMED + 1
    counts = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert sum(counts.values()) == 3000
    chosen = plots._most_confused(metrics.confusion)
    assert {12, 13, 700, 701} <= set(chosen)
    assert counts[chosen.index(701), chosen.index(700)] == 3
    assert "30 of 1,000" in axes.get_title()
    report = plots.class_report(metrics, names)
    rows = cells(report)[1:]
    assert len(rows) == plots.ROWS + 2
    assert [row[1:] for row in rows[:3]] == [
        ["0.000", "0.000", "0.000", "3"],  # 700
        ["0.500", "1.000", "0.667", "3"],  # 701
        ["1.000", "0.667", "0.800", "3"],  # 12
    ]
    for drawn in (figure, report):
        assert max(drawn.get_size_inches()) * 100 <= 1600  # pixels


@pytest.mark.parametrize("classes", [2, 12, 40])
def test_plots_are_drawn_for_few_and_many_classes(classes: int) -> None:
    task = build_task(
        {"name": "image-classification"}, Schema("label", tuple(f"a rather long name ${n}" for n in range(classes)))
    )
    task.preprocessing = {"image_size": [8, 8], "channels": 1, "mean": [0.5], "std": [1.0]}
    metrics = task.new_metrics()
    scores, label = (
        torch.from_numpy(RANDOM.normal(size=(60, classes))),
        torch.from_numpy(RANDOM.integers(0, classes, 60)),
    )
    metrics.update(scores, {"label": label})
    examples = [{"image": RANDOM.integers(0, 256, (1, 8, 8), dtype=np.uint8), "label": int(v)} for v in label[:5]]
    figures = task.plots(metrics) | task.example_pictures(examples, scores[:5])
    assert set(figures) == {"confusion_matrix", "precision_recall", "class_report", "example_predictions"}
    for figure in figures.values():
        import io

        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=30)
        assert Image.open(io.BytesIO(buffer.getvalue())).width > 60


# serving


def test_raw_pixels_are_answered_like_the_encoded_picture() -> None:
    samples = [picture(20, 30, 3, name=str(n)) for n in range(3)]
    task = learned(samples, image_size=16)
    encoded = task.preprocess(task.request(samples))["image"]
    from headrace_models.tasks.pictures import decode

    pixels = np.stack([np.asarray(decode(sample.payload)) for sample in samples])
    assert torch.equal(task.preprocess({"image": pixels})["image"], encoded)
    floats = encoded.numpy().astype(np.float32) / 255
    assert torch.equal(task.preprocess({"image": floats})["image"], encoded)


def test_the_signature_names_one_encoded_picture_a_row_and_its_alternatives() -> None:
    signature = learned([picture(8, 12, 3)]).signature()
    assert [spec.to_record() for spec in signature.inputs] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [[(s.datatype, s.shape) for s in specs] for specs in signature.alternatives] == [
        [("UINT8", (-1, -1, -1, 3))],
        [("FP32", (-1, 3, 8, 12))],
    ]
    assert [(s.name, s.datatype, s.shape) for s in signature.outputs] == [
        ("label", "BYTES", (-1,)),
        ("score", "FP32", (-1,)),
        ("probabilities", "FP32", (-1, 3)),
        ("top_labels", "BYTES", (-1, 3)),
        ("top_scores", "FP32", (-1, 3)),
    ]


def test_answers_have_the_signatures_shapes_and_agree_with_each_other() -> None:
    task = learned([picture(8, 8)])
    answer = task.postprocess(torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.0, 5.0]]), {})
    assert answer["label"].tolist() == ["cat", "eel"]
    assert answer["label"].dtype == object
    assert answer["probabilities"].dtype == answer["score"].dtype == np.float32
    assert np.array_equal(answer["score"], answer["probabilities"].max(axis=1))
    assert answer["probabilities"].sum(axis=1) == pytest.approx([1, 1])
    assert answer["top_labels"].tolist() == [["cat", "eel", "dog"], ["eel", "cat", "dog"]]
    assert answer["top_scores"].dtype == np.float32
    assert np.array_equal(answer["top_scores"], -np.sort(-answer["probabilities"], axis=1))


def test_of_many_classes_the_five_likeliest_are_told_by_name() -> None:
    classes = tuple(f"c{n:02}" for n in range(40))
    task = build_task({"name": "image-classification"}, Schema("label", classes))
    scores = torch.from_numpy(RANDOM.normal(size=(64, 40))).float()
    answer = task.postprocess(scores, {})
    wanted = np.argsort(-scores.numpy(), axis=1)[:, :5]
    assert answer["top_labels"].tolist() == [[classes[place] for place in row] for row in wanted]
    assert answer["label"].tolist() == answer["top_labels"][:, 0].tolist()
    assert answer["top_scores"] == pytest.approx(np.take_along_axis(answer["probabilities"], wanted, axis=1))


@pytest.mark.parametrize("classes", [4, 10, 40])
def test_of_equally_likely_classes_the_answer_tells_the_one_that_is_judged(classes: int) -> None:
    names = tuple(f"c{n:02}" for n in range(classes))
    task = build_task({"name": "image-classification"}, Schema("label", names))
    votes = np.random.default_rng(1).multinomial(5, [1 / classes] * classes, size=300)
    scores = torch.from_numpy((votes + 1 / classes) / 6).float().log()  # shares of five neighbours' votes
    near = torch.full((1, classes), 1.0)
    near[0, -1] += 2**-23  # less than probabilities of float32 can tell
    scores = torch.cat([scores, near])
    answer = task.postprocess(scores, {})
    for row, label in enumerate(answer["label"]):
        metrics = task.new_metrics()
        metrics.update(scores[row : row + 1], {"label": torch.tensor([0])})
        assert isinstance(metrics, ClassificationMetrics)
        assert label == names[int(metrics.confusion[0].argmax())]
    assert answer["label"].tolist() == [names[place] for place in scores.argmax(dim=1).tolist()]
    assert answer["label"].tolist() == answer["top_labels"][:, 0].tolist()
    wanted = np.argsort(-votes, axis=1, kind="stable")[:, :5]
    assert answer["top_labels"][:300].tolist() == [[names[place] for place in row] for row in wanted]


def objects(*values: Any) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "wanted is one named 'image'"),
        ({"picture": objects(b"x")}, "wanted is one named 'image'"),
        ({"image": objects()}, "holds no picture"),
        ({"image": objects(b"nonsense")}, "picture 0: the data is not a picture"),
        ({"image": objects("text")}, "picture 0 is a str"),
        ({"image": np.zeros((1, 8, 8), np.uint8)}, "[batch, height, width, 1 or 3]; given is [1, 8, 8]"),
        ({"image": np.zeros((1, 8, 8, 4), np.uint8)}, "1 or 3"),
        ({"image": np.zeros((1, 1, 9, 8), np.float32)}, "[batch, 1, 8, 8]; given is [1, 1, 9, 8]"),
        ({"image": np.full((1, 1, 8, 8), 2, np.float32)}, "from 0 to 1"),
        ({"image": np.full((1, 1, 8, 8), np.nan, np.float32)}, "from 0 to 1"),
        ({"image": np.zeros((1, 1, 8, 8), np.int64)}, "int64; allowed: BYTES"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_in_a_sentence(inputs: Any, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        learned([picture(8, 8)]).preprocess(inputs)
    assert message in str(raised.value)


def test_wrong_arguments_are_findings() -> None:
    with pytest.raises(SpecInvalid):
        build_task({"name": "image-classification", "args": {"size": 8}}, SCHEMA)
    with pytest.raises(InvalidInput, match="no task called"):
        build_task({"name": "image-clasification"}, SCHEMA)


def test_balanced_weights_come_from_the_training_split() -> None:
    task = learned([picture(8, 8, label="cat")] * 3 + [picture(8, 8, label="dog")])
    loss = build_loss("cross-entropy", {"class_weights": "balanced"}, task)
    assert loss.weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0])
