"""ASHA as a search has it: it stops who falls behind, and nobody who has trained all epochs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.training.search_driver import RAY_TUNE, _scheduler


@pytest.mark.parametrize("epochs", [3, 9, 10])
def test_who_has_trained_all_epochs_is_not_stopped(epochs: int) -> None:
    """Also where the last epoch is a rung: 9 = 1 * 3 * 3."""
    search: dict[str, Any] = {
        "scheduler": "asha",
        "mode": "max",
        "epochs": epochs,
        "grace_epochs": 1,
        "reduction_factor": 3,
    }
    scheduler = _scheduler(search)
    said: dict[int, set[str]] = {}
    for quality in (9, 8, 7, 3, 2, 1):  # the best first, so that the others fall behind
        trial = SimpleNamespace(trial_id=str(quality), config={}, stub=True)
        scheduler.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            answer = scheduler.on_trial_result(
                None, trial, {"epoch": epoch, "value": float(quality), "training_iteration": epoch}
            )
            said.setdefault(epoch, set()).add(answer)
    assert said[epochs] == {"CONTINUE"}
    assert "STOP" in said[1]


def test_without_a_scheduler_nobody_is_stopped() -> None:
    assert _scheduler({"scheduler": "none"}) is None


def test_a_trial_that_ends_without_a_metric_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose loss is no number in its first epoch; Ray Tune by itself raises for it, and all trials are lost."""
    from ray.tune.execution.tune_controller import TuneController

    asha = _scheduler({"scheduler": "asha", "mode": "max", "epochs": 3, "grace_epochs": 1, "reduction_factor": 2})
    controller: Any = SimpleNamespace(_metric=None, _scheduler_alg=asha, _search_alg=SimpleNamespace(metric=None))
    ended = {"done": True, "trial_id": "1", "config/trial": 0, "config/scratch": "/tmp"}
    for name in RAY_TUNE:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="did not include the specified metric"):
        TuneController._validate_result_metrics(controller, ended)
    for name, value in RAY_TUNE.items():
        monkeypatch.setenv(name, value)
    TuneController._validate_result_metrics(controller, ended)
    asha.on_trial_complete(None, SimpleNamespace(trial_id="1"), ended)
