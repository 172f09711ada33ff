"""A spec is read whole, judged whole, and brought to one canonical form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.base.errors import Finding, SpecInvalid
from headrace.spec import RunSpec, load_spec

DIGITS = """
version: 1
name: digits
task: image-classification
data:
  source: builtin:digits
  format: image-folder
  split: {strategy: stratified, train: 0.7, validation: 0.15, test: 0.15, seed: 0}
model: {name: resnet8, args: {activation: relu}, init_from: null, freeze: []}
train:
  epochs: 8
  batch_size: 64
  optimizer: {name: adam, lr: 1.0e-3}
  loss: cross-entropy
  workers: 2
  gpus_per_worker: auto
gate:
  - accuracy >= 0.95
  - accuracy >= champion - 0.01
register: {name: digits, alias: champion}
deploy: {name: digits, replicas: 1}
"""


def document(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(DIGITS), **changes}


def findings(spec: Any, *overrides: str, target: str = "local") -> list[Finding]:
    with pytest.raises(SpecInvalid) as caught:
        load_spec(spec, overrides, target=target)
    assert caught.value.exit_code == 2
    return list(caught.value.findings)


def only(spec: Any, *overrides: str) -> Finding:
    found = findings(spec, *overrides)
    assert len(found) == 1, [str(finding) for finding in found]
    return found[0]


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


# the canonical form


def test_the_designs_own_spec_has_this_canonical_record_and_hash(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, DIGITS))
    assert spec.to_record() == {
        "version": 1,
        "name": "digits",
        "tasks": [{"name": "image-classification", "args": {}}],
        "data": {
            "source": "builtin:digits",
            "format": "image-folder",
            "label": None,
            "features": None,
            "id": None,
            "group": None,
            "time": None,
            "max_corrupt": 0.01,
            "split": {"strategy": "stratified", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 0},
        },
        "model": {"name": "resnet8", "args": {"activation": "relu"}, "code": None, "init_from": None, "freeze": []},
        "train": {
            "epochs": 8,
            "batch_size": 64,
            "optimizer": {"name": "adam", "args": {"lr": 0.001}},
            "losses": [{"task": "image-classification", "name": "cross-entropy", "args": {}, "weight": 1.0}],
            "schedule": {"name": "constant", "args": {}},
            "workers": {"min": 2, "max": 2},
            "parallel": "ddp",
            "gpus_per_worker": "auto",
            "seed": 0,
            "precision": "float32",
            "compile": False,
            "sync_batch_norm": False,
            "accumulate_steps": 1,
            "clip_norm": None,
            "ema_decay": None,
            "early_stop": None,
            "checkpoint_every_epochs": 1,
            "max_failures": 2,
            "resources": {"cpus_per_worker": 1},
        },
        "tune": None,
        "gate": ["accuracy >= 0.95", "accuracy >= champion - 0.01"],
        "register": {"name": "digits", "alias": "champion"},
        "deploy": {"name": "digits", "replicas": 1, "resources": {"cpus": None, "gpus": None, "memory_bytes": None}},
    }
    assert spec.sha256 == "d3ea2538cc35f5a83ea38dc56991671911fc8b16351f97e9daf321c214a2ff84"


def test_every_spelling_of_the_same_spec_has_the_same_hash() -> None:
    longhand = document(
        tasks=[{"name": "image-classification", "args": {}}],
        model={"name": "resnet8", "activation": "relu"},
        train={
            "epochs": 8,
            "optimizer": {"name": "adam", "args": {"lr": 0.001}},
            "losses": [{"task": "image-classification", "name": "cross-entropy", "weight": 1}],
            "schedule": "constant",
            "workers": {"min": 2, "max": 2},
        },
        gate=["accuracy>=.95", "accuracy   >= champion -1e-2"],
        register="digits",
        deploy={},
    )
    del longhand["task"]
    assert load_spec(longhand).sha256 == load_spec(document()).sha256


def test_the_shortest_spec_gets_every_default() -> None:
    spec = load_spec(
        {"name": "x", "task": "image-classification", "data": {"source": "builtin:digits"}, "model": "resnet8"}
    )
    assert spec.data.format == "image-folder"
    assert (spec.data.split.train, spec.data.split.validation, spec.data.split.test) == (0.7, 0.15, 0.15)
    assert spec.train.losses[0].name == "cross-entropy"
    assert spec.register_ is None
    assert spec.deploy is None
    assert spec.gate == ()


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"train": 0.8}, (0.8, 0.1, 0.1)),
        ({"test": 0.2}, (0.4, 0.4, 0.2)),
        ({"train": 0.6, "test": 0.3}, (0.6, 0.1, 0.3)),
        ("hash", (0.7, 0.15, 0.15)),
        (None, (0.7, 0.15, 0.15)),
    ],
)
def test_shares_left_out_get_what_the_others_leave(split: Any, expected: tuple[float, ...]) -> None:
    got = load_spec(document(data={"source": "builtin:digits", "split": split})).data.split
    assert (got.train, got.validation, got.test) == expected


def test_workers_may_be_a_number_or_bounds() -> None:
    def workers(value: Any) -> tuple[int, int]:
        got = load_spec(document(train={"workers": value})).train.workers
        return got.min, got.max

    assert workers(3) == (3, 3)
    assert workers({"min": 2, "max": 8}) == (2, 8)
    assert workers({"max": 4}) == (1, 4)
    assert workers({"min": 4}) == (4, 4)


def test_a_group_or_time_column_sets_the_strategy(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    table = {"source": str(tmp_path / "t.csv"), "format": "csv", "label": "b"}
    base = document(task="tabular-classification", model="mlp")
    assert load_spec({**base, "data": {**table, "group": "a"}}).data.split.strategy == "group"
    assert load_spec({**base, "data": {**table, "time": "a"}}).data.split.strategy == "time"
    assert only({**base, "data": {**table, "split": "group"}}).where == "data.split"


def test_relative_paths_start_at_the_specs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text("class Net: ...\n")
    (tmp_path / "w.safetensors").write_bytes(b"")
    spec = load_spec(
        write(
            tmp_path,
            "name: own\ntask: image-classification\ndata: {source: pictures}\n"
            'model: {name: "mine:Net", code: ./src, init_from: w.safetensors, depth: 3}\n',
        )
    )
    assert spec.data.source == str(tmp_path / "pictures")
    assert spec.model.code == str(tmp_path / "src")
    assert spec.model.init_from == str(tmp_path / "w.safetensors")
    assert spec.model.args == {"depth": 3}


def test_the_spec_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_spec(document()).name = "other"  # type: ignore[misc]


def test_a_mapping_that_was_given_is_left_as_it_was() -> None:
    given_document = document()
    before = json.dumps(given_document)
    load_spec(given_document, ["train.epochs=3", "train.workers.min=1"])
    assert json.dumps(given_document) == before


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
SPECS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "task": st.sampled_from(["image-classification", {"name": "image-classification", "augment": "flip"}]),
        "data": st.fixed_dictionaries(
            {"source": st.just("builtin:digits")},
            optional={
                "max_corrupt": st.floats(0, 1),
                "split": st.sampled_from(["hash", "random", {"train": 0.5}, {"seed": 4, "test": 0.3}, None]),
            },
        ),
        "model": st.sampled_from(["resnet8", {"name": "resnet20", "width": 8}, {"name": "mlp", "freeze": ["a."]}]),
    },
    optional={
        "train": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.integers(1, 1000),
                "batch_size": st.integers(8, 4096),
                "optimizer": st.sampled_from(["sgd", {"name": "adam", "lr": 1, "betas": [0, 0.5]}]),
                "schedule": st.sampled_from([{"name": "step", "args": {"gamma": 0.5}}, "cosine"]),
                "loss": st.sampled_from(["focal", [{"name": "focal", "weight": 2}]]),
                "workers": st.sampled_from([1, 2, {"min": 1, "max": 8}]),
                "gpus_per_worker": st.sampled_from(["auto", 0, 2]),
                "clip_norm": st.none() | st.floats(0.1, 10),
                "early_stop": st.sampled_from([None, {}, {"metric": "log_loss", "min_delta": 1}]),
            },
        ),
        "gate": st.sampled_from([[], "accuracy > .9", ["log_loss <= 1e-3", "macro_f1 >= 0"], None]),
        "register": st.sampled_from([None, "m", {}, {"name": "n", "alias": "staging"}]),
    },
)


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_the_canonical_record_of_any_spec_loads_to_the_same_spec(spec: dict[str, Any]) -> None:
    loaded = load_spec(spec)
    record = json.loads(json.dumps(loaded.to_record()))
    again = load_spec(record)
    assert again == loaded
    assert again.to_record() == record
    assert again.sha256 == loaded.sha256
    assert RunSpec.model_validate(record) == loaded


# mistakes


def test_twenty_one_mistakes_in_one_file_are_twenty_one_findings(tmp_path: Path) -> None:
    text = """\
