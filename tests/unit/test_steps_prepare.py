"""What is put into the store before the first step, and what is planned without putting anything anywhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import InvalidInput, NotEnoughResources
from headrace.base.jsonfile import sha256_of_file
from headrace.spec import load_spec
from headrace.steps import keys, plan
from headrace.steps.first_weights import with_stored_weights
from headrace.steps.plan import plan_run
from headrace.steps.prepare import champion_reference, prepare
from headrace.store import Store
from headrace.store.step_files import read_note

RUN = "digits-aaaaaaaa"
SPEC: dict[str, Any] = {
    "name": "digits",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
    "train": {"workers": 1},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


def spec(**parts: Any) -> dict[str, Any]:
    return load_spec({**SPEC, **parts}).to_record()


def request(record: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"run_id": RUN, "spec": record, "no_cache": False, "git": None, **rest}


def no_version(reference: str) -> None:
    return None


# prepare


def test_the_pipeline_gets_short_texts_and_empty_ones_for_absent_steps(store: Store) -> None:
    arguments = prepare(request(spec()), store, "2", no_version)
    assert all(isinstance(value, str) for value in arguments.values())
    assert (arguments["run_id"], arguments["attempt"]) == (RUN, "2")
    assert (arguments["register_spec"], arguments["deploy_spec"], arguments["champion"]) == ("", "", "")
    assert store.read_json(arguments["train_spec"])["model"]["name"] == "resnet8"


def test_a_changed_epoch_count_leaves_the_splits_part_as_it_is(store: Store) -> None:
    one = prepare(request(spec()), store, "1", no_version)
    other = prepare(request(spec(train={"workers": 1, "epochs": 99})), store, "1", no_version)
    assert one["split_spec"] == other["split_spec"]
    assert one["train_spec"] != other["train_spec"]


def test_a_changed_alias_or_gate_leaves_the_training_as_it_is(store: Store) -> None:
    one = prepare(request(spec(register={"alias": "a"}, gate=["accuracy >= 0.1"])), store, "1", no_version)
    other = prepare(request(spec(register={"alias": "b"}, gate=["accuracy >= 0.2"])), store, "1", no_version)
    assert one["train_spec"] == other["train_spec"]
    assert one["register_spec"] != other["register_spec"]


def test_a_changed_file_changes_the_source_fingerprint(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"1")
    record = spec(data={"source": str(tmp_path / "data"), "format": "image-folder"})
    before = prepare(request(record), store, "1", no_version)["source_fingerprint"]
    (folder / "1.png").write_bytes(b"22")
    assert prepare(request(record), store, "1", no_version)["source_fingerprint"] != before


def test_own_code_is_in_the_store_and_no_path_of_this_machine_in_any_part(store: Store, tmp_path: Path) -> None:
    code = tmp_path / "src"
    code.mkdir()
    (code / "my_model.py").write_text("class Net: ...\n")
    record = spec(model={"name": "my_model:Net", "code": str(code)})
    part = store.read_json(prepare(request(record), store, "1", no_version)["train_spec"])
    assert set(part["model"]["code"]) == {"sha256", "uri"}
    assert part["model"]["code"]["uri"] == store.uri("code", f"{part['model']['code']['sha256']}.tar")
    assert store.exists(part["model"]["code"]["uri"])
    assert str(code) not in str(part)


def test_first_weights_are_taken_into_the_store_by_their_content(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    record = spec(model={"name": "resnet8", "init_from": str(weights)})
    taken = with_stored_weights(record, store, no_version)["model"]["init_from"]
    assert taken == store.uri("files", f"{sha256_of_file(weights)}.safetensors")
    weights.unlink()
    assert Path(taken).read_bytes() == b"weights"


def test_a_folder_of_first_weights_is_taken_whole(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "headrace.json").write_text("{}")
    record = spec(model={"name": "resnet8", "init_from": str(folder)})
    taken = with_stored_weights(record, store, no_version)["model"]["init_from"]
    assert sorted(file.name for file in Path(taken).iterdir()) == ["headrace.json", "model.safetensors"]


def test_first_weights_by_alias_are_the_package_that_it_names_now(store: Store) -> None:
    record = spec(model={"name": "resnet8", "init_from": "digits@champion"})
    found = with_stored_weights(record, store, lambda reference: SimpleNamespace(package_uri=f"/{reference}"))
    assert found["model"]["init_from"] == "/digits@champion"
    with pytest.raises(InvalidInput, match="there is no version digits@champion"):
        with_stored_weights(record, store, no_version)


def begun_with(record: dict[str, Any], store: Store, attempt: str, package: str | None = None, **rest: Any) -> str:
    """What the train part of RECORD's ATTEMPT begins with, while a reference names PACKAGE."""
    found = None if package is None else SimpleNamespace(package_uri=package)
    arguments = prepare(request(record, **rest), store, attempt, lambda reference: found)
    return str(store.read_json(arguments["train_spec"])["model"]["init_from"])


