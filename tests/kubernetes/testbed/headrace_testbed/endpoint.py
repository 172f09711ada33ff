"""What stands behind a ModelDeployment's Service in a test: a local Ray with the real front, packages, a real MLflow.

Only the way there is made up: no pod runs, so the test itself carries a RayService's `serveConfigV2` to Ray's REST API,
which is all that KubeRay does with it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace.base.jsonfile import sha256_of
from headrace.local.head_record import Head
from headrace.local.ray_head import ensure_head, stop_head
from headrace.serving.client import ServeClient
from headrace.serving.contract import StableVersion
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.model_deployments import SERVICES

_NOT_INHERITED = ("HEADRACE_STORE", "HEADRACE_EVENTS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")


class LocalRay:
    """A home with a Ray head of its own. Its path is short, as Ray's sockets lie below it."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> LocalRay:
        own = {"HEADRACE_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        self._before = {name: os.environ.pop(name, None) for name in (*_NOT_INHERITED, *own)}
        os.environ.update(own)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        stop_head()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(self.home, ignore_errors=True)

    def head(self) -> Head:
        """Its head, started if need be."""
        return ensure_head(print)

    def package(self, version: str) -> StableVersion:
        """A package of an untrained network that classifies digits; the version's number is its seed."""
        import torch
        from PIL import Image
        from sklearn.datasets import load_digits

        from headrace_models.package import build_model, write_package
        from headrace_models.tasks import Sample, Schema, build_task

        samples = []
        for number, pixels in enumerate(load_digits().images[:32]):
            file = io.BytesIO()
            Image.fromarray((pixels * 15).astype("uint8")).save(file, "PNG")
            samples.append(Sample(str(number), file.getvalue(), {"label": str(number % 10)}))
        schema = Schema("label", tuple("0123456789"))
        task = build_task({"name": "image-classification", "args": {}}, schema)
        task.learn([task.summarise(samples)])
        torch.manual_seed(int(version))
        record = {"name": "mlp", "args": {}}
        folder = self.home / "store" / "packages" / sha256_of(["test", version])
        sha256 = write_package(
            folder,
            task=task,
            model=build_model(record, task),
            model_record=record,
            code_folder=None,
            provenance={"version": version},
            example=task.request(samples[:2]),
        )
        return StableVersion(version, str(folder), sha256)


def damage(version: StableVersion) -> StableVersion:
    """The same package with one byte of its weights changed."""
    weights = Path(version.package_uri) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    return version


class Carrier:
    """Carries one RayService's `serveConfigV2` to a head's Serve whenever it changes, and says so in its status.

    Only addresses are changed on the way: pods listen on all of theirs, a test on loopback.
    """

    def __init__(self, plane: ControlPlane, namespace: str, name: str, head: Head) -> None:
        self._plane = plane
        self._path = f"{SERVICES.format(namespace)}/{name}"
        self._head = head
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self.carried: list[dict[str, Any]] = []
        self.failed: BaseException | None = None

    def __enter__(self) -> Carrier:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)

    def _carry(self) -> None:
        last = ""
        try:
            with ServeClient(self._head.dashboard_url, self._head.token()) as serve:
                while not self._stop.wait(0.3):
                    found = [o for o in self._plane.api.list(self._path.rpartition("/")[0]) if self._is(o)]
                    if found and (text := found[0]["spec"]["serveConfigV2"]) != last:
                        record = json.loads(text)
                        record["proxy_location"] = "HeadOnly"
                        record["http_options"] |= {"host": "127.0.0.1", "port": self._head.serve_port}
                        serve.put(record)
                        last = text
                        self.carried.append(record)
                        seen = {"observedGeneration": found[0]["metadata"]["generation"]}
                        self._plane.api.patch(f"{self._path}/status", {"status": seen})
        except BaseException as error:
            self.failed = error
            raise

    def _is(self, obj: dict[str, Any]) -> bool:
        return bool(obj["metadata"]["name"] == self._path.rpartition("/")[2])


class Registry(MLflowServer):
    """A real MLflow with versions that a Headrace run could have registered."""

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rpartition(":")[2])

    def register_packages(self, name: str, *versions: StableVersion) -> None:
        """Make the model NAME with VERSIONS, which must be numbered from 1."""
        self.post("/registered-models/create", {"name": name})
        for version in versions:
            tags = {"headrace.package_uri": version.package_uri, "headrace.package_sha256": version.sha256}
            pairs = [{"key": key, "value": value} for key, value in tags.items()]
            made = self.post("/model-versions/create", {"name": name, "source": "s3://nowhere/model", "tags": pairs})
            assert made["model_version"]["version"] == version.version

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let ALIAS name VERSION."""
        self.post("/registered-models/alias", {"name": name, "alias": alias, "version": version})
