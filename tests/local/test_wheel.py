"""People install the built wheel: its base install plans, lists and completes without torch, Ray, MLflow or kfp."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "ray", "mlflow", "kfp", "numpy", "pyarrow", "sklearn", "kubernetes")
SPEC = """\
name: digits
task: image-classification
data: {source: "builtin:digits", format: image-folder}
model: {name: resnet8}
train: {epochs: 2, workers: 2}
gate: [accuracy >= 0.9]
register: {name: digits, alias: champion}
deploy: {name: digits}
"""


@pytest.fixture(scope="session")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and the locked versions of its base dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("base")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", folder / "dist", ROOT], check=True)
    (wheel,) = (folder / "dist").glob("headrace-*.whl")
    venv.create(folder / "env")
    pins = re.findall(r"^([a-z0-9._-]+==[^ ]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    python = folder / "env" / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, "--compile-bytecode", "-c", folder / "constraints.txt", wheel],
        check=True,
    )
    return folder / "env" / "bin"


@pytest.fixture
def headrace(base_install: Path, tmp_path: Path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HEADRACE"))}
    environment["HEADRACE_HOME"] = str(tmp_path / "home")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [base_install / "headrace", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_base_install_brings_nothing_heavy(base_install: Path) -> None:
    code = f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"
    shown = subprocess.run([base_install / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_plan_works_on_the_base_install_and_says_what_it_cannot_know(headrace, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    done = headrace("plan", "spec.yaml", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [step["name"] for step in plan["steps"]] == ["split", "train", "register", "deploy"]
    shown = headrace("plan", "spec.yaml")
    assert shown.returncode == 0, shown.stderr
    assert "pip install 'headrace[train]'" in shown.stdout


def test_models_and_schema_work_on_the_base_install(headrace) -> None:
    models = headrace("models")
    assert models.returncode == 0, models.stderr
    assert all(name in models.stdout for name in ("mlp", "resnet8", "resnet20", "resnet18"))
    one = headrace("models", "resnet8")
    assert one.returncode == 0, one.stderr
    assert "activation" in one.stdout
    schema = headrace("schema")
    assert schema.returncode == 0, schema.stderr
    assert json.loads(schema.stdout)["type"] == "object"


def test_a_bad_spec_is_judged_on_the_base_install(headrace, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC.replace("resnet8", "resnt8").replace("epochs: 2", "epochs: -1"))
    done = headrace("plan", "spec.yaml", "--json")
    assert done.returncode == 2, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert {f["where"] for f in findings} == {"model.name", "train.epochs"}
    assert next(f for f in findings if f["where"] == "model.name")["allowed"].startswith("resnet8")
    assert "Traceback" not in done.stderr


def test_a_command_that_needs_more_names_the_extra(headrace, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    done = headrace("run", "spec.yaml")
    assert done.returncode == 2
    assert "pip install 'headrace[" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_quick(headrace) -> None:
    headrace("--help")
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        assert headrace("--help").returncode == 0
        seconds.append(time.monotonic() - started)
    print(f"headrace --help: best of five {min(seconds):.3f} s")  # reported, not asserted: machines are noisy