def test_a_version_whose_package_lies_on_a_machine_is_refused_where_pods_train(tmp_path: Path) -> None:
    cluster = Store("memory://cluster/headrace")
    record = spec(model={"name": "resnet8", "init_from": "digits@champion"})
    folder = tmp_path / "laptop" / "packages" / "abc"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    for uri in (str(folder), f"file://{folder}"):
        with pytest.raises(InvalidInput, match="of this machine, where pods") as raised:
            begun_with(record, cluster, "1", uri, target="prod")
        assert f"init_from: {folder}" in raised.value.action
    with pytest.raises(InvalidInput, match="of another machine") as raised:
        begun_with(record, cluster, "1", "/home/her/.headrace/store/packages/abc", target="prod")
    assert "from the machine that has it" in raised.value.action
    named = spec(model={"name": "resnet8", "init_from": str(folder)})
    assert begun_with(named, cluster, "1", target="prod").startswith("memory://cluster/headrace/files/")
    assert begun_with(record, cluster, "1", "s3://bucket/packages/abc", target="prod") == "s3://bucket/packages/abc"
    shared = Store(str(tmp_path / "laptop"))
    assert begun_with(record, shared, "1", str(folder), target="prod") == str(folder)
    assert begun_with(record, Store(str(tmp_path / "own")), "1", str(folder), target="local") == str(folder)


def test_a_later_attempt_begins_with_the_version_that_the_first_found(store: Store) -> None:
    record = spec(model={"name": "resnet8", "init_from": "digits@champion"})
    assert [begun_with(record, store, "1", "/old"), begun_with(record, store, "2", "/new")] == ["/old", "/old"]
    assert begun_with(record, store, "3") == "/old"  # the version is gone
    other = spec(model={"name": "resnet8", "init_from": "digits@other"})
    assert begun_with(other, store, "4", "/new") == "/new"


