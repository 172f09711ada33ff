"""The compiled pipeline: one for all specs, the same everywhere, with nothing of this machine in it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import yaml

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
