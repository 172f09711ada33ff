"""`headrace up` and `down`: everything of Headrace on this machine at once, and nothing of anybody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.local.runs import LocalRun, list_runs

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Standing:
    """What runs here now."""

    head: bool
    ui: str | None
    endpoints: tuple[dict[str, Any], ...]
    runs: tuple[LocalRun, ...]

    def lines(self) -> list[str]:
        """What stopping it all would change, one line a part."""
        told = [f"run {run.run_id}: running -> cancelled (it can be resumed)" for run in self.runs]
        told += [
            f"{endpoint['name']}: version {endpoint['version']} at {endpoint['url']} -> stopped, until `headrace up`"
            for endpoint in self.endpoints
            if endpoint["url"]
        ]
        if self.ui:
            told.append(f"MLflow's UI at {self.ui} -> stopped")
        return told


def up(tell: Tell) -> dict[str, Any]:
    """Start the Ray head with everything served, and make MLflow's store; returns `{"head", "mlflow", "endpoints"}`."""
    from headrace.local.deployments import bring_back
    from headrace.local.ray_head import ensure_head
    from headrace.tracking.calls import ensure_store, prepare

    prepare()  # MLflow's store is made while the head starts
    head = ensure_head(tell)
    uri = ensure_store()
    return {
        "head": {"address": head.address, "cpus": head.num_cpus, "gpus": head.num_gpus, "serve_url": head.serve_url},
        "mlflow": {"tracking_uri": uri},
        "endpoints": bring_back(head, tell=tell),
    }


def standing() -> Standing:
    """What of Headrace runs on this machine."""
    from headrace.local.deployments import deployments
    from headrace.local.head_record import read_head
    from headrace.tracking import ui

    found = ui.running()
    return Standing(
        head=read_head() is not None,
        ui=None if found is None else found.url,
        endpoints=tuple(deployments()),
        runs=tuple(run for run in list_runs() if run.running()),
    )


def down(here: Standing, tell: Tell) -> dict[str, Any]:
    """Stop all of HERE; returns `{"runs", "head", "ui", "tracking"}`: what was stopped."""
    from headrace.local.ray_head import stop_head
    from headrace.tracking import service, ui

    for run in here.runs:
        tell(f"cancelling {run.run_id}")
        run.cancel()
    return {
        "runs": [run.run_id for run in here.runs],
        "head": stop_head(),
        "ui": ui.stop(),
        "tracking": service.stop(),
    }
