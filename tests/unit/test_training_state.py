"""The best epoch, early stopping, the moving average, checkpoints, initial weights: what a training keeps in mind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace.store import Store
from headrace.training.checkpoint import (
    random_states,
    read_checkpoint,
    seed_everything,
    set_random_states,
    write_checkpoint,
)
from headrace.training.checkpoint_folder import SNAPSHOT, committed, remove_uncommitted
from headrace.training.initialise import freeze, frozen_names, load_weights, match_weights
from headrace.training.state import MovingAverage, Watched, best_epoch, should_stop, watched, weights_of

ACCURACY = Watched("validation.accuracy", "max")


def history(*values: float | None, name: str = "validation.accuracy") -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "metrics": {} if value is None else {name: value}}
        for epoch, value in enumerate(values, start=1)
    ]


def test_the_best_epoch_is_the_earliest_of_the_best() -> None:
    assert best_epoch(history(0.5, 0.9, 0.9, 0.7), ACCURACY) == 2
    assert best_epoch(history(3.0, 1.0, 2.0, name="validation.rmse"), Watched("validation.rmse", "min")) == 2


def test_without_a_validation_split_the_last_epoch_is_the_best() -> None:
    assert best_epoch(history(None, None, None), ACCURACY) == 3
    assert best_epoch([], ACCURACY) == 0


def test_training_stops_after_patience_epochs_that_were_no_better_by_enough() -> None:
    assert not should_stop(history(0.5, 0.6, 0.6), ACCURACY, patience=2, min_delta=0.0)
    assert should_stop(history(0.5, 0.6, 0.6, 0.6), ACCURACY, patience=2, min_delta=0.0)
    assert should_stop(history(0.5, 0.51, 0.52), ACCURACY, patience=2, min_delta=0.05)
    assert not should_stop(history(None, None, None), ACCURACY, patience=1, min_delta=0.0)


def test_a_watched_metric_goes_by_the_cards_direction_and_a_loss_down() -> None:
    directions: dict[str, Any] = {"accuracy": "max", "log_loss": "min"}
    assert watched(None, directions, "accuracy") == ACCURACY
    assert watched("validation.loss", directions, "accuracy") == Watched("validation.loss", "min")
    assert watched("log_loss", directions, "accuracy") == Watched("validation.log_loss", "min")


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def test_the_moving_average_follows_the_weights_and_survives_a_checkpoint(tmp_path: Path) -> None:
    model = net()
    average = MovingAverage(model, decay=0.5)
    start = weights_of(model)["0.weight"].clone()
    with torch.no_grad():
        model[0].weight += 1.0  # type: ignore[index, operator]
    average.update(model)
    averaged = net()
    average.copy_to(averaged)
    torch.testing.assert_close(weights_of(averaged)["0.weight"], start + 0.9)  # the first decay is 1 / 10

    write_checkpoint(tmp_path, weights_of(model), {"average": average.state()})
    other = MovingAverage(net(), decay=0.5)
    other.load(read_checkpoint(tmp_path)[1]["average"])
    assert other.updates == 1
    restored = net()
    other.copy_to(restored)
    assert all(torch.equal(value, averaged.state_dict()[name]) for name, value in restored.state_dict().items())


def test_a_checkpoint_holds_optimizer_schedule_and_random_states_and_is_read_without_pickled_code(
    tmp_path: Path,
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    seed_everything(5)
    random.gauss(0, 1)
    np.random.standard_normal()
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "random": [random_states()]}
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    write_checkpoint(tmp_path, weights_of(model), state)

    weights, loaded = read_checkpoint(tmp_path)
    assert weights.keys() == model.state_dict().keys()
    optimizer.load_state_dict(loaded["optimizer"])
    schedule.load_state_dict(loaded["schedule"])
    set_random_states(loaded["random"][0])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn
    assert schedule.get_last_lr() == [0.05]


def test_only_checkpoints_that_the_snapshot_names_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    uri = store.uri("runs", "r", "checkpoints")
    assert remove_uncommitted(store, uri) == []
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_torn"):
        store.write_bytes(f"{uri}/{name}/state.pt", b"")
    store.write_json(
        f"{uri}/{SNAPSHOT}",
        {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}, {"checkpoint_dir_name": "checkpoint_2"}]},
    )
    assert committed(store, uri) == ["checkpoint_1", "checkpoint_2"]
    assert remove_uncommitted(store, uri) == ["checkpoint_torn"]
    assert store.exists(f"{uri}/checkpoint_2/state.pt")
    assert store.exists(f"{uri}/{SNAPSHOT}")


def test_weights_are_matched_by_name_and_shape_and_what_was_not_taken_is_told() -> None:
    matching = match_weights({"a": (2,), "head": (10, 4), "new": (1,)}, {"a": (2,), "head": (1000, 4), "old": (3,)})
    assert (matching.loaded, matching.reshaped, matching.missing, matching.unused) == (
        ("a",),
        ("head",),
        ("new",),
        ("old",),
    )
    assert "1 weights loaded" in str(matching)
    assert "head" in str(matching)


def test_weights_start_from_a_file_a_package_or_what_was_saved_out_of_ddp(tmp_path: Path) -> None:
    source = net()
    save_file({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "model.safetensors")
    for uri in (str(tmp_path), str(tmp_path / "model.safetensors")):
        model = net()
        assert len(load_weights(model, uri).loaded) == len(source.state_dict())
        assert torch.equal(model.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_weights_that_cannot_be_read_or_of_which_none_fits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="init_from"):
        load_weights(net(), str(tmp_path / "nothing.safetensors"))
    (tmp_path / "torn.safetensors").write_bytes(b"\x00\x01")
    with pytest.raises(InvalidInput, match="init_from"):
        load_weights(net(), str(tmp_path / "torn.safetensors"))
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInput, match="none of the 1 weights"):
        load_weights(net(), str(tmp_path / "other.safetensors"))


def test_frozen_parameters_are_those_that_a_pattern_matches() -> None:
    model = net()
    freeze(model, ["0.*", "1.bias"])
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == [
        "0.weight",
        "0.bias",
        "1.bias",
    ]


def test_the_beginning_of_a_name_freezes_what_begins_so() -> None:
    names = ["layer1.0.weight", "layer1.0.bias", "layer10.weight", "head.weight"]
    assert frozen_names(names, ["layer1."]) == {"layer1.0.weight", "layer1.0.bias"}


def test_a_pattern_that_freezes_nothing_or_everything_is_a_finding() -> None:
    with pytest.raises(SpecInvalid) as raised:
        frozen_names(["backbone.weight", "head.weight"], ["backbon.*"])
    assert "backbone.weight" in raised.value.findings[0].action
    with pytest.raises(SpecInvalid, match="nothing is left"):
        frozen_names(["a", "b"], ["*"])
