"""A package in MLflow: served by MLflow's own tools with the package's very answers, and nothing pickled."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from headrace.steps.predict import load_model, predict_batch
from headrace.tracking import TrackedRun, registry, service
from headrace.tracking.connection import own_uri
from headrace.tracking.runs import LoggedPackage
from headrace_models.package import build_model, load_package, write_package
from headrace_models.tasks import Sample, Schema, build_task
from headrace_testbed.processes import free_port

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of this module's own."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield place
        service.stop()


def pictures() -> list[bytes]:
    random = np.random.default_rng(0)
    found = []
    for _ in range(6):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (16, 16), dtype=np.uint8)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def packed(folder: Path, task_name: str, samples: list[Sample], schema: Schema, model: str) -> str:
    """An untrained model's package; its sha256."""
    torch.manual_seed(0)
    task = build_task({"name": task_name, "args": {}}, schema)
    task.learn([task.summarise(samples)])
    record = {"name": model, "args": {}}
    return write_package(
        folder,
        task=task,
        model=build_model(record, task, None),
        model_record=record,
        code_folder=None,
        provenance={"run_id": "tiny-aaaaaaaa"},
        example=task.request(samples[:2]),
    )


@pytest.fixture(scope="module")
def image_package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("image")
    samples = [Sample(f"s{n}", data, {"label": "ab"[n % 2]}) for n, data in enumerate(pictures())]
    return folder, packed(folder, "image-classification", samples, Schema("label", ("a", "b")), "resnet8")


@pytest.fixture(scope="module")
def table_package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("table")
    rows = [{"rooms": float(n), "city": ("Rome", "Oslo")[n % 2]} for n in range(8)]
    samples = [Sample(f"r{n}", row, {"kind": "xy"[n % 2]}) for n, row in enumerate(rows)]
    schema = Schema("kind", ("x", "y"), {"rooms": "number", "city": "category"})
    return folder, packed(folder, "tabular-classification", samples, schema, "mlp")


@pytest.fixture(scope="module")
def logged(image_package: tuple[Path, str]) -> tuple[TrackedRun, LoggedPackage]:
    folder, sha256 = image_package
    run = TrackedRun.open("tiny-aaaaaaaa", "tiny")
    package = run.log_package(folder, sha256)
    version = registry.register(
        "tiny", package_uri=str(folder), package_sha256=sha256, run_id=run.run_id, mlflow_run_id=run.mlflow_run_id
    )
    registry.set_alias("tiny", "champion", version.version)
    return run, package


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow as a user has it, on this home's store."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_uri())
    import mlflow.pyfunc

    return mlflow


def the_models_files(home: Path) -> list[Path]:
    return [path for path in (home / "mlflow" / "artifacts" / "tiny" / "models").rglob("*") if path.is_file()]


def test_a_package_is_logged_once_however_often_it_is_asked_for(
    logged: tuple[TrackedRun, LoggedPackage], image_package: tuple[Path, str]
) -> None:
    run, package = logged
    assert run.log_package(*image_package) == package
    version = registry.resolve("tiny@champion")
    assert version is not None
    assert version.model_uri == package.model_uri


def test_nothing_in_a_logged_model_is_a_pickle_or_a_file_of_the_callers(
    home: Path, logged: tuple[TrackedRun, LoggedPackage]
) -> None:
    files = the_models_files(home)
    names = {path.name for path in files}
    assert {"MLmodel", "requirements.txt", "input_example.json", "model.safetensors", "headrace.json"} <= names
    assert not names & {"uv.lock", "pyproject.toml", "python_model.pkl"}
    assert not [path for path in files if path.read_bytes()[:2] in PICKLES or path.suffix in (".pkl", ".pickle")]
    text = next(path for path in files if path.name == "MLmodel").read_text()
    assert "headrace_models.package.mlflow_loader" in text
    assert "cloudpickle" not in text
    pins = next(path for path in files if path.name == "requirements.txt").read_text().split()
    assert any(pin.startswith("torch==") for pin in pins)
    assert all("==" in pin for pin in pins)


