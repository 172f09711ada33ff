"""Commands on the stand-in's target, in this process and on real file descriptors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import execute
from headrace.spec import load_spec
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.run import ClusterRun, submit
from headrace_testbed.waiting import eventually
from kfp_stand_in.bed import Steps, write_spec, write_targets
from kfp_stand_in.script import Script
from kfp_stand_in.server import KubeflowStandIn


class Bed:
    """A target, the commands on it, and the stand-in behind it."""

    def __init__(self, folder: Path, stand_in: KubeflowStandIn, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.stand_in = stand_in
        self.steps = Steps(str(folder / "store"))
        self.play()
        self.spec = write_spec(folder)
        self._capture = capture
        self.out = self.err = ""

    def play(self, **instead: Any) -> None:
        self.stand_in.world.work = Script(**self.steps.plays(**instead))

    def target(self, **kubeflow: Any) -> None:
        write_targets(self.folder / "home", self.stand_in, self.folder / "store", **kubeflow)

    def __call__(self, *words: str) -> int:
        stdout, stream = os.dup(1), sys.stdout
        try:
            return execute([str(word) for word in words])
        finally:
            os.dup2(stdout, 1)
            sys.stdout = stream
            os.close(stdout)
            self.out, self.err = self._capture.readouterr()

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def begin(self) -> ClusterRun:
        return submit(Cluster.named("kubeflow"), load_spec(self.spec))

    def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        eventually(holds, seconds, 0.02)

    def running(self, run: ClusterRun, step: str) -> None:
        """Wait until STEP of RUN has said that it runs."""
        self.until(lambda: any(e.get("step") == step and e.get("state") == "running" for e in run.events()))
