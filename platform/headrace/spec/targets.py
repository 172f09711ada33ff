"""The sites that `--on` can name: this machine, and the clusters of `$HEADRACE_HOME/targets.yaml`.

A target says where a cluster is and how it is reached, never a credential: those come from the environment or from
files that it names. The file is read whole and judged whole, as specs are.

    prod:
      kubeflow: {host: https://kubeflow.example.com/pipeline, namespace: team-a, token_env: KFP_TOKEN}
      store: s3://headrace/store
      mlflow: https://mlflow.example.com
      image: registry.example.com/headrace/runtime:0.1.0
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from headrace.base.errors import Finding, InvalidInput, SpecInvalid
from headrace.base.home import home
from headrace.spec.findings import report_errors, shown
from headrace.spec.fold import Folded
from headrace.spec.model import Part, Text
from headrace.spec.yaml_reader import Document, read_yaml

LOCAL = "local"
FILE = "targets.yaml"
ROOTS = ("s3://", "gs://", "minio://")  # of artifacts, as Kubeflow's launcher knows them
ENVIRONMENT = ("HEADRACE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")
EXAMPLE = (
    "NAME: {kubeflow: {host: https://HOST/pipeline, namespace: NAMESPACE, token_env: KFP_TOKEN}, "
    "store: s3://BUCKET/PREFIX, mlflow: https://MLFLOW, image: REGISTRY/headrace/runtime:TAG}"
)

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+.*$")]
Seconds = Annotated[int, Field(ge=1, le=86_400)]


class Kubeflow(Part):
    """How Kubeflow Pipelines' API is reached."""

    host: Url = Field(description="Address of the API as a browser has it, without `/apis/...`.")
    namespace: Text | None = Field(
        default=None, description="The profile's namespace where Kubeflow is multi-user. Default: it is not."
    )
    ca: Text | None = Field(default=None, description="File of the CA that signed its certificate. Default: the usual.")
    verify: bool = Field(default=True, description="False takes any certificate: for a trial only.")
    token_env: Text | None = Field(default=None, description="Environment variable that holds the bearer token.")
    token_file: Text | None = Field(
        default=None, description="File that holds the bearer token; read again for every request, so it may change."
    )
    service_account: Text | None = Field(
        default=None, description="ServiceAccount of the steps' pods. Default: Kubeflow's own."
    )
    pipeline_root: Text | None = Field(
        default=None,
        description="Where Kubeflow keeps the artifacts of runs: s3:// (read at s3_endpoint, as the store is), gs://, "
        "or minio://, the store inside Kubeflow. Default: where it is set up to, and no log is read from there.",
    )
    start_deadline_seconds: Seconds = Field(
        default=900,
        description="Seconds that a step's pod may take to start, image and all. Kubeflow itself waits for ever.",
    )


class Target(Part):
    """One cluster."""

    kubeflow: Kubeflow = Field(description="How Kubeflow Pipelines is reached.")
    store: Text = Field(description="The store's URL, the same here and in the cluster: s3://BUCKET/PREFIX.")
    s3_endpoint: Url | None = Field(
        default=None, description="Address of the S3 store from here. Default: AWS_ENDPOINT_URL, else Amazon's."
    )
    mlflow: Url | None = Field(default=None, description="MLflow's address from here, for first weights from there.")
    image: Text = Field(description="The runtime image that the steps run, as the cluster pulls it.")
    queue: Text | None = Field(
        default=None, description="Kueue's LocalQueue that admits trainings. Default: what the chart set for the site."
    )
    kubeconfig: Text | None = Field(
        default=None,
        description="Kubeconfig of the cluster, for its pods and deployments. Default: nobody looks at them.",
    )
    context: Text | None = Field(default=None, description="Context of that file. Default: its current one.")

    def environment(self) -> dict[str, str]:
        """What the store and MLflow are told by (of ENVIRONMENT), for a process that works for this target."""
        told = dict(zip(ENVIRONMENT, (self.store, self.mlflow, self.s3_endpoint), strict=True))
        return {name: value for name, value in told.items() if value is not None}


def targets_file() -> Path:
    """Where targets are written."""
    return home() / FILE


