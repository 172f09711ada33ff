"""The catalog is whole, torch-free and helpful with names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace_models import catalog

KINDS = ("task", "model", "activation", "loss", "optimizer", "schedule")

TORCH_BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "ray", "mlflow", "kfp", "numpy"}:
            raise AssertionError(f"imported {name}")
sys.meta_path.insert(0, Blocked())
"""


def run_with_torch_blocked(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TORCH_BLOCKED + code], capture_output=True, text=True, env=environment or None
    )


def test_the_catalog_and_the_reading_of_packages_import_no_torch() -> None:
    code = """
from headrace_models import catalog
from headrace_models.package import check_code, pack_code, read_package, mlflow_columns
from headrace_models.tasks import build_task
for kind in ("task", "model", "activation", "loss", "optimizer", "schedule"):
    for card in catalog.table(kind).values():
        card.args.model_json_schema()
"""
    done = run_with_torch_blocked(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_card_says_what_it_is(kind: catalog.registry.Kind) -> None:
    for name, card in catalog.table(kind).items():
        assert card.name == name
        assert name == name.lower()
        assert "_" not in name
        assert card.summary
        assert ":" in card.target
        json.dumps(card.args.model_json_schema())
        for field in card.args.model_fields.values():
            assert field.description, (name, field)


def test_the_defaults_of_every_card_are_allowed() -> None:
    for kind in KINDS:
        for name, card in catalog.table(kind).items():
            needed = {"milestones": [1]} if name == "multi-step" else {}
            catalog.arguments(card, needed)


def test_the_losses_and_models_that_a_task_names_exist() -> None:
    for card in catalog.tasks().values():
        assert set(card.losses) <= set(catalog.losses())
        assert card.name in catalog.models()[card.default_model].tasks
        assert card.primary_metric in card.metrics
        assert card.formats
    for model in catalog.models().values():
        assert set(model.tasks) <= set(catalog.tasks())
        catalog.arguments(model, model.debug)


TOOLBOX: dict[catalog.registry.Kind, set[str]] = {
    "activation": {"sigmoid", "tanh", "relu", "leaky-relu", "elu", "gelu", "silu"},
    "loss": {"cross-entropy", "mse", "l1", "l2", "focal", "dice", "smooth-l1", "hinge", "ctc"},
    "optimizer": {"sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad", "adadelta"},
    "schedule": {"constant", "step", "cosine", "one-cycle", "warm-up"},
}


@pytest.mark.parametrize("kind", TOOLBOX)
def test_the_training_toolbox_is_whole_and_every_tool_names_its_paper(kind: catalog.registry.Kind) -> None:
    cards = catalog.table(kind)
    assert set(cards) >= TOOLBOX[kind]
    assert {name for name, card in cards.items() if not card.source} <= {"identity", "constant"}


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("model", "vgg-16", "vgg16"),
        ("model", "GoogleNet", "googlenet"),
        ("loss", "smoothl1", "smooth-l1"),
        ("loss", "ctc-loss", "ctc"),
        ("loss", "hing", "hinge"),
        ("optimizer", "adam-w", "adamw"),
        ("optimizer", "rms-prop", "rmsprop"),
        ("optimizer", "adagrd", "adagrad"),
        ("optimizer", "momentm", "momentum"),
        ("schedule", "warmup", "warm-up"),
        ("schedule", "cosne", "cosine"),
        ("activation", "sigmod", "sigmoid"),
        ("optimizer", "ada_delta", "adadelta"),
        ("model", "resnet-8", "resnet8"),
        ("model", "ResNet20", "resnet20"),
        ("optimizer", "Adam", "adam"),
        ("optimizer", "adm", "adam"),
        ("loss", "crossentropy", "cross-entropy"),
        ("task", "image_classification", "image-classification"),
        ("activation", "leakyrelu", "leaky-relu"),
        ("schedule", "onecycle", "one-cycle"),
    ],
)
def test_a_misspelt_name_suggests_the_one_that_was_meant(kind: catalog.registry.Kind, given: str, meant: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        catalog.get(kind, given)
    assert raised.value.code == "unknown-name"
    assert raised.value.action == f"did you mean {meant}?"
    assert raised.value.findings[0].allowed.startswith(meant)


def test_a_name_like_none_gets_the_whole_list() -> None:
    assert catalog.nearest("transformer-xl", catalog.models()) == []
    with pytest.raises(InvalidInput) as raised:
        catalog.get("model", "zzz")
    assert set(raised.value.findings[0].allowed.split(", ")) == set(catalog.models())


def test_every_wrong_argument_is_a_finding_with_its_place() -> None:
    given = {"lr": -1, "beta": [0.9, 0.999], "eps": "tiny"}
    with pytest.raises(SpecInvalid) as raised:
        catalog.arguments(catalog.optimizers()["adam"], given, "train.optimizer.args")
    findings = {finding.where: finding for finding in raised.value.findings}
    assert set(findings) == {f"train.optimizer.args.{name}" for name in given}
    assert "greater than 0" in findings["train.optimizer.args.lr"].allowed
    assert findings["train.optimizer.args.beta"].action == "did you mean betas?"


def test_a_misspelt_activation_in_a_models_arguments_suggests_the_right_one() -> None:
    with pytest.raises(SpecInvalid) as raised:
        catalog.arguments(catalog.models()["resnet8"], {"activation": "rleu"}, "model.args")
    finding = raised.value.findings[0]
    assert finding.where == "model.args.activation"
    assert finding.action == "did you mean relu?"


@pytest.mark.parametrize(
    ("kind", "name", "args"),
    [
        ("optimizer", "sgd", {"lr": 0}),
        ("optimizer", "adam", {"layer_decay": 0}),
        ("optimizer", "adam", {"groups": [{"match": "head."}]}),
        ("optimizer", "adam", {"groups": [{"match": "", "lr": 0.1}]}),
        ("optimizer", "adam", {"groups": [{"match": "head.", "lr": 0.1, "momentum": 0.5}]}),
        ("model", "vgg16", {"width": 0}),
        ("model", "low-level-features", {"features": []}),
        ("optimizer", "sgd", {"momentum": 0.9}),
        ("optimizer", "momentum", {"momentum": 1.0}),
        ("optimizer", "adam", {"betas": [0.9, 1.0]}),
        ("schedule", "constant", {"warmup_steps": 5, "warmup_epochs": 1}),
        ("schedule", "multi-step", {}),
        ("schedule", "multi-step", {"milestones": [4, 2]}),
        ("schedule", "step", {"gamma": 1.5}),
        ("loss", "cross-entropy", {"label_smoothing": 1}),
        ("loss", "cross-entropy", {"class_weights": "even"}),
        ("loss", "cross-entropy", {"class_weights": {"cat": -1}}),
        ("loss", "hinge", {"power": 3}),
        ("model", "mlp", {"hidden": [0]}),
        ("model", "resnet8", {"shortcut": "C"}),
        ("task", "image-classification", {"image_size": 4}),
        ("task", "image-classification", {"channels": 2}),
    ],
)
def test_arguments_out_of_their_range_are_refused(
    kind: catalog.registry.Kind, name: str, args: dict[str, object]
) -> None:
    with pytest.raises(SpecInvalid):
        catalog.arguments(catalog.get(kind, name), args)


MEASURED = json.loads((Path(__file__).resolve().parents[2] / "docs" / "models" / "zoo.json").read_text())
DATA = {"digits": "builtin:digits", "BCCD": "BCCD", "shapes": "builtin:shapes", "digit-scenes": "builtin:digit-scenes"}


@pytest.mark.parametrize("name", sorted({row["model"] for row in MEASURED.values()}))
def test_a_card_promises_what_the_zoo_reached_and_not_much_less(name: str) -> None:
    card = catalog.models()[name]
    promises = [
        (DATA[data], metric.lower(), float(least))
        for text in card.metric.split(";")
        for data in re.findall(r"([A-Za-z-]+)(?: at \w+)?:", text)[-1:]
        for metric, least in re.findall(r"(\w+) ≥ (\.\d+)", text)
    ]
    assert promises, f"{name} promises nothing of {', '.join(DATA)}"
    for data, metric, least in promises:
        reached = [
            value
            for row in MEASURED.values()
            if row["model"] == name and row["data"].rpartition("/")[2] == data
            for measure, value in row["metrics"].items()
            if measure.rpartition(".")[2] == metric
        ]
        assert reached, f"nothing in docs/models/zoo.json of {metric} on {data}"
        assert least <= min(reached) < least + 0.15
