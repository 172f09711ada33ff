"""The `tune` part: its short forms, its trials, and its mistakes at their places."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.base.errors import SpecInvalid
from headrace.spec import load_spec
from headrace.spec.parts import step_parts
from headrace.spec.tuning import trials, with_overrides

LR = {"loguniform": [1e-4, 1e-1]}


def spec(**tune: Any) -> dict[str, Any]:
    tune.setdefault("space", {"train.optimizer.lr": LR})
    data = {"source": "builtin:digits"}
    return {"name": "t", "task": "image-classification", "data": data, "model": "resnet8", "tune": tune}


def tuned(**tune: Any) -> dict[str, Any]:
    record: dict[str, Any] = load_spec(spec(**tune)).to_record()["tune"]
    return record


def test_the_short_form_has_its_canonical_one() -> None:
    record = load_spec(spec(samples=3, space={"train.optimizer.lr": LR, "model.width": [4, 8]})).to_record()
    assert record["tune"] == {
        "metric": None,
        "search": "random",
        "samples": 3,
        "scheduler": "none",
        "grace_epochs": 1,
        "reduction_factor": 3,
        "concurrent": 1,
        "seed": 0,
        "space": {
            "train.optimizer.args.lr": {"draw": "loguniform", "values": [1e-4, 1e-1]},
            "model.args.width": {"draw": "choice", "values": [4, 8]},
        },
    }
    assert load_spec(record).to_record() == record
    long = spec(samples=3, space={"train.optimizer.args.lr": LR, "model.args.width": [4, 8]})
    assert load_spec(long).sha256 == load_spec(record).sha256


def test_only_a_run_that_searches_has_it_in_its_train_part() -> None:
    plain = load_spec({key: value for key, value in spec().items() if key != "tune"})
    assert "tune" not in (step_parts(plain.to_record())["train"] or {})
    assert "tune" in (step_parts(load_spec(spec()).to_record())["train"] or {})


def test_a_grid_has_each_combination_once() -> None:
    found = trials(tuned(search="grid", space={"train.seed": [1, 2], "train.optimizer.lr": [0.1, 0.2, 0.2]}))
    assert found == [
        {"train.optimizer.args.lr": lr, "train.seed": seed} for lr, seed in ((0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2))
    ]


def test_draws_stay_when_there_are_more_of_them_and_change_with_the_seed() -> None:
    space = {"train.optimizer.lr": LR, "train.batch_size": {"integers": [16, 64]}, "train.clip_norm": [None, 1.0]}
    few, many = (trials(tuned(samples=count, space=space)) for count in (4, 200))
    assert many[:4] == few
    assert trials(tuned(samples=4, seed=1, space=space)) != few
    rates = sorted(one["train.optimizer.args.lr"] for one in many)
    assert 1e-4 <= rates[0] < 3e-4
    assert 3e-2 < rates[-1] <= 1e-1
    assert sum(rate < 10**-2.5 for rate in rates) == pytest.approx(100, abs=30)  # half of them below the middle
    assert {one["train.batch_size"] for one in many} == set(range(16, 65)) & {one["train.batch_size"] for one in many}
    assert {one["train.clip_norm"] for one in many} == {None, 1.0}


def test_overrides_go_to_their_places_and_leave_the_record_as_it_was() -> None:
    record = {"train": {"losses": [{"weight": 1.0}], "early_stop": None}}
    changed = with_overrides(record, {"train.losses.0.weight": 0.5, "train.early_stop.patience": 3})
    assert changed == {"train": {"losses": [{"weight": 0.5}], "early_stop": {"patience": 3}}}
    assert record["train"]["losses"] == [{"weight": 1.0}]


@pytest.mark.parametrize(
    ("tune", "where", "told"),
    [
        ({"space": {"train.optimizer.lrr": LR}}, "tune.space.train.optimizer.lrr", "lr"),
        ({"space": {"train.optimiser.lr": LR}}, "tune.space.train.optimiser.lr", "optimizer"),
        ({"space": {"model.widht": [4]}}, "tune.space.model.widht", "width"),
        ({"space": {"train.optimizer.lr": [0.1, -1]}}, "tune.space.train.optimizer.lr", "above 0"),
        ({"space": {"train.optimizer.name": ["adam", "adm"]}}, "tune.space.train.optimizer.name", "adam"),
        ({"space": {"train.batch_size": {"uniform": [16, 64]}}}, "tune.space.train.batch_size", "a whole number"),
        ({"space": {"train.workers.max": [1, 2]}}, "tune.space.train.workers.max", "below train"),
        ({"space": {"data.label": ["a"]}}, "tune.space.data.label", "below train or model.args"),
        ({"space": {"train.ema_decay": {"loguniform": [0, 1]}}}, "tune.space.train.ema_decay.loguniform", "above 0"),
        ({"space": {"train.ema_decay": {"uniform": [2, 1]}}}, "tune.space.train.ema_decay.uniform", "smaller first"),
        ({"space": {"train.seed": {"integers": [1.5, 2]}}}, "tune.space.train.seed.integers", "whole numbers"),
        ({"space": {"train.ema_decay": {"lognormal": [1, 2]}}}, "tune.space.train.ema_decay.lognormal", "loguniform"),
        ({"space": {"train.optimizer.lr": 0.1}}, "tune.space.train.optimizer.lr", "a mapping"),
        ({"space": {"train.optimizer.lr": []}}, "tune.space.train.optimizer.lr", "a list"),
        ({"space": {}}, "tune.space", "a mapping"),
        ({"search": "grid"}, "tune.space.train.optimizer.lr.loguniform", "a list of values"),
        ({"search": "bayes"}, "tune.search", "random"),
        ({"metric": "acuracy"}, "tune.metric", "accuracy"),
        ({"samples": 0}, "tune.samples", "from 1 to 1000"),
        ({"sample": 4}, "tune.sample", "samples"),
        ({"scheduler": "asah"}, "tune.scheduler", "asha"),
        ({"search": "grid", "space": {"train.seed": list(range(1001))}}, "tune.space", "at most 1,000"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_place(tune: dict[str, Any], where: str, told: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load_spec(spec(**tune))
    (finding,) = caught.value.findings
    assert finding.where == where
    assert told in finding.allowed


def test_settings_that_do_not_go_together_are_found_in_the_trial_that_has_them() -> None:
    given = spec() | {"train": {"workers": 4}}
    given["tune"] = {"search": "grid", "space": {"train.batch_size": [3, 64]}}
    with pytest.raises(SpecInvalid) as caught:
        load_spec(given)
    (finding,) = caught.value.findings
    assert finding.where == "tune.space.train.batch_size"
    assert "4" in finding.allowed


def test_trials_need_a_validation_share() -> None:
    given = spec()
    given["data"]["split"] = {"train": 0.8, "validation": 0, "test": 0.2}
    with pytest.raises(SpecInvalid) as caught:
        load_spec(given)
    assert [finding.where for finding in caught.value.findings] == ["data.split.validation"]


def test_a_search_is_not_for_a_cluster_yet() -> None:
    with pytest.raises(SpecInvalid) as caught:
        load_spec(spec(), target="east")
    assert [finding.where for finding in caught.value.findings] == ["tune"]
