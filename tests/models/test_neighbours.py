"""k-nearest neighbours: held to scikit-learn's on the same features, and on digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import zoo
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from headrace.base.errors import InvalidInput
from headrace.training.batches import share_out
from headrace.training.components import make_learner, make_objective
from headrace.training.progress import Teller
from headrace_models.catalog import arguments, get
from headrace_models.classification.neighbours import SPARE, NearestNeighbours, free_memory
from headrace_models.layers.counting import Statistics
from headrace_models.package import load_package, write_package


def taught(pictures: Tensor, label: Tensor, **args: Any) -> NearestNeighbours:
    """A network that has seen PICTURES in two batches."""
    given = arguments(get("model", "nearest-neighbours"), args).model_dump()
    model = NearestNeighbours(4, 1, (8, 8), **given).eval()
    half = len(pictures) // 2
    model.begin(len(pictures))
    parts = [
        model.accumulate((pictures[part],), {"label": label[part]}) for part in (slice(None, half), slice(half, None))
    ]
    model.maximize(
        Statistics(
            {name: parts[0].sums[name] + parts[1].sums[name] for name in parts[0].sums},
            {name: torch.cat([part.kept[name] for part in parts]) for name in parts[0].kept},
        )
    )
    return model


def random_pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5])
def test_votes_are_those_of_scikit_learn_on_the_same_features(k: int, distance: str, weights: str) -> None:
    """Its probabilities are the votes' shares; ours are smoothed, which is undone here. Some queries were kept."""
    pictures, label = random_pictures(60)
    model = taught(pictures, label, k=k, distance=distance, weights=weights, features=["hog", "lbp"], smoothing=2.0)
    queries = torch.cat([random_pictures(40, seed=1)[0], pictures[:5]])
    vector = model.features(pictures).double()
    mean, std = vector.mean(dim=0), (vector.var(dim=0, correction=0) + 1e-4).sqrt()
    oracle = KNeighborsClassifier(k, weights=weights, metric=distance, algorithm="brute")
    oracle.fit(((vector - mean) / std).numpy(), label.numpy())
    wanted = oracle.predict_proba(((model.features(queries).double() - mean) / std).numpy())
    shares = model(queries).softmax(dim=1)
    plain = (shares * (k + 2.0) - 2.0 / 4) / k
    if weights == "distance":  # a picture that was kept is at distance 0, in single precision up to rounding
        assert plain[-5:].argmax(dim=1).tolist() == label[:5].tolist()
        plain, wanted = plain[:-5], wanted[:-5]
    assert plain.numpy() == pytest.approx(wanted, abs=2e-3)


def test_outputs_are_logarithms_of_shares_that_sum_to_one_and_are_never_zero() -> None:
    pictures, label = random_pictures(30)
    outputs = taught(pictures, label, k=3, smoothing=1.0)(pictures)
    assert outputs.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 30)
    assert torch.allclose(outputs.softmax(dim=1), outputs.exp())
    assert float(outputs.exp().min()) == pytest.approx(0.25 / 4)  # none of three votes, and a quarter of one more


def test_samples_at_distance_zero_alone_vote_by_distance() -> None:
    pictures, _ = random_pictures(12)
    pictures[1] = pictures[0]
    label = torch.tensor([2, 3] + [0] * 10)
    model = taught(pictures, label, k=4, weights="distance", smoothing=1.0)
    assert (model(pictures[:1]).exp() * 5 - 0.25)[0].tolist() == pytest.approx([0, 0, 2, 2], abs=1e-4)


