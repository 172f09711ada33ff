"""A plan says what a run would do; what cannot be known says what to install."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.cli.plan_report import INSTALL, render_plan

PLAN: dict[str, Any] = {
    "schema_version": 1,
    "name": "digits",
    "steps": [
        {"name": "split", "state": "cached", "why": "split before"},
        {"name": "train", "state": "run", "why": "not trained yet"},
        {"name": "register", "state": "run", "why": "no version yet"},
        {"name": "deploy", "state": "run", "why": "does not answer yet"},
    ],
    "data": {"source": "/pics", "format": "image-folder", "samples": 1500, "bytes": 2048},
    "model": {"name": "resnet8", "args": {"width": 8}},
    "workers": {
        "asked": {"min": 1, "max": 2},
        "there": 2,
        "cpus_per_worker": 1.0,
        "gpus_per_worker": 0.0,
        "cpus": 2,
        "gpus": 0,
    },
    "alias": {"name": "digits", "alias": "champion", "before": "3", "after": "new"},
    "endpoint": {"name": "front", "url": "http://h/front", "before": "none", "after": "4"},
}


def test_a_plan_is_told_step_by_step_with_what_changes() -> None:
    assert render_plan(PLAN).splitlines() == [
        "STEP      STATE   WHY",
        "split     cached  split before",
        "train     run     not trained yet",
        "register  run     no version yet",
        "deploy    run     does not answer yet",
        "",
        "data      /pics (image-folder): 2.0 KiB, 1,500 samples",
        "model     resnet8(width=8)",
        "workers   1 to 2 asked, 1 CPUs and 0 GPUs each; 2 CPUs and 0 GPUs are there, enough for 2",
        "alias     champion of digits: version 3 -> a new version",
        "endpoint  front: nothing -> version 4  (http://h/front)",
    ]


def test_what_is_not_known_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cli.plan_report.find_spec", lambda name: None)
    unknown = {
        **PLAN,
        "steps": [{"name": "split", "state": None, "why": "x"}],
        "data": {"source": "builtin:digits", "format": "image-folder", "samples": None, "bytes": None},
        "alias": {"name": "digits", "alias": "champion", "before": None, "after": None},
        "endpoint": None,
    }
    shown = render_plan(unknown)
    assert shown.count(f"unknown ({INSTALL})") == 4
    assert "endpoint" not in shown
