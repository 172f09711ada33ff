"""Every tool of the training toolbox can be named in a spec, and a wrong name lists the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import SpecInvalid
from headrace.spec import load_spec
from headrace_models import catalog

NEEDED = {"multi-step": {"milestones": [1]}}


SOURCES = {
    "image-classification": "builtin:digits",
    "object-detection": "builtin:shapes",
    "object-tracking": "builtin:shape-tracks",
    "semantic-segmentation": "builtin:digit-scenes",
}
WITHOUT_A_TASK = {"ctc"}  # losses that wait for a task of this release: those of sequences


def spec(folder: Path, task: str = "image-classification", model: Any = None, **train: Any) -> dict[str, Any]:
    card = catalog.tasks()[task]
    data = {"source": SOURCES.get(task), "format": card.default_format or card.formats[0]}
    if task not in SOURCES:
        (folder / "t.csv").write_text("a,b\n1,2\n")
        data |= {"source": str(folder / "t.csv"), "label": "b"}
    return {"name": "toolbox", "task": task, "data": data, "model": model or card.default_model, "train": train}


@pytest.mark.parametrize(
    ("part", "name"),
    [(part, name) for part in ("optimizer", "schedule") for name in catalog.table(part)],  # type: ignore[arg-type]
)
def test_every_optimizer_and_schedule_can_be_named(tmp_path: Path, part: str, name: str) -> None:
    given = {"name": name, **NEEDED.get(name, {})}
    record = load_spec(spec(tmp_path, model="resnet8", **{part: given})).to_record()
    assert record["train"][part]["name"] == name


@pytest.mark.parametrize(
    ("task", "name"), [(card.name, loss) for card in catalog.tasks().values() for loss in card.losses]
)
def test_every_loss_of_a_task_can_be_named(tmp_path: Path, task: str, name: str) -> None:
    record = load_spec(spec(tmp_path, task, loss=name)).to_record()
    assert [(loss["task"], loss["name"]) for loss in record["train"]["losses"]] == [(task, name)]


def test_every_loss_is_one_of_a_tasks() -> None:
    taken = {loss for card in catalog.tasks().values() for loss in card.losses}
    assert set(catalog.losses()) - taken == WITHOUT_A_TASK


@pytest.mark.parametrize(
    "model", [card.name for card in catalog.models().values() if "activation" in card.args.model_fields]
)
def test_every_model_that_has_activations_takes_them_by_name(tmp_path: Path, model: str) -> None:
    card = catalog.models()[model]
    for name in catalog.activations():
        given = spec(tmp_path, card.tasks[-1], {"name": model, "activation": name})
        if card.together:
            given["task"] = list(card.tasks)
        if card.proposals:
            given["task"] = {"name": card.tasks[0], "proposals": "selective-search"}
            given["data"] = {"source": "builtin:shapes", "format": "voc"}
        assert load_spec(given).to_record()["model"]["args"]["activation"] == name


SWITCHES: dict[str, Any] = {
    "clip_norm": 1.0,
    "accumulate_steps": 2,
    "ema_decay": 0.99,
    "precision": "bfloat16",
    "early_stop": {"metric": "accuracy", "patience": 3, "min_delta": 0.001},
    "compile": True,
    "sync_batch_norm": True,
    "parallel": "ddp",
    "loss": {"name": "cross-entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_of_the_training_can_be_set(tmp_path: Path, name: str) -> None:
    train = load_spec(spec(tmp_path, **{name: SWITCHES[name]})).to_record()["train"]
    if name == "loss":
        assert train["losses"][0]["args"] == {"label_smoothing": 0.1, "class_weights": "balanced"}
    else:
        assert train[name] == SWITCHES[name]


@pytest.mark.parametrize(
    ("given", "where", "meant"),
    [
        ({"clip_nrom": 1.0}, "train.clip_nrom", "clip_norm"),
        ({"acumulate_steps": 2}, "train.acumulate_steps", "accumulate_steps"),
        ({"ema": 0.9}, "train.ema", "ema_decay"),
        ({"precision": "bf16"}, "train.precision", "bfloat16"),
        ({"precision": "floatt16"}, "train.precision", "float16"),
        ({"early_stopp": {}}, "train.early_stopp", "early_stop"),
        ({"compiled": True}, "train.compiled", "compile"),
        ({"synch_batchnorm": True}, "train.synch_batchnorm", "sync_batch_norm"),
        ({"parallel": "fsdp2"}, "train.parallel", "fsdp"),
        ({"loss": {"name": "cross-entropy", "label_smothing": 0.1}}, "train.loss.label_smothing", "label_smoothing"),
        ({"loss": {"name": "cross-entropy", "class_weight": "balanced"}}, "train.loss.class_weight", "class_weights"),
    ],
)
def test_a_misspelt_switch_suggests_the_one_that_was_meant(
    tmp_path: Path, given: dict[str, Any], where: str, meant: str
) -> None:
    with pytest.raises(SpecInvalid) as caught:
        load_spec(spec(tmp_path, **given))
    (finding,) = caught.value.findings
    assert finding.where == where
    assert finding.allowed.split(", ")[0] == meant, finding


@pytest.mark.parametrize("name", catalog.activations())
def test_a_wrong_activation_is_told_with_the_nearest_first(tmp_path: Path, name: str) -> None:
    wrong = f"{name[:-1]}{name[-1] * 2}"
    with pytest.raises(SpecInvalid) as caught:
        load_spec(spec(tmp_path, model={"name": "resnet8", "activation": wrong}))
    (finding,) = caught.value.findings
    assert finding.where == "model.activation"
    assert finding.allowed.split(", ")[0] == name
    assert finding.action == f"write `{name}`"


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


def test_early_stop_needs_a_validation_share(tmp_path: Path) -> None:
    given = spec(tmp_path, early_stop={"patience": 2})
    given["data"]["split"] = {"train": 0.8, "validation": 0, "test": 0.2}
    with pytest.raises(SpecInvalid) as caught:
        load_spec(given)
    assert [finding.where for finding in caught.value.findings] == ["data.split.validation"]
    given["train"] = {}
    assert load_spec(given).data.split.validation == 0
