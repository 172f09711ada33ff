"""The sites that `--on` can name: read whole, judged whole, and no credential in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.base.errors import InvalidInput, SpecInvalid
from headrace.spec import load_spec
from headrace.spec.targets import find_target, load_targets, require_target

GOOD: dict[str, Any] = {
    "kubeflow": {"host": "https://kubeflow.example.com/pipeline/", "namespace": "team-a", "token_env": "KFP_TOKEN"},
    "store": "s3://headrace/store/",
    "image": "registry.example.com/headrace/runtime:0.1.0",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    return tmp_path


def write(home: Path, text: Any) -> None:
    (home / "targets.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(text))


def findings(home: Path, text: Any) -> dict[str, str]:
    write(home, text)
    with pytest.raises(SpecInvalid) as raised:
        load_targets()
    return {
        finding.where: f"{finding.given} | {finding.allowed} | {finding.action}" for finding in raised.value.findings
    }


def test_this_machine_is_always_a_target(home: Path) -> None:
    assert require_target("local") == "local"
    write(home, "no: [yaml")
    assert require_target("local") == "local"


def test_an_unknown_target_lists_those_there_are_and_shows_how_to_write_one(home: Path) -> None:
    write(home, {"prod": GOOD})
    with pytest.raises(InvalidInput) as raised:
        find_target("porod")
    assert raised.value.message == "there is no target 'porod'; there is: local, prod"
    assert f"write it in {home}/targets.yaml: NAME: {{kubeflow: {{host: https://" in raised.value.action


def test_a_target_has_its_defaults_and_absolute_paths(home: Path) -> None:
    (home / "ca.pem").write_text("x")
    write(home, {"prod": {**GOOD, "kubeflow": {"host": "https://x/pipeline/", "ca": "ca.pem", "token_file": "token"}}})
    kubeflow = find_target("prod").kubeflow
    assert kubeflow.host == "https://x/pipeline"
    assert (kubeflow.ca, kubeflow.token_file) == (str(home / "ca.pem"), str(home / "token"))
    assert (kubeflow.verify, kubeflow.namespace, kubeflow.start_deadline_seconds) == (True, None, 900)


def test_every_mistake_is_reported_at_once(home: Path) -> None:
    told = findings(
        home,
        {
            "local": GOOD,
            "prod": {**GOOD, "kubeflow": {"host": "kubeflow.example.com", "nmespace": "a"}, "imag": "x"},
            "other": {"store": 3},
            "third": {
                **GOOD,
                "kubeflow": {**GOOD["kubeflow"], "token_file": "t", "ca": "gone.pem"},
                "context": "admin",
            },
        },
    )
    assert set(told) == {
        "local",
        "prod.kubeflow.host",
        "prod.kubeflow.nmespace",
        "prod.imag",
        "other.kubeflow",
        "other.store",
        "other.image",
        "third.kubeflow.token_file",
        "third.kubeflow.ca",
        "third.kubeconfig",
    }
    assert "write `namespace`" in told["prod.kubeflow.nmespace"]
    assert "write `image`" in told["prod.imag"]


@pytest.mark.parametrize("root", ["/var/kfp", "bucket/kfp", "https://s3.example.com/kfp"])
def test_the_root_of_artifacts_is_one_that_kubeflow_knows(home: Path, root: str) -> None:
    (told,) = findings(home, {"prod": {**GOOD, "kubeflow": {"host": "https://x", "pipeline_root": root}}}).values()
    assert "an address that begins with s3://, gs://, minio://" in told


def test_a_target_holds_no_token(home: Path) -> None:
    assert (
        "token_env"
        in findings(home, {"prod": {**GOOD, "kubeflow": {"host": "https://x", "token": "s3cr3t"}}})[
            "prod.kubeflow.token"
        ]
    )


def test_a_file_that_is_no_mapping_says_what_it_should_be(home: Path) -> None:
    assert "NAME: {...} for each target" in findings(home, "- prod")["the file"]
    write(home, "")
    assert load_targets() == {}


def test_what_the_store_and_mlflow_need_is_told_by_the_environment(home: Path) -> None:
    write(home, {"prod": {**GOOD, "mlflow": "https://mlflow", "s3_endpoint": "https://s3"}, "bare": GOOD})
    assert find_target("prod").environment() == {
        "HEADRACE_STORE": "s3://headrace/store",
        "MLFLOW_TRACKING_URI": "https://mlflow",
        "AWS_ENDPOINT_URL": "https://s3",
    }
    assert find_target("bare").environment() == {"HEADRACE_STORE": "s3://headrace/store"}


def test_data_of_this_machine_cannot_go_to_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = {"name": "x", "task": "image-classification", "data": {"source": str(tmp_path / "data")}, "model": "resnet8"}
    load_spec(spec)
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec, target="prod")
    assert raised.value.findings[0].where == "data.source"
    assert "where prod cannot read it" in raised.value.findings[0].given
