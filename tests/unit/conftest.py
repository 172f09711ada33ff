"""What several unit tests of data need: a spec's split part, and a folder of small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.store import Store

Part = Callable[..., dict[str, Any]]


@pytest.fixture
def split_part() -> Part:
    """A maker of canonical split parts: `split_part(source, format="csv", strategy="hash", label="y")`."""

    def make(source: object, *, task: str | None = None, **given: Any) -> dict[str, Any]:
        split = {"strategy": "stratified", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 0}
        split |= {key: given.pop(key) for key in tuple(split) if key in given}
        part: dict[str, Any] = {"source": str(source), "format": "image-folder", "max_corrupt": 0.01, "split": split}
        part |= dict.fromkeys(("label", "features", "id", "group", "time")) | given
        default = "image-classification" if part["format"] == "image-folder" else "tabular-classification"
        return {**part, "tasks": [{"name": task or default, "args": {}}]}

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of this test's own."""
    return Store(str(tmp_path / "store"))