def test_what_is_kept_does_not_depend_on_the_order_of_the_samples() -> None:
    pictures, label = random_pictures(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    one, other = taught(pictures, label), taught(pictures[order], label[order])
    assert torch.equal(one.label, other.label)
    torch.testing.assert_close(one.bank, other.bank, rtol=1e-5, atol=1e-5)
    assert not torch.equal(one.bank, one._scaled(one.features(pictures)))


def test_many_queries_are_answered_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, label = random_pictures(30)
    model = taught(pictures, label)
    queries, _ = random_pictures(9, seed=2)
    whole = model(queries)
    near, rows = model.nearest, list[int]()

    def nearest(query: Tensor) -> tuple[Tensor, Tensor]:
        rows.append(len(query))
        return near(query)

    monkeypatch.setattr(model, "nearest", nearest)
    candidates = (model.k + SPARE) * model.features.size
    for entries, most in ((30 * 2, 1), (candidates * 4, 4)):  # the table alone would let 2 and more pass at once
        monkeypatch.setattr("headrace_models.classification.neighbours.ENTRIES", entries)
        rows.clear()
        assert torch.allclose(model(queries), whole)
        assert max(rows) == most


def test_more_than_the_memory_holds_is_refused_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NearestNeighbours(4, 1, (8, 8))
    wanted = 5 * 4 * 1000 * model.features.size
    monkeypatch.setattr("headrace_models.classification.neighbours.free_memory", lambda: wanted)
    model.begin(1000)
    with pytest.raises(InvalidInput, match=r"GB on each worker .* from 1,001 samples") as raised:
        model.begin(1001)
    assert "task.image_size" in raised.value.action


def test_the_memory_that_is_free_is_the_machines_or_what_its_container_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory().total
    for limit, least, most in (("max", 1, available), ("1000", 0, 0), (str(1 << 60), 1, available)):
        monkeypatch.setattr(Path, "read_text", lambda self, limit=limit: f"{limit}\n")
        assert least <= free_memory() <= most


@pytest.mark.parametrize(
    ("count", "args", "words", "action"),
    [
        (30, {"most_samples": 29}, "would keep 30 training samples .*most_samples is 29", "raise model.args.most_samp"),
        (4, {"k": 5}, "model.args.k is 5, and there are 4 training samples", "lower model.args.k to 4 or less"),
    ],
)
def test_too_many_or_too_few_samples_are_refused_before_the_first_is_read(
    digits: Any, learned: Any, count: int, args: dict[str, Any], words: str, action: str
) -> None:
    training, _, schema = digits
    task = learned("image-classification", training, schema)
    settings = zoo.example("features-knn")["train"]
    model = NearestNeighbours(10, 1, (8, 8), **args)
    schedule = share_out(4, [count])
    objective = make_objective(settings, task, zoo.ALONE.device)
    learner = make_learner(settings, model, objective, zoo.ALONE, schedule, own_code=False)
    unread = iter([])
    with pytest.raises(InvalidInput, match=words) as raised:
        learner.epoch(1, unread, schedule, Teller(speaks=False), 1)
    assert action in raised.value.action


def test_neighbours_read_digits_and_a_package_holds_them(digits: Any, tmp_path: Path) -> None:
    training, test, _ = digits
    spec = zoo.example("features-knn")
    done = zoo.train(spec, *digits)
    assert done.metrics["accuracy"] >= 0.97  # measured: .978
    assert done.metrics["log_loss"] < 0.3  # measured: .241
    assert done.losses == [None]
    sha256 = write_package(
        tmp_path / "package",
        task=done.task,
        model=done.model,
        model_record=spec["model"],
        code_folder=None,
        provenance={},
        example=done.task.request(test[:1]),
    )
    package = load_package(tmp_path / "package")
    assert package.sha256 == sha256
    bank: Tensor = package.model.bank  # type: ignore[assignment]
    assert len(bank) == len(training)
    answer = package.predict(done.task.request(test[:20]))
    rows = done.task.collate([done.task.decode(sample) for sample in test[:20]])
    shares = done.model(*done.task.inputs(rows)).exp()
    assert answer["probabilities"] == pytest.approx(shares.numpy(), abs=1e-6)
    assert answer["label"].tolist() == [str(place) for place in np.asarray(shares.argmax(dim=1)).tolist()]
