"""`headrace lr-find` as it is typed: a learning rate, its curve in MLflow, and no run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
SPEC = """
name: rates
task: image-classification
data: {source: builtin:digits}
model: {name: mlp, hidden: [32]}
train: {optimizer: {name: momentum, lr: 0.5}, batch_size: 32}
"""


def test_it_suggests_a_rate_and_leaves_the_curve_in_mlflow(headrace_home: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "spec.yaml").write_text(SPEC)
    done = subprocess.run(
        [BIN / "headrace", "lr-find", "spec.yaml", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 1e-3 < found["suggestion"] < found["lowest_at"] < found["stopped_at"]
    mlflow = MlflowClient(found["mlflow"]["tracking_uri"])
    run = mlflow.get_run(found["mlflow"]["run_id"])
    assert run.data.metrics["lr_finder.suggestion"] == found["suggestion"]
    assert run.info.status == "FINISHED"
    assert {file.path for file in mlflow.list_artifacts(run.info.run_id, "plots")} == {"plots/lr_finder.png"}
    table = Path(mlflow.download_artifacts(run.info.run_id, "lr_finder.tsv", str(tmp_path))).read_text()
    assert len(table.splitlines()) == len(found["rates"]) + 1
    runs = subprocess.run([BIN / "headrace", "runs", "--json"], capture_output=True, text=True, check=True)
    assert not any(one["run_id"].startswith("rates") for one in json.loads(runs.stdout)["runs"])