def test_a_later_attempt_needs_no_file_of_first_weights(store: Store, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    record = spec(model={"name": "resnet8", "init_from": str(weights)})
    first = begun_with(record, store, "1")
    weights.write_bytes(b"others")
    assert begun_with(record, store, "2") == first
    weights.unlink()
    assert begun_with(record, store, "3") == first
    assert Path(first).read_bytes() == b"weights"


def test_the_champion_is_named_only_if_a_check_asks_for_it() -> None:
    assert champion_reference(spec(register={}, gate=["accuracy >= 0.1"])) == ""
    assert champion_reference(spec(register={}, gate=["accuracy >= champion"])) == "digits@champion"


def test_what_steps_need_to_know_of_the_run_is_beside_them(store: Store) -> None:
    prepare(request(spec(), no_cache=True, git={"commit": "abc", "dirty": False}), store, "1", no_version)
    assert read_note(store, RUN, "options") == {"cache": False, "queue": None}
    origin = read_note(store, RUN, "origin")
    assert origin is not None
    assert (origin["spec"]["name"], origin["git"]["commit"]) == ("digits", "abc")


# plan


def planned(record: dict[str, Any]) -> dict[str, str | None]:
    return {step["name"]: step["state"] for step in record["steps"]}


def remembered(store: Store, record: dict[str, Any]) -> str:
    """Put a split and a training of RECORD into STORE; returns the package's hash."""
    arguments = prepare(request(record), store, "1", no_version)
    part = store.read_json(arguments["split_spec"])
    store.write_json(store.uri("splits", "f", "split.json"), {})
    known = {"fingerprint": "f", "uri": store.uri("splits", "f"), "summary": {"samples": 7}}
    store.remember("split", keys.split_key(part, arguments["source_fingerprint"]), known)
    train = store.read_json(arguments["train_spec"])
    package = store.uri("packages", "a" * 64)
    store.write_json(f"{package}/headrace.json", {})
    training = {"package_uri": package, "package_sha256": "a" * 64}
    store.remember("train", keys.train_key(train, "f", keys.code_versions()), training)
    store.write_json(keys.evaluation_uri(store.uri, "a" * 64, "f"), {"metrics": {}})
    return "a" * 64


def test_a_plan_of_something_new_runs_every_step_that_the_spec_has(home: Path) -> None:
    record = plan_run(load_spec({**SPEC, "register": {}}))
    assert planned(record) == {"split": "run", "train": "run", "register": "run", "deploy": "skipped"}
    assert record["alias"] == {"name": "digits", "alias": "champion", "before": "none", "after": "new"}
    assert record["endpoint"] is None
    assert record["workers"]["asked"] == {"min": 1, "max": 1}


def test_a_plan_starts_nothing_and_writes_nothing(home: Path) -> None:
    plan_run(load_spec({**SPEC, "register": {}, "deploy": {}}))
    assert not any(path.is_file() for path in home.rglob("*"))


def test_a_plan_finds_what_is_in_the_store(home: Path) -> None:
    remembered(Store(), spec())
    record = plan_run(load_spec(SPEC))
    assert planned(record) == {"split": "cached", "train": "cached", "register": "skipped", "deploy": "skipped"}
    assert record["data"]["samples"] == 7
    assert planned(plan_run(load_spec(SPEC, ["train.epochs=99"])))["train"] == "run"


@pytest.mark.parametrize("reference", ["other@champion", "other/2"])
def test_a_plan_knows_the_package_that_first_weights_are_of(
    home: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    two = {"name": "other", "version": "2", "package_uri": "s3://b/two", "package_sha256": "b" * 64}
    answers = {"champion_record": two, "version_records": [{**two, "version": "3", "package_uri": "s3://b/three"}, two]}
    monkeypatch.setattr(plan._Registry, "_call", lambda self, operation, arguments: answers[operation])
    remembered(Store(), spec(model={"name": "resnet8", "init_from": "s3://b/two"}))
    model = {"name": "resnet8", "init_from": reference}
    assert planned(plan_run(load_spec({**SPEC, "model": model})))["train"] == "cached"
    monkeypatch.setattr(plan._Registry, "_call", lambda self, operation, arguments: None)
    with pytest.raises(InvalidInput, match=f"there is no version {reference}"):
        plan_run(load_spec({**SPEC, "model": model}))
    monkeypatch.setattr(plan._Registry, "_call", lambda self, operation, arguments: setattr(self, "readable", False))
    assert planned(plan_run(load_spec({**SPEC, "model": model})))["train"] is None


def test_a_training_without_its_evaluation_is_planned_to_be_measured(home: Path) -> None:
    store = Store()
    sha256 = remembered(store, spec())
    Path(keys.evaluation_uri(store.uri, sha256, "f")).unlink()
    step = next(step for step in plan_run(load_spec(SPEC))["steps"] if step["name"] == "train")
    assert (step["state"], step["why"]) == ("run", "trained before; the test split is to be measured")


def test_what_the_base_install_cannot_read_is_null(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import headrace.data
    from headrace.base.errors import MissingExtra

    def missing(part: object) -> str:
        raise MissingExtra("train", "built-in data")

    monkeypatch.setitem(headrace.data.__dict__, "fingerprint_source", missing)
    monkeypatch.setattr(plan._Registry, "_call", lambda self, operation, arguments: setattr(self, "readable", False))
    record = plan_run(load_spec({**SPEC, "register": {}, "deploy": {}}))
    assert planned(record) == {"split": None, "train": None, "register": None, "deploy": None}
    assert record["alias"]["before"] is None
    assert record["data"] == {"source": "builtin:digits", "format": "image-folder", "samples": None, "bytes": None}


def test_a_plan_says_at_once_that_there_are_not_enough_cpus(home: Path) -> None:
    with pytest.raises(NotEnoughResources, match=r"training needs 5000 CPUs \(1 x 5000\)"):
        plan_run(load_spec(SPEC, ["train.resources.cpus_per_worker=5000"]))


def test_a_plan_counts_pictures_and_bytes(home: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"12345")
    data = {"source": str(tmp_path / "data"), "format": "image-folder"}
    record = plan_run(load_spec({**SPEC, "data": data}))
    assert (record["data"]["samples"], record["data"]["bytes"]) == (2, 10)
