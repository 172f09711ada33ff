"""A run's steps, carried out: the container's own command in a process, as Kubeflow's launcher starts it in a pod.

The process gets the executor's input as the launcher writes it, and of the cluster's environment exactly what the
compiled pipeline asks for, so a variable that the pipeline forgets is missing here too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_stand_in.script import Failed, Lost, StepTask

GRACE_SECONDS = 30.0


class Programs:
    """Runs commands with FOLDER for what pods write. `base` is what an image has in its environment (PATH, HOME)."""

    def __init__(self, folder: Path, base: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.base = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **(base or {})}
        self.logs: dict[tuple[str, str], str] = {}

    def run(self, task: StepTask) -> Mapping[str, Any]:
        """Do TASK; its output parameters."""
        folder = Path(tempfile.mkdtemp(prefix=f"{task.name}-", dir=self.folder))
        executor_input = self._input(task, folder)
        words = [*task.container.get("command", ()), *task.container.get("args", ())]
        command = [word.replace("{{$}}", json.dumps(executor_input)) for word in words]
        log = folder / "executor-logs"
        environment = {**self.base, **task.environment, "TMPDIR": str(folder), "KFP_RETRY_INDEX": str(task.retry)}
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._wait(process, task)
        self.logs[task.run_id, task.name] = log.read_text(encoding="utf-8", errors="replace")
        if task.stop.is_set():
            raise Lost
        if process.returncode != 0:
            raise Failed(process.returncode)
        return self._outputs(task, folder)

    def _wait(self, process: subprocess.Popen[bytes], task: StepTask) -> None:
        told = 0.0
        while process.poll() is None:
            if task.stop.wait(0.05):
                told = told or time.monotonic()
                number = signal.SIGTERM if time.monotonic() - told < GRACE_SECONDS else signal.SIGKILL
                if number == signal.SIGKILL or time.monotonic() - told < 0.1:
                    os.killpg(process.pid, number)
                time.sleep(0.1)

    def _input(self, task: StepTask, folder: Path) -> dict[str, Any]:
        artifacts = {
            name: {
                "artifacts": [
                    {"name": name, "type": declared["artifactType"], "uri": str(folder / name), "metadata": {}}
                ]
            }
            for name, declared in task.outputs.get("artifacts", {}).items()
        }
        parameters = {name: {"outputFile": str(folder / name)} for name in task.outputs.get("parameters", {})}
        return {
            "inputs": {"parameterValues": dict(task.inputs)},
            "outputs": {
                "parameters": parameters,
                "artifacts": artifacts,
                "outputFile": str(folder / "executor_output.json"),
            },
        }

    def _outputs(self, task: StepTask, folder: Path) -> dict[str, Any]:
        found = {}
        for name in task.outputs.get("parameters", {}):
            path = folder / name
            if path.exists():
                found[name] = path.read_text(encoding="utf-8")
        written = folder / "executor_output.json"
        if written.exists():
            found |= json.loads(written.read_text(encoding="utf-8")).get("parameterValues", {})
        return found
