"""The kinds of API objects that the operators read and write, each named once."""

from __future__ import annotations

from headrace.api.parts import GROUP, VERSION
from headrace_operators.runtime.kinds import Kind

TRAINING_RUN = Kind(GROUP, VERSION, "TrainingRun", "trainingruns")
MODEL_DEPLOYMENT = Kind(GROUP, VERSION, "ModelDeployment", "modeldeployments")
MODEL_MONITOR = Kind(GROUP, VERSION, "ModelMonitor", "modelmonitors")

RAY_JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")
RAY_CLUSTER = Kind("ray.io", "v1", "RayCluster", "rayclusters")
RAY_SERVICE = Kind("ray.io", "v1", "RayService", "rayservices")

POD = Kind("", "v1", "Pod", "pods")
SERVICE = Kind("", "v1", "Service", "services")
EVENT = Kind("", "v1", "Event", "events")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")

# Renewed at the end of each backup that went well.
BACKUP_LEASE = "headrace-backup"

WORKLOAD = Kind("kueue.x-k8s.io", "v1beta1", "Workload", "workloads")

# Labels of what the operators make, and of its pods.
TRAINING_RUN_LABEL = f"{GROUP}/training-run"
ATTEMPT_LABEL = f"{GROUP}/attempt"
RUN_ID_LABEL = f"{GROUP}/run-id"
MODEL_DEPLOYMENT_LABEL = f"{GROUP}/model-deployment"
