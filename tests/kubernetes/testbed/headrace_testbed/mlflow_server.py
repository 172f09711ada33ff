"""MLflow's own server, on SQLite: what the operators ask is asked of the real one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from headrace_testbed.cache import cache_root, cached
from headrace_testbed.processes import Daemon, free_port

_DATABASE = "mlflow.db"
START_SECONDS = 240  # 8 on a quiet machine, 100 and more on a very busy one


class MLflowServer:
    """`mlflow server` with its database in FOLDER; a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        self._database = folder / _DATABASE
        command += ["--backend-store-uri", f"sqlite:///{self._database}", "--default-artifact-root", str(folder)]
        self.daemon = Daemon("mlflow", command, folder / "mlflow.log", {"MLFLOW_DISABLE_TELEMETRY": "true"})
        self._http = httpx.Client(base_url=f"{self.url}/api/2.0/mlflow", timeout=120, trust_env=False)

    def __enter__(self) -> MLflowServer:
        name, new = f"mlflow-{version('mlflow')}-empty", not self._database.exists()
        known = (cache_root() / name).exists()
        if new and known:  # much of the time until it serves goes into making its tables
            shutil.copyfile(cache_root() / name / _DATABASE, self._database)
        self.daemon.start()
        self.daemon.wait_for(self._serves, START_SECONDS)
        if new and not known:
            cached(name, self._keep_empty)
        return self

    def _keep_empty(self, folder: Path) -> None:
        """Write the database to FOLDER without its first experiment: that knows its server's folder."""
        with (
            contextlib.closing(sqlite3.connect(self._database)) as source,
            contextlib.closing(sqlite3.connect(folder / _DATABASE)) as kept,
        ):
            source.backup(kept)
            kept.execute("DELETE FROM experiments")
            kept.commit()

    def __exit__(self, *details: object) -> None:
        self._http.close()
        self.daemon.kill()

    def _serves(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", trust_env=False).is_success
        return False

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to MLflow's REST API."""
        response = self._http.post(path, json=dict(body))
        response.raise_for_status()
        told: dict[str, Any] = response.json()
        return told

    def start_run(self, headrace_run_id: str, **tags: str) -> str:
        """Start a run as Headrace's reporter does, found by the tag `headrace.run_id`; its id."""
        marks = {"headrace.run_id": headrace_run_id} | {f"headrace.{name}": value for name, value in tags.items()}
        body = {"experiment_id": "0", "tags": [{"key": name, "value": value} for name, value in marks.items()]}
        return str(self.post("/runs/create", body)["run"]["info"]["run_id"])

    def tag_run(self, run_id: str, **tags: str) -> None:
        """Set tags `headrace.NAME` of a run."""
        for name, value in tags.items():
            self.post("/runs/set-tag", {"run_id": run_id, "key": f"headrace.{name}", "value": value})

    def register(self, name: str, versions: int) -> None:
        """Register a model with so many versions, each with a package."""
        self.post("/registered-models/create", {"name": name})
        for number in range(1, versions + 1):
            self.register_version(name, str(number))

    def register_version(self, name: str, package: str) -> None:
        """Register one more version of a model, with the package numbered PACKAGE."""
        source = f"s3://bucket/packages/{package}"
        found = {"package_uri": source, "package_sha256": f"{int(package):064x}"}
        tags = [{"key": f"headrace.{key}", "value": value} for key, value in found.items()]
        self.post("/model-versions/create", {"name": name, "source": source, "tags": tags})

    def alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias."""
        self.post("/registered-models/alias", {"name": name, "alias": alias, "version": version})

    def aliased(self, name: str, alias: str) -> str:
        """The version that an alias names, "" for none."""
        response = self._http.get("/registered-models/alias", params={"name": name, "alias": alias})
        return "" if response.is_error else str(response.json()["model_version"]["version"])
