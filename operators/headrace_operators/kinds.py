"""The kinds of API objects that the operators read and write, each named once."""

from __future__ import annotations

from headrace.api.kinds import LEASE, MODEL_DEPLOYMENT, MODEL_MONITOR, POD, TRAINING_RUN, Kind
from headrace.api.parts import GROUP, RUN_ID_LABEL

__all__ = [
    "ATTEMPT_LABEL",
    "BACKUP_LEASE",
    "ENDPOINT_SLICE",
    "EVENT",
    "LEASE",
    "MODEL_DEPLOYMENT",
    "MODEL_DEPLOYMENT_LABEL",
    "MODEL_MONITOR",
    "POD",
    "RAY_CLUSTER",
    "RAY_JOB",
    "RAY_SERVICE",
    "RUN_ID_LABEL",
    "SERVICE",
    "TRAINING_RUN",
    "TRAINING_RUN_LABEL",
    "WORKLOAD",
]

RAY_JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")
RAY_CLUSTER = Kind("ray.io", "v1", "RayCluster", "rayclusters")
RAY_SERVICE = Kind("ray.io", "v1", "RayService", "rayservices")

SERVICE = Kind("", "v1", "Service", "services")
EVENT = Kind("", "v1", "Event", "events")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")

# Renewed at the end of each backup that went well.
BACKUP_LEASE = "headrace-backup"

WORKLOAD = Kind("kueue.x-k8s.io", "v1beta1", "Workload", "workloads")

# Labels of what the operators make, and of its pods.
TRAINING_RUN_LABEL = f"{GROUP}/training-run"
ATTEMPT_LABEL = f"{GROUP}/attempt"
MODEL_DEPLOYMENT_LABEL = f"{GROUP}/model-deployment"
