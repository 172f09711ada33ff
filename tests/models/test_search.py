"""ASHA as a search has it: it stops who falls behind, and nobody who has trained all epochs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.training.search_driver import _scheduler


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
