"""Homes that are backed up and restored: what a person's own one holds, and commands that are run in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.base.home import home as the_home
from headrace.base.ids import new_run_id
from headrace.local import desired_state
from headrace.local.desired_state import Deployment
from headrace.local.run_files import RunFiles
from headrace.serving.contract import StableVersion
from headrace.store import Store
from headrace.tracking import TrackedRun, registry, service
from headrace_models.package import build_model, write_package
from headrace_models.tasks import Sample, Schema, build_task
from headrace_testbed.told import told

ROWS = [{"rooms": float(n), "city": ("Rome", "Oslo")[n % 2]} for n in range(8)]
RUN_ID = new_run_id("houses")
LEFT_OUT = ("MLFLOW_TRACKING_URI", "HEADRACE_STORE", "MLFLOW_BACKEND_STORE_URI")


def in_home(place: Path) -> dict[str, str]:
    """The environment of commands whose home is PLACE."""
    return {name: value for name, value in os.environ.items() if name not in LEFT_OUT} | {"HEADRACE_HOME": str(place)}


def headrace(place: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """What `headrace WORDS --json` says in the home PLACE."""
    with pytest.MonkeyPatch.context() as patch:
        for name in LEFT_OUT:
            patch.delenv(name, raising=False)
        patch.setenv("HEADRACE_HOME", str(place))
        return told(*words, code=code)


def live_in(place: Path) -> None:
    """Put a run, its curves, a registered package, an alias and an endpoint into the home PLACE."""
    with pytest.MonkeyPatch.context() as patch:
        for name in LEFT_OUT:
            patch.delenv(name, raising=False)
        patch.setenv("HEADRACE_HOME", str(place))
        package, sha256 = _package()
        run = TrackedRun.open(RUN_ID, "houses")
        for epoch in range(1, 4):
            run.log_metrics({"train.loss": 1 / epoch}, step=epoch)
        logged = run.log_package(package, sha256)
        version = registry.register(
            "houses",
            package_uri=str(package),
            package_sha256=sha256,
            run_id=RUN_ID,
            mlflow_run_id=run.mlflow_run_id,
            model_id=logged.model_id,
        )
        registry.set_alias("houses", "champion", version.version)
        run.finish()
        _local_side(StableVersion(version.version, str(package), sha256))


def stop_service(place: Path) -> None:
    """End what the commands in PLACE have started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        service.stop()


def _package() -> tuple[Path, str]:
    torch.manual_seed(0)
    schema = Schema("kind", ("x", "y"), {"rooms": "number", "city": "category"})
    samples = [Sample(f"r{n}", row, {"kind": "xy"[n % 2]}) for n, row in enumerate(ROWS)]
    task = build_task({"name": "tabular-classification", "args": {}}, schema)
    task.learn([task.summarise(samples)])
    record = {"name": "mlp", "args": {}}
    folder = the_home() / "store" / "packages" / ("a" * 64)
    sha256 = write_package(
        folder,
        task=task,
        model=build_model(record, task, None),
        model_record=record,
        code_folder=None,
        provenance={"run_id": RUN_ID},
        example=task.request(samples[:2]),
    )
    return folder, sha256


def _local_side(stable: StableVersion) -> None:
    """What a run and a deployment leave in the home besides."""
    store = Store()
    files = RunFiles.of(RUN_ID)
    spec = {"gate": [], "register": {"name": "houses", "alias": "champion"}, "deploy": {"name": "houses"}}
    request = {"run_id": RUN_ID, "name": "houses", "created": "2026-11-26T04:00:00+00:00", "store": store.url}
    files.write_run({**request, "spec": spec, "target": "local"})
    files.write_result({"run_id": RUN_ID, "state": "succeeded", "model": {"uri": stable.package_uri}}, 0)
    store.claim_attempt(RUN_ID, "1.1")
    store.write_json(store.uri("runs", RUN_ID, "checkpoints", "1.json"), {"much": "x" * 1000})
    store.write_json(store.uri("runs", RUN_ID, "steps", "train", "1.1", "result.json"), {"package": stable.package_uri})
    with desired_state.locked():
        desired_state.write_desired({"houses": Deployment("houses", "houses", stable, config_id="1-a")})
