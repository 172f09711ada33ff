"""Every tool of the training toolbox can be named in a spec, and a wrong name lists the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import SpecInvalid
from headrace.spec import load_spec
from headrace_models import catalog

NEEDED = {"multi-step": {"milestones": [1]}}


def spec(folder: Path, task: str = "image-classification", model: Any = "mlp", **train: Any) -> dict[str, Any]:
    data = {"source": "builtin:digits"}
    if task.startswith("tabular"):
        (folder / "t.csv").write_text("a,b\n1,2\n")
        data = {"source": str(folder / "t.csv"), "format": "csv", "label": "b"}
        model = "mlp"
    return {"name": "toolbox", "task": task, "data": data, "model": model, "train": train}


@pytest.mark.parametrize(
    ("part", "name"),
    [(part, name) for part in ("optimizer", "schedule") for name in catalog.table(part)],  # type: ignore[arg-type]
)
def test_every_optimizer_and_schedule_can_be_named(tmp_path: Path, part: str, name: str) -> None:
    given = {"name": name, **NEEDED.get(name, {})}
    record = load_spec(spec(tmp_path, model="resnet8", **{part: given})).to_record()
    assert record["train"][part]["name"] == name


@pytest.mark.parametrize("task", ["image-classification", "tabular-classification", "tabular-regression"])
def test_every_loss_of_a_task_can_be_named(tmp_path: Path, task: str) -> None:
    for name in catalog.tasks()[task].losses:
        record = load_spec(spec(tmp_path, task, "resnet8", loss=name)).to_record()
        assert record["train"]["losses"][0]["name"] == name


@pytest.mark.parametrize("name", catalog.activations())
def test_every_activation_can_be_named(tmp_path: Path, name: str) -> None:
    given = spec(tmp_path, model={"name": "resnet8", "activation": name})
    assert load_spec(given).to_record()["model"]["args"]["activation"] == name


@pytest.mark.parametrize("kind", ["optimizer", "schedule", "loss"])
def test_a_wrong_name_is_told_with_the_nearest_first(tmp_path: Path, kind: str) -> None:
    for name in catalog.table(kind):  # type: ignore[call-overload]
        wrong = f"{name[:-1]}{name[-1] * 2}"  # a letter too many
        with pytest.raises(SpecInvalid) as caught:
            load_spec(spec(tmp_path, model="resnet8", **{kind: wrong}))
        (finding,) = caught.value.findings
        assert finding.where == f"train.{kind}"
        assert finding.allowed.split(", ")[0] == name
        assert finding.action == f"write `{name}`"
