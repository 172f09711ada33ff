"""The compiled pipeline: one for all specs, the same everywhere, with nothing of this machine in it."""

from __future__ import annotations

import copy
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from headrace_pipelines import compiler
from headrace_pipelines.components import IMAGE


@pytest.fixture(scope="module")
def text() -> str:
    return compiler.compiled()


def test_the_pipeline_compiles_to_the_golden_file(text: str) -> None:
    assert compiler.GOLDEN.read_text() == text, "run `make generate`"


def test_the_check_tells_when_the_golden_file_is_not_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setattr(compiler, "GOLDEN", tmp_path / "pipeline.yaml")
    monkeypatch.setattr(compiler, "compiled", lambda: text)
    assert compiler.main(["--check"]) == 1
    assert "make generate" in capsys.readouterr().err
    assert compiler.main([]) == 0
    assert compiler.main(["--check"]) == 0


def test_it_holds_nothing_of_this_machine(text: str) -> None:
    for here in (str(Path.cwd()), str(Path.home()), sys.prefix, socket.gethostname(), os.sep + "tmp" + os.sep):
        assert here not in text


def test_it_names_no_registry_and_installs_nothing_at_run_time(text: str) -> None:
    images = {line.split("image:")[1].strip() for line in text.splitlines() if "image:" in line}
    assert images == {IMAGE}
    assert "/" not in IMAGE
    assert "pip" not in text.replace("pipeline", "")


def test_no_step_is_cached_by_kubeflow(text: str) -> None:
    assert "enableCache" not in text


def test_it_has_the_four_steps_and_what_each_reads(text: str) -> None:
    ir = next(yaml.safe_load_all(text))
    assert set(ir["deploymentSpec"]["executors"]) == {"exec-split", "exec-train", "exec-register", "exec-deploy"}
    inputs = ir["root"]["inputDefinitions"]["parameters"]
    assert {name: value["parameterType"] for name, value in inputs.items()} == dict.fromkeys(
        (
            "run_id",
            "attempt",
            "split_spec",
            "train_spec",
            "register_spec",
            "deploy_spec",
            "source_fingerprint",
            "champion",
            "request",
        ),
        "STRING",
    )


def test_steps_write_typed_artifacts(text: str) -> None:
    ir = next(yaml.safe_load_all(text))
    written = {
        name.removeprefix("comp-"): {
            artifact["artifactType"]["schemaTitle"]
            for artifact in component.get("outputDefinitions", {}).get("artifacts", {}).values()
        }
        for name, component in ir["components"].items()
    }
    assert written["split"] == {"system.Dataset"}
    assert written["train"] == {"system.Model", "system.Metrics"}
    assert written["register"] == {"system.Model"}


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def tasks(ir: Any) -> dict[str, Any]:
    """Every task of a step, whatever condition it is below."""
    components = [ir["root"], *ir["components"].values()]
    found = {name: task for one in components for name, task in one.get("dag", {}).get("tasks", {}).items()}
    return {name: task for name, task in found.items() if not name.startswith("condition")}


def test_it_is_valid_for_kfp_2_17(text: str) -> None:
    ir, platform = documents(text)
    json_format.ParseDict(ir, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for config in executors(platform).values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    assert (ir["sdkVersion"].rsplit(".", 1)[0], ir["schemaVersion"]) == ("kfp-2.17", "2.1.0")


def executors(platform: Any) -> dict[str, Any]:
    found: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return found


def test_every_step_has_the_environment_of_its_workspace(text: str) -> None:
    found = executors(documents(text)[1])
    assert set(found) == {"exec-split", "exec-train", "exec-register", "exec-deploy"}
    for config in found.values():
        assert [one["configMapName"] for one in config["configMapAsEnv"]] == ["headrace-site"]
        assert [one["secretName"] for one in config["secretAsEnv"]] == ["headrace-store", "headrace-mlflow"]
        variables = {pair["envVar"] for one in config["configMapAsEnv"] for pair in one["keyToEnv"]}
        assert {"HEADRACE_SITE", "HEADRACE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"} <= variables
        assert all(one["optional"] for one in (*config["configMapAsEnv"], *config["secretAsEnv"]))


def test_a_lost_pod_is_tried_again_for_longer_than_a_training_takes(text: str) -> None:
    for name, task in tasks(documents(text)[0]).items():
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == 3, name
        assert float(policy["backoffMaxDuration"].rstrip("s")) >= 14 * 86_400, "it is the whole budget, not one wait"


def test_every_step_can_find_out_which_run_of_a_schedule_it_is_in(text: str) -> None:
    for task in tasks(documents(text)[0]).values():
        parameters = task["inputs"]["parameters"]
        assert parameters["job_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"
        assert "componentInputParameter" in parameters["request"]


def test_a_laptop_does_a_step_that_fails_once() -> None:
    from headrace_pipelines.pipeline import headrace_pipeline
    from headrace_pipelines.runner import do_each_step_once

    spec = copy.deepcopy(headrace_pipeline.pipeline_spec)
    do_each_step_once(SimpleNamespace(pipeline_spec=spec))
    tasks = [task for part in (spec.root, *spec.components.values()) for task in part.dag.tasks.values()]
    assert tasks
    assert not any(task.HasField("retry_policy") for task in tasks)