def require_target(name: str) -> str:
    """NAME, if it is a target that there is. Raises InvalidInput naming those, SpecInvalid where the file is wrong."""
    if name != LOCAL:
        find_target(name)
    return name


def find_target(name: str) -> Target:
    """The cluster NAME.

    Raises:
        InvalidInput: there is none of that name.
        SpecInvalid: the file has mistakes; all of them.
    """
    known = load_targets()
    if name not in known:
        raise InvalidInput(
            f"there is no target {name!r}; there is: {', '.join((LOCAL, *known))}",
            action=f"leave out --on to run on this machine, or write it in {targets_file()}: {EXAMPLE}",
            code="unknown-target",
        )
    return known[name]


def load_targets() -> dict[str, Target]:
    """Every cluster of the file, in its order; none where there is no file. Raises SpecInvalid for its mistakes."""
    path = targets_file()
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SpecInvalid(f"{path} cannot be read: {error}", action="mend the file", code="targets-invalid") from error
    return _judged(document, path)


def _judged(document: Document, path: Path) -> dict[str, Target]:
    folded = Folded(document.value if isinstance(document.value, dict) else {}, findings=list(document.findings))
    if not isinstance(document.value, (dict, type(None))):
        folded.findings.append(Finding("the file", "not a mapping", "NAME: {...} for each target", EXAMPLE))
    found = {name: target for name in folded.record if (target := _target(folded, name, path.parent)) is not None}
    if folded.findings:
        count = len(folded.findings)
        raise SpecInvalid(
            f"{path} has {'a mistake' if count == 1 else f'{count} mistakes'}",
            action="mend it and run again" if count == 1 else "mend them and run again",
            code="targets-invalid",
            findings=folded.findings,
        )
    return found


def _target(folded: Folded, name: str, folder: Path) -> Target | None:
    """The target NAME with its paths absolute; None, and findings in FOLDED, where it is wrong."""
    before = len(folded.findings)
    given = folded.record[name]
    if name == LOCAL:
        folded.report((name,), "this machine's own name", "any other name", "rename it")
    try:
        target = Target.model_validate_json(json.dumps(given))
    except ValidationError as error:
        report_errors(folded, error, Target, (name,))
        return None
    kubeflow = target.kubeflow
    if kubeflow.token_env and kubeflow.token_file:
        where = (name, "kubeflow", "token_file")
        folded.report(where, "a second place of the token", "one of token_env and token_file", "remove one")
    if kubeflow.pipeline_root and not kubeflow.pipeline_root.startswith(ROOTS):
        where, allowed = (name, "kubeflow", "pipeline_root"), "an address that begins with " + ", ".join(ROOTS)
        folded.report(where, shown(kubeflow.pipeline_root), allowed, "write it as Kubeflow has it, or leave it out")
    if target.context and not target.kubeconfig:
        folded.report((name, "kubeconfig"), "missing", "a file", f"name the file that has the context {target.context}")
    _files(folded, name, target, folder)
    if len(folded.findings) > before:
        return None
    return _absolute(target, folder)


def _files(folded: Folded, name: str, target: Target, folder: Path) -> None:
    """Report files that are not there. A token's may be written later: it is missed when it is needed."""
    for path, value in (((name, "kubeflow", "ca"), target.kubeflow.ca), ((name, "kubeconfig"), target.kubeconfig)):
        if value is not None and not (found := _path(value, folder)).is_file():
            folded.report(path, f"{shown(value)}: there is no file {found}", "a file that exists", "correct the path")


def _absolute(target: Target, folder: Path) -> Target:
    paths: dict[str, Any] = {
        key: str(_path(value, folder))
        for key in ("ca", "token_file")
        if (value := getattr(target.kubeflow, key)) is not None
    }
    kubeflow = target.kubeflow.model_copy(update={**paths, "host": target.kubeflow.host.rstrip("/")})
    kubeconfig = None if target.kubeconfig is None else str(_path(target.kubeconfig, folder))
    return target.model_copy(update={"kubeflow": kubeflow, "kubeconfig": kubeconfig, "store": target.store.rstrip("/")})


def _path(text: str, folder: Path) -> Path:
    return folder / Path(os.path.expandvars(text)).expanduser()
