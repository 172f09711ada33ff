"""The operator's command: every flag has an environment variable, HEADRACE_OPERATOR_<NAME>, for pods set those."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class LogLevel(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    json = "json"
    text = "text"


def register(app: typer.Typer) -> None:
    """Add the command to APP."""
    app.command("operator")(operator)


def _option(name: str, words: str, **more: Any) -> Any:
    variable = "HEADRACE_OPERATOR_" + name.split("/")[0].removeprefix("--").upper().replace("-", "_")
    return typer.Option(name, envvar=variable, show_envvar=True, help=words, **more)


def operator(
    namespace: Annotated[
        str | None,
        _option("--namespace", "The only namespace to look at. Default: all.", metavar="NAME", show_default=False),
    ] = None,
    workers: Annotated[int, _option("--workers", "Objects of a kind that are worked on at once.", min=1, max=256)] = 8,
    metrics_address: Annotated[
        str, _option("--metrics-address", "Where /metrics is; empty for nowhere.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    health_address: Annotated[
        str, _option("--health-address", "Where /healthz and /readyz are; empty for nowhere.", metavar="HOST:PORT")
    ] = "127.0.0.1:8081",
    leader_election: Annotated[
        bool,
        _option("--leader-election/--no-leader-election", "Whether only the replica that holds a Lease acts."),
    ] = True,
    lease_namespace: Annotated[
        str | None,
        _option("--lease-namespace", "Where the Lease is. Default: our own namespace.", metavar="NAME"),
    ] = None,
    lease_name: Annotated[str, _option("--lease-name", "The Lease's name.", metavar="NAME")] = "headrace-operator",
    runtime_image: Annotated[
        str, _option("--runtime-image", "Image of pods whose object names none.", metavar="IMAGE")
    ] = "headrace:latest",
    mlflow_interval_seconds: Annotated[
        float, _option("--mlflow-interval-seconds", "How often MLflow is asked about a running object.", min=1)
    ] = 30.0,
    kubeconfig: Annotated[
        str | None,
        _option("--kubeconfig", "Kubeconfig to use. Default: the pod's ServiceAccount.", metavar="FILE"),
    ] = None,
    service_account_folder: Annotated[
        Path, _option("--service-account-folder", "Where a pod's token and ca.crt are mounted.", metavar="FOLDER")
    ] = Path("/var/run/secrets/kubernetes.io/serviceaccount"),
    log_level: Annotated[LogLevel, _option("--log-level", "How much is logged, to stderr.")] = LogLevel.info,
    log_format: Annotated[LogFormat, _option("--log-format", "How a line of the log looks.")] = LogFormat.json,
) -> None:
    """Run the Kubernetes operator.

    It turns TrainingRuns into RayJobs and ModelDeployments into RayServices, and watches over ModelMonitors.
    """
    from headrace_operators.process import ProcessOptions, run
    from headrace_operators.settings import OperatorSettings

    code = run(
        ProcessOptions(
            namespace=namespace or None,
            workers=workers,
            metrics_address=metrics_address,
            health_address=health_address,
            lease_name=lease_name if leader_election else None,
            lease_namespace=lease_namespace or None,
            kubeconfig=kubeconfig or None,
            service_account=service_account_folder,
            log_level=log_level.value,
            log_format=log_format.value,
            settings=OperatorSettings(runtime_image=runtime_image, mlflow_interval_seconds=mlflow_interval_seconds),
        )
    )
    if code:
        raise typer.Exit(code)
