"""The RayJob of one attempt: a pure function of the TrainingRun and of what earlier attempts left.

KubeRay ignores what is changed in a RayJob after its creation and runs its entrypoint again after a lost head. So a
RayJob is one attempt, created once and never applied again; whether there is another attempt is our decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.canonical import default_run_id
from headrace.api.training_run import TrainingRunSpec
from headrace_operators.kinds import ATTEMPT_LABEL, RAY_JOB, RUN_ID_LABEL, TRAINING_RUN_LABEL
from headrace_operators.ray_pods import Pods, cluster_spec, worker_group
from headrace_operators.runtime.kinds import Object, owner_reference

Record = dict[str, Any]

ENTRYPOINT = "python -m headrace.steps.training_job"
CLUSTER_TTL_SECONDS = 30  # the cluster of a job that ended: long enough that its end is seen before its pods go
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# KubeRay then makes no second head for a cluster that was ready once, so no second driver starts; we see to the rest.
_NO_SECOND_HEAD = {"ray.io/disable-provisioned-head-restart": "true"}
# Ray's agent answers for the node, on the head for the GCS too; it needs neither a token nor wget in the image.
_READINESS = {
    "httpGet": {"path": "/api/healthz", "port": 52365, "scheme": "HTTP"},
    "initialDelaySeconds": 2,  # KubeRay's own waits for 10 s, which every attempt would pay twice
    "periodSeconds": 2,
    "timeoutSeconds": 5,
    "successThreshold": 1,
    "failureThreshold": 10,
}


@dataclass(frozen=True)
class Attempt:
    """One attempt: its number, and what earlier ones left.

    Args:
        number: from 1.
        image: of all its pods.
        checkpoint_uri: the newest checkpoint, to go on from.
        mlflow_run_id: the MLflow run to go on in.
    """

    number: int
    image: str
    checkpoint_uri: str | None = None
    mlflow_run_id: str | None = None


def job_name(run_name: str, number: int) -> str:
    """Name of the RayJob of attempt NUMBER: at most 47 characters, as run names have at most 40."""
    return f"{run_name}-{number}"


def run_id_of(run: Object, spec: TrainingRunSpec) -> str:
    """The run that files and the MLflow run are found by."""
    return spec.run_id or default_run_id(run["metadata"]["name"], run["metadata"]["uid"])


def ray_job(run: Object, spec: TrainingRunSpec, attempt: Attempt) -> Record:
    """The manifest of ATTEMPT's RayJob, owned by RUN."""
    labels = {
        TRAINING_RUN_LABEL: run["metadata"]["name"],
        ATTEMPT_LABEL: str(attempt.number),
        RUN_ID_LABEL: run_id_of(run, spec),
    }
    return {
        "apiVersion": RAY_JOB.api_version,
        "kind": RAY_JOB.kind,
        "metadata": {
            "name": job_name(run["metadata"]["name"], attempt.number),
            "namespace": run["metadata"]["namespace"],
            "labels": labels | ({QUEUE_LABEL: spec.queue} if spec.queue else {}),
            "annotations": dict(_NO_SECOND_HEAD),
            "ownerReferences": [owner_reference(run)],
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": ENTRYPOINT,
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": CLUSTER_TTL_SECONDS,
            "preRunningDeadlineSeconds": spec.pre_running_deadline_seconds,
            # Only where Kueue lets it go. KubeRay drops a false when it writes the object back, which is a change.
            **({"suspend": True} if spec.queue else {}),
            "rayClusterSpec": _cluster(spec, attempt, labels),
        },
    }


def _cluster(spec: TrainingRunSpec, attempt: Attempt, labels: Mapping[str, str]) -> Record:
    """The head, which runs the driver and no training worker, and the workers, one training process in each."""
    cluster = cluster_spec(
        _head_pod(spec, attempt, labels), spec.authentication, head_cpus=0, workers=[_workers(spec, attempt, labels)]
    )
    head = cluster["headGroupSpec"]
    head["template"]["spec"]["containers"][0]["readinessProbe"] = dict(_READINESS)
    # Not started again in place: a head that died is always another pod, or none.
    head["template"]["spec"]["restartPolicy"] = "Never"
    return cluster


def _head_pod(spec: TrainingRunSpec, attempt: Attempt, labels: Mapping[str, str]) -> Pods:
    values = {
        "HEADRACE_TRAINING_RUN": spec_json(spec),
        "HEADRACE_RUN_ID": labels[RUN_ID_LABEL],
        "HEADRACE_ATTEMPT": f"{spec.run_attempt}.{attempt.number}",
        "HEADRACE_STORE": spec.store.uri,
        "MLFLOW_TRACKING_URI": spec.mlflow.tracking_uri,
        "HEADRACE_CHECKPOINT_URI": attempt.checkpoint_uri,
        "HEADRACE_MLFLOW_RUN_ID": attempt.mlflow_run_id,
    }
    fields = {"HEADRACE_RAY_CLUSTER": "metadata.labels['ray.io/cluster']", "HEADRACE_POD_UID": "metadata.uid"}
    environment: list[Record] = [{"name": name, "value": value} for name, value in values.items() if value]
    environment += [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]
    secrets = dict.fromkeys(name for name in (spec.store.secret_name, spec.mlflow.secret_name) if name)
    return _pod(spec, attempt, labels, environment, tuple(secrets))


def _workers(spec: TrainingRunSpec, attempt: Attempt, labels: Mapping[str, str]) -> Record:
    """As many as there may be: KubeRay starts the driver when every pod is ready, and makes lost ones again. How few
    are enough to go on with is the driver's to decide, so nothing needs Ray's autoscaler and its rights."""
    train = spec.train
    environment = [{"name": "HEADRACE_STORE", "value": spec.store.uri}]
    secrets = (spec.store.secret_name,) if spec.store.secret_name else ()
    pod = _pod(spec, attempt, labels, environment, secrets)
    group = worker_group(pod, "workers", train.workers.max, readiness_probe=_READINESS)
    group["minReplicas"] = train.workers.min
    # What one training process reserves, so that each pod holds one.
    group["rayStartParams"]["num-cpus"] = str(train.resources.cpus_per_worker)
    group["rayStartParams"]["num-gpus"] = str(train.gpus_per_worker)
    group["template"]["spec"]["restartPolicy"] = "Always"
    return group


def _pod(
    spec: TrainingRunSpec,
    attempt: Attempt,
    labels: Mapping[str, str],
    environment: list[Record],
    secrets: tuple[str, ...],
) -> Pods:
    return Pods(spec.pods, attempt.image, labels, tuple(environment), secrets=secrets)


def spec_json(spec: TrainingRunSpec) -> str:
    """SPEC as the driver gets it, in one line. `$(` would be the kubelet's to expand."""
    text = json.dumps(spec.to_record(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("$(", "$$(")