version: 2
name: My Digits
task: image-clasification
data:
  source: ./nowhere
  format: image-foldr
  max_corrupt: 7
  split: {strategy: stratifed, train: 0.7, validation: 0.2, test: 0.2}
model: {name: resnt8}
train:
  epochs: 0
  epoch: 8
  batch_size: 1
  optimizer: {name: adam, lr: -1, bettas: [0.9, 0.9]}
  schedule: cosin
  loss: cross-entrpy
  workers: 2
  precision: fp16
gate:
  - acuracy >= 0.95
  - accuracy => 3
deploy: {replicas: none}
"""
    found = findings(write(tmp_path, text))
    assert [finding.where for finding in found] == [
        "version",
        "name",
        "task",
        "data.source",
        "data.format",
        "data.max_corrupt",
        "data.split.strategy",
        "data.split",
        "model.name",
        "train.epochs",
        "train.epoch",
        "train.batch_size",
        "train.optimizer.lr",
        "train.optimizer.bettas",
        "train.schedule",
        "train.loss",
        "train.precision",
        "gate[0]",
        "gate[1]",
        "deploy.replicas",
        "deploy",
    ]
    assert all(finding.where and finding.given and finding.allowed and finding.action for finding in found)


@pytest.mark.parametrize(
    ("changes", "where", "meant"),
    [
        ({"task": "image-clasification"}, "task", "image-classification"),
        ({"task": {"name": "imageclassification"}}, "task.name", "image-classification"),
        ({"model": "resnt20"}, "model", "resnet20"),
        ({"model": {"name": "ResNet_8"}}, "model.name", "resnet8"),
        ({"model": {"name": "resnet8", "activation": "rleu"}}, "model.activation", "relu"),
        ({"model": {"name": "resnet8", "args": {"widht": 8}}}, "model.args.widht", "width"),
        ({"model": {"name": "resnet8", "freze": []}}, "model.freze", "freeze"),
        ({"train": {"optimizer": "adm"}}, "train.optimizer", "adam"),
        ({"train": {"optimizer": {"name": "momentun"}}}, "train.optimizer.name", "momentum"),
        ({"train": {"schedule": "cosin"}}, "train.schedule", "cosine"),
        ({"train": {"loss": "cross_entrpy"}}, "train.loss", "cross-entropy"),
        ({"train": {"losses": [{"name": "focl"}]}}, "train.losses[0].name", "focal"),
        ({"train": {"bach_size": 3}}, "train.bach_size", "batch_size"),
        ({"train": {"early_stop": {"metric": "acuracy"}}}, "train.early_stop.metric", "accuracy"),
        ({"gate": ["macro-f1 > 0.9"]}, "gate[0]", "macro_f1"),
        ({"gate": "acuracy > 0.9"}, "gate", "accuracy"),
        ({"deploi": {}}, "deploi", "deploy"),
        ({"data": {"source": "builtin:digit"}}, "data.source", "builtin:digits"),
        ({"data": {"source": "s4://bucket/x"}}, "data.source", "s3"),
    ],
)
def test_a_misspelt_name_is_told_with_the_one_that_was_meant(changes: Any, where: str, meant: str) -> None:
    found = only(document(**changes))
    assert found.where == where
    assert meant in found.action
    assert meant in found.allowed.split(",")[0]


@pytest.mark.parametrize(
    ("changes", "where", "action"),
    [
        ({"name": "My Digits"}, "name", "write `my-digits`"),
        ({"name": 3}, "name", 'put it in quotes: "3"'),
        ({"version": 2}, "version", "write 1"),
        ({"train": {"epochs": "8"}}, "train.epochs", "write the number without quotes"),
        ({"train": {"epochs": True}}, "train.epochs", "write a value that is allowed"),
        ({"train": {"epochs": 2.5}}, "train.epochs", "write a value that is allowed"),
        ({"train": {"epochs": 0}}, "train.epochs", "write a larger one"),
        ({"train": {"ema_decay": 1}}, "train.ema_decay", "write a smaller one"),
        ({"train": {"clip_norm": float("nan")}}, "train.clip_norm", "write"),
        ({"train": {"workers": 0}}, "train.workers", "write a larger one"),
        ({"train": {"workers": {"min": 3, "max": 2}}}, "train.workers", "swap them"),
        ({"train": {"workers": "two"}}, "train.workers", "write `key: value` lines below it"),
        ({"train": {"gpus_per_worker": -1}}, "train.gpus_per_worker", "write a larger one"),
        ({"train": {"optimizer": {"name": "adam", "lr": "fast"}}}, "train.optimizer.lr", "write a number"),
        ({"train": {"optimizer": {"name": "adam", "amsgrad": "no"}}}, "train.optimizer.amsgrad", "write true or false"),
        ({"train": {"optimizer": {"lr": 1}}}, "train.optimizer.name", "add `name`"),
        ({"train": {"optimizer": {"name": "adam", "args": 3}}}, "train.optimizer.args", "write `key: value` lines"),
        ({"train": {"optimizer": {"name": "adam", "lr": 1, "args": {"lr": 2}}}}, "train.optimizer.lr", "remove one"),
        ({"train": {"schedule": "multi-step"}}, "train.schedule.args.milestones", "add `milestones`"),
        ({"train": {"loss": "huber"}}, "train.loss", "take a loss that suits the task"),
        ({"train": {"loss": {"name": "focal", "weight": 0}}}, "train.loss.weight", "write a larger one"),
        ({"train": {"losses": []}}, "train.losses", "add one for image-classification"),
        ({"train": {"loss": "focal", "losses": ["focal"]}}, "train.loss", "move it into `losses`"),
        ({"train": {"batch_size": 3, "workers": 4}}, "train.batch_size", "raise batch_size or take fewer workers"),
        ({"train": {"parallel": "fspd"}}, "train.parallel", "write `fsdp`"),
        ({"train": {"compile": "yes"}}, "train.compile", "write true or false"),
        ({"train": {"sync_batch_norm": "on"}}, "train.sync_batch_norm", "write true or false"),
        ({"train": {"compile": True, "parallel": "fsdp"}}, "train.compile", "remove one"),
        ({"train": 3}, "train", "write `key: value` lines below it"),
        ({"gate": ["accuracy > 95%"]}, "gate[0]", "write a fraction, as 0.95 for 95 %"),
        ({"gate": [3]}, "gate[0]", 'put it in quotes: "3"'),
        ({"register": None, "gate": [], "deploy": {}}, "deploy", "add `register: {}`"),
        ({"register": {"alias": "latest"}}, "register.alias", "write a value that is allowed"),
        ({"model": {"name": "resnet8", "freeze": "layer1"}}, "model.freeze", "write a list: [layer1]"),
        ({"tasks": [], "task": None}, "tasks", "add an item, or leave the key out"),
        ({"data": {"source": "builtin:digits", "format": "csv"}}, "data.format", "take a format that the task reads"),
        ({"data": {"source": "builtin:digits", "split": {"train": 1}}}, "data.split.test", "nothing to learn from"),
        ({"data": {"source": "builtin:digits", "split": {"train": 0.9, "test": 0.3}}}, "data.split", "leave one out"),
        ({"data": {"source": "builtin:digits", "split": "group"}}, "data.split", "add `data.group`"),
    ],
)  # fmt: skip
def test_each_mistake_says_where_it_is_and_what_to_do(changes: Any, where: str, action: str) -> None:
    matching = [finding for finding in findings(document(**changes)) if finding.where == where]
    assert matching, [str(finding) for finding in findings(document(**changes))]
    assert action in matching[0].action


def test_a_check_against_the_champion_needs_register() -> None:
    assert only(document(register=None, deploy=None)).where == "gate[1]"


def test_a_model_must_suit_the_task(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    data = {"source": str(tmp_path / "t.csv"), "format": "csv", "label": "b"}
    found = only(document(task="tabular-classification", data=data))
    assert found.where == "model.name"
    assert found.allowed == "mlp"


def test_a_table_must_name_its_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    found = only(
        document(task="tabular-classification", model="mlp", data={"source": str(tmp_path / "t.csv"), "format": "csv"})
    )
    assert found.where == "data.label"


def test_tables_must_say_which_format_they_have(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    data = {"source": str(tmp_path / "t.csv"), "label": "b"}
    assert only(document(task="tabular-classification", model="mlp", data=data)).where == "data.format"


def test_what_is_missing_is_named() -> None:
    assert [f.where for f in findings({"name": "x"})] == ["tasks", "data", "model"]
    assert "data.source" in [f.where for f in findings(document(data={}))]


def test_a_source_that_does_not_exist_names_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    found = only(write(tmp_path, DIGITS.replace("builtin:digits", "./picture")))
    assert found.where == "data.source"
    assert found.action == f"did you mean {tmp_path / 'pictures'}?"


def test_local_data_cannot_go_to_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    path = write(tmp_path, DIGITS.replace("builtin:digits", "./pictures"))
    assert load_spec(path).data.source == str(tmp_path / "pictures")
    assert [f.where for f in findings(path, target="gpu-site")] == ["data.source"]
    remote = DIGITS.replace("builtin:digits", "s3://bucket/pictures")
    assert load_spec(write(tmp_path, remote), target="gpu-site").data.source == "s3://bucket/pictures"


def test_several_tasks_name_their_metrics_and_each_needs_a_loss(tmp_path: Path) -> None:
    several = document(
        data={"source": "builtin:digit-scenes", "format": "voc"},
        model="multi-task",
        gate=["image-classification.accuracy > 0.5", "iou > 0.5"],
        train={"losses": [{"name": "dice", "task": "semantic-segmentation"}, {"name": "mse", "task": "other"}]},
        tasks=["image-classification", "semantic-segmentation"],
    )
    del several["task"]
    where = {finding.where: finding for finding in findings(several)}
    assert set(where) == {"gate[1]", "train.losses[1].task", "train.losses"}
    assert "semantic-segmentation.iou" in where["gate[1]"].allowed
    twice = {**several, "tasks": ["semantic-segmentation"] * 2, "model": "unet", "gate": [], "train": {}}
    assert "tasks[1]" in {finding.where for finding in findings(twice)}


def test_tasks_that_cannot_be_joined_and_models_that_cannot_join_are_told() -> None:
    several = document(data={"source": "builtin:digit-scenes", "format": "voc"}, model="multi-task", gate=[], train={})
    del several["task"]
    joined = {**several, "tasks": ["image-classification", "semantic-segmentation"]}
    assert [loss.task for loss in load_spec(joined).train.losses] == joined["tasks"]
    assert "multi-task" in only({**joined, "model": "unet"}).allowed
    assert "unet" in only({**joined, "tasks": ["semantic-segmentation"]}).allowed
    apart = {
        finding.where: finding
        for finding in findings({**joined, "tasks": ["image-classification", "object-detection"]})
    }
    assert "semantic-segmentation" in apart["tasks[1]"].allowed


def test_joined_tasks_say_of_the_picture_what_all_can_have_and_say_it_once() -> None:
    spec = document(data={"source": "builtin:digit-scenes", "format": "voc"}, model="multi-task", gate=[], train={})
    del spec["task"]

    def told(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        tasks = [{"name": "image-classification", **one}, {"name": "semantic-segmentation", **other}]
        return {**spec, "tasks": tasks}

    turned = [{"name": "rotation", "degrees": 15}]
    for one, other in (
        ({"augment": turned}, {}),
        ({"augment": ["rotation"]}, {"augment": turned}),
        ({"augment": "none", "image_size": 32}, {"augment": "shift", "image_size": 32, "channels": 1}),
        ({"explain": "grad-cam", "explain_layer": "x"}, {}),
    ):
        load_spec(told(one, other))
    finding = only(told({"augment": ["rotation", "rand-augment"]}, {}))
    assert finding.where == "tasks[0].augment"
    assert "rand-augment" in finding.given
    assert "semantic-segmentation cannot have" in finding.given
    for key, one, other in (("augment", "shift", ["rotation"]), ("image_size", 32, 64), ("channels", 1, 3)):
        finding = only(told({key: one}, {key: other}))
        assert (finding.where, finding.allowed) == (f"tasks[1].{key}", "what image-classification says")
    assert only(told({"image_size": 4}, {})).where == "tasks[0].image_size"  # its own mistake, told once
    assert only(told({"args": 3}, {})).where == "tasks[0].args"


def test_a_layer_to_explain_needs_an_explanation() -> None:
    given = {"name": "image-classification", "explain_layer": "layer3"}
    finding = only(document(task=given))
    assert finding.where == "task.explain_layer"
    assert "explain: grad-cam" in finding.action
    load_spec(document(task={**given, "explain": "grad-cam"}))
    load_spec(document(task={**given, "explain_layer": None}))


def test_regions_come_with_the_picture_only_for_a_model_that_looks_at_them() -> None:
    spec = document(data={"source": "builtin:shapes", "format": "voc"}, model="fast-rcnn", gate=[], train={})
    bare = only({**spec, "task": "object-detection"})
    assert bare.where.startswith("task")
    assert (bare.allowed, bare.action) == ("selective-search", "set proposals: selective-search")
    given = {**spec, "task": {"name": "object-detection", "proposals": "selective-search"}}
    assert load_spec(given).tasks[0].args == {"proposals": "selective-search"}
    assert "remove it" in only({**given, "model": "yolo"}).action
    assert load_spec({**given, "task": "object-detection", "model": "faster-rcnn"}).model.name == "faster-rcnn"


# a model of one's own


@pytest.mark.parametrize(
    ("model", "where", "action"),
    [
        ({"name": "mine:Net"}, "model.code", "add `code: ./FOLDER`"),
        ({"name": "mine", "code": "src"}, "model.name", "write the file's name"),
        ({"name": "mine:Net", "code": "sr"}, "model.code", "did you mean"),
        ({"name": "mine:Net", "code": "src/mine.py"}, "model.code", "name the folder that the file is in"),
        ({"name": "mien:Net", "code": "src"}, "model.name", "write `mine`"),
        ({"name": "mine:Nett", "code": "src"}, "model.name", "write `Net`"),
        ({"name": "broken:Net", "code": "src"}, "model.code", "mend it there"),
        ({"name": "resnet8", "init_from": "./gone.safetensors"}, "model.init_from", "correct the path"),
    ],
)
def test_own_code_is_looked_at_without_being_run(tmp_path: Path, model: Any, where: str, action: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text("import torch\nraise SystemExit\nclass Net: ...\n")
    (tmp_path / "src" / "broken.py").write_text("class Net(:\n")
    found = only(write(tmp_path, yaml.safe_dump(document(model=model))))
    assert found.where == where
    assert action in found.action


@pytest.mark.parametrize(
    "text", ["from x import Net", "Net = 3", "def Net(): ...", "try:\n  import Net\nexcept E: ..."]
)
def test_own_code_may_define_its_class_in_any_way(tmp_path: Path, text: str) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "__init__.py").write_text(text)
    spec = document(model={"name": "deep:Net", "code": "src"})
    assert load_spec(write(tmp_path, yaml.safe_dump(spec))).model.name == "deep:Net"


@pytest.mark.parametrize("reference", ["digits@champion", "digits/3", "s3://bucket/w.safetensors"])
def test_first_weights_may_be_a_version_or_a_url(reference: str) -> None:
    assert load_spec(document(model={"name": "resnet8", "init_from": reference})).model.init_from == reference


# files that are no spec


@pytest.mark.parametrize(
    ("content", "given_text"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"- a\n- b\n", "not `key: value` lines"),
        (b"just text", "not `key: value` lines"),
        (b"\xff\xfe\x00", "not a text"),
        (b"a: 1\n" * 300_000, "1,500,000 bytes long"),
    ],
)
def test_a_file_that_is_no_spec_is_told_in_one_finding(tmp_path: Path, content: bytes, given_text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    assert only(path).given == given_text


def test_a_file_that_is_not_there_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert only(tmp_path / "gone.yaml").given == "no such file"
    assert "headrace init" in only(tmp_path).action


def test_values_that_are_not_plain_are_refused() -> None:
    assert "object" in only(document(model={"name": "resnet8", "width": object()})).given
    assert load_spec(document(data={"source": Path("/")})).data.source == "/"


def test_data_after_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + DIGITS.encode())
    assert load_spec(path).name == "digits"
