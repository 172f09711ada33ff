"""`headrace run` with a GPU for its worker and one for its endpoint: the specs of examples, by the same steps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import load_digits

ROOT = Path(__file__).resolve().parents[2]
GPUS = 0 if os.environ.get("HEADRACE_GPU_TESTS_ON") == "cpu" else 1
SPECS = {"examples/zoo/resnet8.yaml": 0.97, "examples/zoo/resnet50.yaml": 0.95}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hg", dir="/tmp"))
    yield folder
    headrace(folder, "down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def headrace(home: Path, *arguments: str) -> Any:
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    command = [Path(sys.executable).with_name("headrace"), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.mark.parametrize(("spec", "least"), SPECS.items())
def test_a_spec_trains_and_serves_on_a_gpu(home: Path, tmp_path: Path, spec: str, least: float) -> None:
    settings = (
        *("--set", "train.workers=1"),
        *("--set", f"train.gpus_per_worker={GPUS}"),
        *("--set", "train.precision=bfloat16"),
        *("--set", f"deploy.resources.gpus={GPUS}"),
    )
    result = headrace(home, "run", spec, "--json", *settings)
    assert result["state"] == "succeeded"
    assert result["metrics"]["accuracy"] >= least
    samples = load_digits()[1][:20]
    for number, sample in enumerate(samples):
        (tmp_path / f"{number:02d}.png").write_bytes(sample.payload)
    served = result["endpoint"]["model"]
    rows = headrace(home, "predict", served, *map(str, sorted(tmp_path.glob("*.png"))), "--json")["predictions"]
    right = sum(row["label"] == sample.labels["label"] for row, sample in zip(rows, samples, strict=True))
    assert right >= 18
    headrace(home, "undeploy", served, "--yes")  # the next one needs the GPU
