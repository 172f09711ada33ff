"""Steps as the pods of a workspace would run them: processes with the environment that the chart gives them.

Each talks to the API server as the ServiceAccount `headrace-steps`, with the rights that the chart ships, to a real
MLflow and a real S3 store. What the driver of a TrainingRun leaves in the store is left by `driven`, as no pod runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.api.site import Site
from headrace.cluster import rights
from headrace.steps.keys import evaluation_uri
from headrace.store import Store
from headrace.store.run_events import EventReader
from headrace.store.step_files import read_error, read_result, result_uri, write_note
from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from kuberay_double import Script

SPLIT = "f" * 64
SMALL = {"cpu": "1", "memory": "1Gi"}
SECONDS = 300.0  # importing MLflow twice on a busy machine; 10 on a quiet one


class Workspace:
    """A namespace with what the chart puts into it, and the services that its steps need.

    Args:
        plane: with our kinds, and an operator at work.
        folder: logs, and the pods' homes.
        mlflow: the MLflow server.
        store: URL of the store, which this process can reach by its own environment.
    """

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, mlflow: MLflowServer, store: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.mlflow = mlflow
        self.store = Store(store)
        for manifest in rights.manifests():
            for subject in manifest.get("subjects", ()):
                subject["namespace"] = namespace
            plane.api.apply(manifest, "testbed", force=True, namespace=namespace)
        self.kubeconfig = plane.kubeconfig_for_service_account(namespace, rights.NAME)
        self.user = f"system:serviceaccount:{namespace}:{rights.NAME}"

    def site(self, script: Script | None = None) -> Site:
        """The site; SCRIPT is what KubeRay's double is to do with what is made there."""
        pods: Object = {"head": SMALL, "worker": SMALL, "sharedMemory": "256Mi", "image": "headrace/runtime:test"}
        if script is not None:
            pods["environment"] = [script.to_variable()]
        return Site.model_validate(
            {
                "store": {"uri": self.store.url},
                "mlflow": {"trackingURI": self.mlflow.url},
                "pods": pods,
                "maxRetries": 1,
            }
        )

    def start(self, step: str, *arguments: str, run: str, attempt: str = "1", script: Script | None = None) -> StepPod:
        """Start STEP of RUN's ATTEMPT with ARGUMENTS, those before the run's id."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE", "MLFLOW"))},
            "HEADRACE_HOME": str(self.folder / "home"),
            "HEADRACE_SITE": self.site(script).to_json(),
            "HEADRACE_STORE": self.store.url,
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "KUBECONFIG": str(self.kubeconfig),
        }
        return StepPod(self, step, arguments, (run, attempt), environment)

    def train(self, part: Object, *, run: str, attempt: str = "1", script: Script | None = None) -> StepPod:
        """Start the train step of RUN for PART of a spec."""
        return self.start("train", self._part(part), SPLIT, "", run=run, attempt=attempt, script=script)

    def package(self, name: str) -> tuple[str, str]:
        """URI and hash of a package with an evaluation, which holds no model."""
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        uri = self.store.uri("packages", sha256)
        self.store.write_json(f"{uri}/headrace.json", {"name": name})
        evaluation = {"metrics": {"accuracy": 0.9}, "samples": 10}
        self.store.write_json(evaluation_uri(self.store.uri, sha256, SPLIT), evaluation)
        return uri, sha256

    def driven(self, run: str, attempt: str = "1.1", champion: Object | None = None) -> Object:
        """Leave what a driver leaves that has trained in ATTEMPT."""
        uri, sha256 = self.package(run)
        mlflow_run = self.mlflow.start_run(run, attempt=attempt, package_uri=uri)
        result = {
            "package_uri": uri,
            "package_sha256": sha256,
            "evaluation_uri": evaluation_uri(self.store.uri, sha256, SPLIT),
            "metrics": {"accuracy": 0.9},
            "model_uri": None,
            "model_id": None,
            "mlflow": {"tracking_uri": self.mlflow.url, "experiment_id": "0", "run_id": mlflow_run},
            "split_fingerprint": SPLIT,
            "trained_by": run,
            "champion": champion,
            "parts": {},
            "step": "train",
            "run_id": run,
            "attempt": attempt,
        }
        self.store.claim_attempt(run, attempt)
        self.store.write_json(result_uri(self.store, run, "train", attempt), result)
        return result

    def register(self, run: str, training: Object, model: str, *gate: str) -> StepPod:
        """Start the register step of RUN, whose train step gave TRAINING, for MODEL's alias `champion`."""
        uris = [self._part(register_part(model, *gate)), self._part(deploy_part(model)), self._part({})]
        return self.start("register", *uris, write_note(self.store, run, "training", training), run=run)

    def deploy(self, run: str, registration: Object, model: str) -> StepPod:
        """Start the deploy step of RUN, whose register step gave REGISTRATION, to the endpoint called as MODEL."""
        uris = [self._part(deploy_part(model)), self._part(register_part(model))]
        return self.start("deploy", *uris, write_note(self.store, run, "registration", registration), run=run)

    def _part(self, value: Object) -> str:
        return self.store.put_spec(value)


def register_part(model: str, *gate: str) -> Object:
    """What a register step reads."""
    return {"gate": list(gate), "register": {"name": model, "alias": "champion"}}


def deploy_part(model: str) -> Object:
    """What a deploy step reads."""
    return {"name": model, "replicas": 1, "resources": {"cpus": None, "gpus": None, "memory_bytes": None}}


class StepPod:
    """A step that goes on, as a process."""

    def __init__(
        self,
        workspace: Workspace,
        step: str,
        arguments: Sequence[str],
        run: tuple[str, str],
        environment: dict[str, str],
    ) -> None:
        self._workspace = workspace
        self.step = step
        self.run, self.attempt = run
        code = f"import sys; from headrace.steps import {step}; {step}.{step}(*sys.argv[1:])"
        self.log = workspace.folder / f"{self.run}-{step}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments, *run], env=environment, stdout=log, stderr=log
            )

    def told(self, kind: str) -> list[Any]:
        """Its events of KIND in the store so far."""
        events = EventReader(self._workspace.store, self.run, self.attempt).new()
        return [event for event in events if event["type"] == kind and event.get("step") == self.step]

    def said(self, words: str) -> bool:
        """Whether it has told people WORDS."""
        return any(words in event["text"] for kind in ("message", "waiting") for event in self.told(kind))

    def end(self) -> int:
        """Wait for its exit code."""
        return self._process.wait(SECONDS)

    def result(self) -> Object:
        """What it ended with, which must be success."""
        assert self.end() == 0, self.log.read_text(errors="replace")[-3000:]
        found = read_result(self._workspace.store, self.run, self.step, self.attempt)
        assert found is not None
        return found

    def error(self) -> Object:
        """The error that it ended with."""
        assert self.end() != 0, self.log.read_text(errors="replace")[-3000:]
        found = read_error(self._workspace.store, self.run, self.step, self.attempt)
        assert found is not None, self.log.read_text(errors="replace")[-3000:]
        return found

    def lose(self) -> None:
        """Kill it as a node that is lost does."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Tell it to end, as the kubelet does."""
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it, if it still lives."""
        if self._process.poll() is None:
            self.lose()


def failure(code: str, message: str, *, permanent: bool) -> str:
    """The last line of a driver that failed."""
    return "HEADRACE_FAILURE " + json.dumps({"code": code, "message": message, "permanent": permanent})
