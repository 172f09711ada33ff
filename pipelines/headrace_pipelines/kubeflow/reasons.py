"""Why a step failed or does not start, where the step itself could not say: its pod's status, its log, the artifact.

Kubeflow's API has none of it. Pods are looked at by the target's kubeconfig, if it names one; the `executor-logs`
artifact by the target's pipeline_root. Without either the answer is only where to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.base.errors import HeadraceError, RunFailed
from headrace_pipelines.kubeflow.cluster import Cluster

if TYPE_CHECKING:
    from headrace.cluster import Cluster as Kubernetes
    from headrace.cluster.pods import Pod

RUN_LABEL = "pipeline/runid"  # on every pod that Kubeflow makes for a run
NAMESPACE = "kubeflow"  # of a single-user Kubeflow's pods
CONTAINER = "main"  # of a step's pod: ours; the others are Argo's and Kubeflow's
LOG = "executor-logs"
LOG_LINES = 5000
PATIENCE_SECONDS = 5.0  # with an API server that is only asked for a better word


def _kubernetes(cluster: Cluster) -> Kubernetes | None:
    """The cluster that the target's kubeconfig names; None where it names none."""
    target = cluster.target
    if target.kubeconfig is None:
        return None
    from headrace.cluster import connect

    namespace = target.kubeflow.namespace or NAMESPACE
    return connect(target.kubeconfig, target.context, namespace, patience_seconds=PATIENCE_SECONDS)


def pods_of(cluster: Cluster, kubeflow_run: str) -> list[Pod]:
    """The pods of a run, oldest first; none where the target names no kubeconfig.

    Raises:
        Unavailable: the cluster does not answer.
    """
    kubernetes = _kubernetes(cluster)
    if kubernetes is None:
        return []
    from headrace.cluster.pods import pods

    return pods(kubernetes, f"{RUN_LABEL}={kubeflow_run}")


def why_waiting(cluster: Cluster, kubeflow_run: str) -> str | None:
    """What keeps the pods of a run from starting, in words; None where nothing is known."""
    return "; ".join(f"{pod.name}: {pod.waits}" for pod in pods_of(cluster, kubeflow_run) if pod.waits) or None


def explained(cluster: Cluster, kubeflow_run: str, step: str, otherwise: HeadraceError) -> HeadraceError:
    """The error of a STEP that left no word, as its pod or its log tells it; else OTHERWISE."""
    for pod in reversed(pods_of(cluster, kubeflow_run)):
        if pod.failure:
            memory = "OOMKilled" in pod.failure
            return RunFailed(
                f"the pod of step {step} failed: {pod.failure} ({pod.name})",
                action=otherwise.action,
                code="out-of-memory" if memory else otherwise.code,
            )
    if (last := _last_words(cluster, kubeflow_run, step)) is not None:
        return RunFailed(f"step {step} failed: {last}", action=otherwise.action, code="step-failed")
    return otherwise


def logs(cluster: Cluster, kubeflow_run: str) -> Iterator[str]:
    """What the pods of a run printed, pod by pod, while they are there; else the artifacts of it."""
    kubernetes = _kubernetes(cluster)
    there = False
    for pod in pods_of(cluster, kubeflow_run) if kubernetes is not None else ():
        assert kubernetes is not None
        there = True
        yield f"== {pod.name}\n{kubernetes.log(pod.name, CONTAINER, lines=LOG_LINES)}\n"
    if not there:
        for path, text in _artifacts(cluster, kubeflow_run):
            yield f"== {path}\n{text}\n"


def _last_words(cluster: Cluster, kubeflow_run: str, step: str) -> str | None:
    """The last line of the step's log, which is a traceback's error."""
    for path, text in _artifacts(cluster, kubeflow_run):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if f"/{step}/" in path and lines:
            return lines[-1][:400]
    return None


def _artifacts(cluster: Cluster, kubeflow_run: str) -> Iterator[tuple[str, str]]:
    """The logs that Kubeflow's launcher put below `<root>/<pipeline>/<run>/<task>/<execution>/`, by path."""
    root = cluster.target.kubeflow.pipeline_root
    if root is None:
        return
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(root)
    for found in sorted(filesystem.glob(f"{path.rstrip('/')}/*/{kubeflow_run}/*/*/{LOG}")):
        yield str(found), filesystem.cat_file(found).decode("utf-8", "replace")
