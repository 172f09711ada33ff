"""The front as a Ray Serve application: what `serveConfigV2` and the laptop's PUT name as `import_path`.

The application takes no arguments and is the same for every deployment: all that differs stands in `user_config`, whose
change restarts nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve as ray_serve

from headrace.serving import ray_internals
from headrace.serving.autoscaling import REQUESTS_INSIDE
from headrace.serving.contract import FrontConfig, StableVersion
from headrace.serving.front import Front, Served, serve
from headrace.serving.measures import FLUSH_SECONDS, Measures, RayMeasures
from headrace.serving.packages import load_served_model
from headrace.serving.settings import FrontSettings
from headrace.serving.versions import Versions

LOOPBACK_VARIABLE = "HEADRACE_LOOPBACK"
# A replica that could not load its first version shows why for so long, then asks to be replaced: a fresh try.
_GIVE_UP_AFTER_SECONDS = 60.0


ray_internals.answer_v2_without_detour()
if os.environ.get(LOOPBACK_VARIABLE) == "1":
    ray_internals.keep_internal_grpc_on_loopback()


def _device() -> str:
    """The accelerator that Ray reserved for this replica, or the CPU."""
    import ray

    return "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"


def _one_thread() -> None:
    """One compute thread for each replica: several fight over the cores, and small models are slower with more."""
    import torch

    torch.set_num_threads(1)


@ray_serve.deployment(name="front")
@ray_serve.ingress()
class FrontDeployment:
    """One replica of a front. Ray calls `reconfigure` with the contract's `user_config`, first before any traffic."""

    def __init__(self) -> None:
        context = ray_serve.get_replica_context()
        settings = FrontSettings.from_environment()
        measures: Measures = RayMeasures(context.app_name)
        _one_thread()
        executor = ThreadPoolExecutor(1, thread_name_prefix="headrace-compute", initializer=_one_thread)
        device = _device()

        def load(version: StableVersion) -> Served:
            try:
                model = load_served_model(version, device)
                served = serve(model, version.version, settings, measures, executor)
            except Exception:
                measures.load(version.version, "failed")
                raise
            measures.load(version.version, "loaded")
            return served

        self._front = Front(Versions(context.replica_id.unique_id, load), settings, measures)
        self._flushing: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> Front:
        return self._front

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take a new configuration. The first waits until it is loaded (no traffic yet); later ones return at once."""
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())
        versions = self._front.versions
        versions.configure(FrontConfig.from_record(user_config))
        if versions.live is None:
            await asyncio.to_thread(versions.wait_idle)

    async def check_health(self) -> None:
        """Ask to be replaced when there has been nothing to serve for long."""
        failed = self._front.versions.failed_seconds()
        if failed is not None and failed > _GIVE_UP_AFTER_SECONDS:
            raise RuntimeError(self._front.versions.status().error)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `headrace.serving.autoscaling` counts replicas by; Serve asks where a deployment is autoscaled."""
        return {REQUESTS_INSIDE: self._front.inside.take()}

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._front.measures.flush(self._front.admission.requests)


application = FrontDeployment.bind()  # type: ignore[attr-defined]  # the decorator makes it a Deployment