def test_pyfunc_answers_a_picture_as_the_package_does(
    mlflow: Any, logged: tuple[TrackedRun, LoggedPackage], image_package: tuple[Path, str]
) -> None:
    import pandas as pd

    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    wanted = load_package(image_package[0])
    data = pictures()
    said = model.predict(pd.DataFrame({"image": data}))
    array = np.empty(len(data), dtype=object)
    array[:] = data
    outputs = wanted.predict({"image": array})
    assert said["label"].tolist() == outputs["label"].tolist()
    np.testing.assert_allclose(np.stack(said["probabilities"]), outputs["probabilities"], rtol=1e-5)
    assert [column.name for column in model.metadata.signature.inputs.inputs] == ["image"]
    told = ["label", "score", "probabilities", "top_labels", "top_scores"]
    assert [column.name for column in model.metadata.signature.outputs.inputs] == told
    assert len(model.input_example) == len(wanted.example["image"])


def test_pyfunc_answers_a_table_as_the_package_does(mlflow: Any, table_package: tuple[Path, str]) -> None:
    import pandas as pd

    folder, sha256 = table_package
    run = TrackedRun.open("table-aaaaaaaa", "table")
    package = run.log_package(folder, sha256)
    run.log_test_metrics({"accuracy": 0.5}, package=package)
    run.finish()
    model = mlflow.pyfunc.load_model(package.model_uri)
    frame = pd.DataFrame({"rooms": [1.0, None, 7.0], "city": ["Rome", "Bern", "Oslo"]})
    said = model.predict(frame)
    cities = np.empty(3, dtype=object)
    cities[:] = [b"Rome", b"Bern", b"Oslo"]
    outputs = load_package(folder).predict({"rooms": frame["rooms"].to_numpy(), "city": cities})
    assert said["label"].tolist() == outputs["label"].tolist()
    np.testing.assert_allclose(said["score"], outputs["score"], rtol=1e-5)
    metrics = mlflow.MlflowClient().get_logged_model(package.model_id).metrics
    assert [(metric.key, metric.value) for metric in metrics] == [("test.accuracy", 0.5)]


def test_mlflow_models_serve_answers_as_the_package_does_on_loopback(
    tmp_path: Path, logged: tuple[TrackedRun, LoggedPackage], image_package: tuple[Path, str]
) -> None:
    port = free_port()
    command = [
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/tiny@champion",
        "--env-manager",
        "local",
    ]
    binaries = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": own_uri(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
    }
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command, "-p", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 240
        while not _answers(port):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        data = pictures()
        records = [{"image": base64.b64encode(picture).decode()} for picture in data]
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": records}, timeout=60)
        assert answer.status_code == 200, answer.text
        array = np.empty(len(data), dtype=object)
        array[:] = data
        outputs = load_package(image_package[0]).predict({"image": array})
        said = answer.json()["predictions"]
        assert [row["label"] for row in said] == outputs["label"].tolist()
        np.testing.assert_allclose([row["score"] for row in said], outputs["score"], rtol=1e-5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_folder_is_predicted_without_an_endpoint_and_a_bad_file_is_a_row_with_its_error(
    tmp_path: Path, logged: tuple[TrackedRun, LoggedPackage]
) -> None:
    for place, data in enumerate(pictures()):
        (tmp_path / "in" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "sub" / f"{place}.png").write_bytes(data)
    (tmp_path / "in" / "sub" / "3.png").write_bytes(b"no picture")
    summary = predict_batch("tiny@champion", tmp_path / "in", tmp_path / "out.parquet")
    assert (summary["rows"], summary["errors"], summary["model"], summary["version"]) == (6, 1, "tiny", "1")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["sample_id"] for row in found] == [f"sub/{place}.png" for place in range(6)]
    assert [row["label"] is None for row in found] == [place == 3 for place in range(6)]
    assert [row["error"] is not None for row in found] == [place == 3 for place in range(6)]
    loaded = load_model("tiny/1")
    first = np.empty(1, dtype=object)
    first[:] = pictures()[:1]
    assert found[0]["label"] == loaded.predict({"image": first})["label"][0]


def test_a_package_folder_predicts_a_csv_without_any_registry(tmp_path: Path, table_package: tuple[Path, str]) -> None:
    (tmp_path / "in.csv").write_text("city,rooms\nRome,1\nOslo,\nBern,many\n")
    summary = predict_batch(str(table_package[0]), tmp_path / "in.csv", tmp_path / "out.parquet")
    assert (summary["rows"], summary["errors"], summary["version"]) == (3, 1, None)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert "many" in found[2]["error"]
    assert found[0]["label"] in ("x", "y")
