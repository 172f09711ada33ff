"""The table that `make zoo` writes: what counts as reached, and that the committed one has every system."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo_table", ROOT / "examples" / "zoo_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(spec: str = "vgg11", **more: Any) -> dict[str, Any]:
    return {
        "spec": spec,
        "tasks": ["image-classification"],
        "model": "vgg11",
        "data": "builtin:digits",
        "at": "2026-11-26T12:00:00+00:00",
        "machine": "2 cores",
        "load": 0.4,
        "commit": "abc",
        "metrics": {"accuracy": 0.981, "macro_f1": 0.98},
        "parameters": 544474,
        "trained_on": 1258,
        "steps": 120,
        "train_seconds": 20.4,
        "run_seconds": 31.2,
        "version": "vgg11 1",
        "answer": "label 9",
        "answered_rows": 8,
        **more,
    }


def test_a_row_says_what_was_reached_and_what_was_to_be(table: ModuleType) -> None:
    line = table.page([row()]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:9] == [
        "544,474",
        "builtin:digits, 1,258",
        "120",
        "20 (31)",
        "0.4",
        "accuracy 0.981",
        "accuracy ≥ 0.97",
    ]
    assert cells[-2:] == ["8 rows; the first: label 9", "abc"]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (row(), False),
        (row(metrics={"accuracy": 0.969}), True),
        (row(metrics={"accuracy": float("nan")}), True),
        (row("resnet8", metrics={"accuracy": 0.975}), True),  # its own figure goes before that of its data
        (row("bccd-rcnn", data="../BCCD", metrics={"map50": 0.5}, tasks=["object-detection"]), False),
        (row(error="the gate refused the model"), True),
        (row("bccd-yolo", left_out="not here"), False),
        (row("unet", data="builtin:digit-scenes", metrics={"iou": 0.1}, tasks=["semantic-segmentation"]), False),
    ],
)
def test_what_falls_short_is_wrong(table: ModuleType, given: dict[str, Any], wrong: bool) -> None:
    assert table.is_wrong(given) is wrong
    assert ("**" in table.page([given]).splitlines()[-1]) is wrong


def test_the_committed_table_has_every_system_of_the_zoo_and_none_that_failed(table: ModuleType) -> None:
    rows = table.kept()
    assert [row["spec"] for row in rows] == [path.stem for path in table.chosen([])]
    assert not [row["spec"] for row in rows if table.is_wrong(row)]
    stale = [row["spec"] for row in rows if row["learns"] != table.learns(table.SPECS / f"{row['spec']}.yaml")]
    assert not stale, f"other specs than when the table was made; run: make zoo ONLY='{' '.join(stale)}'"
    assert (ROOT / "docs" / "models" / "zoo.md").read_text(encoding="utf-8") == table.page(rows)


def test_a_row_replaces_the_older_one_and_one_that_is_left_out_none(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "KEPT", tmp_path / "zoo.json")
    table.keep(row(load=1.0))
    table.keep(row("unet", left_out="no data"))
    table.keep(row(load=2.0))
    table.keep({"spec": "vgg11", "left_out": "no data"})
    table.keep(row("a-spec-that-is-gone"))
    assert [(each["spec"], each["load"]) for each in table.kept()] == [("unet", 0.4), ("vgg11", 2.0)]


def test_an_unknown_spec_is_told_with_those_there_are(table: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"no spec yollo .*there are: .*yolo"):
        table.chosen(["yollo"])
