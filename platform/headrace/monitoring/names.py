"""The one place for names of metrics: those we make, and those of others that our dashboards and alerts read.

The operator and the fronts declare their metrics by these names, and queries are made of them, so a metric that is
renamed is renamed everywhere. Standard library only.
"""

from __future__ import annotations

# --- The operator: what only Headrace knows -------------------------------------------------------------------------
CACHE_OBJECTS = "headrace_cache_objects"
CACHE_BYTES = "headrace_cache_bytes"
WATCH_ENDS = "headrace_watch_ends_total"
EVENTS = "headrace_events_total"
MLFLOW_UP = "headrace_mlflow_up"
BACKUP_SUCCESS = "headrace_backup_last_success_timestamp_seconds"
DEPLOYMENTS = "headrace_deployments"
DEPLOYMENT_STATE = "headrace_deployment_state"
DEPLOYMENT_REPLICAS = "headrace_deployment_replicas"
DEPLOYMENT_ANSWERING = "headrace_deployment_answering_replicas"
DEPLOYMENT_VERSION = "headrace_deployment_version_info"
DEPLOYMENT_SWAP_SECONDS = "headrace_deployment_swap_seconds"
MONITOR_HEALTHY = "headrace_monitor_healthy"
MONITOR_PROMETHEUS_UP = "headrace_monitor_prometheus_up"
MONITOR_REQUESTS = "headrace_monitor_requests"
MONITOR_ERROR_RATIO = "headrace_monitor_error_ratio"
MONITOR_LATENCY = "headrace_monitor_latency_seconds"
TRAINING_RUNS = "headrace_training_runs"
TRAINING_QUEUE_WAIT = "headrace_training_queue_wait_seconds"
TRAINING_ATTEMPTS = "headrace_training_attempts_total"
TRAINING_CPU_SECONDS = "headrace_training_cpu_seconds_total"
TRAINING_GPU_SECONDS = "headrace_training_gpu_seconds_total"
TRAINING_WAITING_SINCE = "headrace_training_run_waiting_since_timestamp_seconds"
TRAINING_PROGRESS = "headrace_training_run_progress_timestamp_seconds"

# --- Reasons of runs that wait, besides those that pods and nodes give ------------------------------------------------
IN_QUEUE = ("Queued", "NotQueued", "WaitsForQuota")  # Kueue's
MISTAKEN = ("SpecInvalid",)  # whoever wrote it was told at once

# --- The operator: controller-runtime's and client-go's names --------------------------------------------------------
REST_REQUESTS = "rest_client_requests_total"
REST_SECONDS = "rest_client_request_duration_seconds"
QUEUE_DEPTH = "workqueue_depth"
QUEUE_ADDS = "workqueue_adds_total"
QUEUE_RETRIES = "workqueue_retries_total"
QUEUE_WAIT = "workqueue_queue_duration_seconds"
QUEUE_WORK = "workqueue_work_duration_seconds"
QUEUE_UNFINISHED = "workqueue_unfinished_work_seconds"
QUEUE_LONGEST = "workqueue_longest_running_processor_seconds"
RECONCILES = "controller_runtime_reconcile_total"
RECONCILE_ERRORS = "controller_runtime_reconcile_errors_total"
RECONCILE_SECONDS = "controller_runtime_reconcile_time_seconds"
ACTIVE_WORKERS = "controller_runtime_active_workers"
MAX_WORKERS = "controller_runtime_max_concurrent_reconciles"
LEADING = "leader_election_master_status"
PROCESS_CPU = "process_cpu_seconds_total"
PROCESS_MEMORY = "process_resident_memory_bytes"

# --- The fronts, as Ray's agent serves them: what `ray.util.metrics` is told, behind Ray's prefix ---------------------
RAY_PREFIX = "ray_"
REQUESTS = "ray_headrace_requests_total"
REQUEST_SECONDS = "ray_headrace_request_seconds"
BATCH_ROWS = "ray_headrace_batch_rows"
BATCH_SECONDS = "ray_headrace_batch_seconds"
REQUESTS_WAITING = "ray_headrace_requests_waiting"
VERSION_LOADS = "ray_headrace_version_loads_total"

# --- Ray Serve's and Ray's own ----------------------------------------------------------------------------------------
SERVE_REPLICA_HEALTHY = "ray_serve_deployment_replica_healthy"
RAY_NODE_CPU = "ray_node_cpu_utilization"  # percent of ray_node_cpu_count
RAY_NODE_CPUS = "ray_node_cpu_count"
RAY_NODE_MEMORY_USED = "ray_node_mem_used"
RAY_NODE_MEMORY_TOTAL = "ray_node_mem_total"
RAY_NODE_GPU = "ray_node_gpus_utilization"  # percent, one series a GPU
RAY_NODE_GPU_MEMORY_USED = "ray_node_gram_used"  # megabytes

# --- Prometheus' own --------------------------------------------------------------------------------------------------
UP = "up"
ALERTS = "ALERTS"

FROM_OPERATOR = (
    *(CACHE_OBJECTS, CACHE_BYTES, WATCH_ENDS, EVENTS, MLFLOW_UP, BACKUP_SUCCESS),
    *(DEPLOYMENTS, DEPLOYMENT_STATE, DEPLOYMENT_REPLICAS, DEPLOYMENT_ANSWERING, DEPLOYMENT_VERSION),
    *(DEPLOYMENT_SWAP_SECONDS, MONITOR_HEALTHY, MONITOR_PROMETHEUS_UP, MONITOR_REQUESTS, MONITOR_ERROR_RATIO),
    *(MONITOR_LATENCY, TRAINING_RUNS, TRAINING_QUEUE_WAIT, TRAINING_ATTEMPTS, TRAINING_CPU_SECONDS),
    *(TRAINING_GPU_SECONDS, TRAINING_WAITING_SINCE, TRAINING_PROGRESS),
    *(REST_REQUESTS, REST_SECONDS, QUEUE_DEPTH, QUEUE_ADDS, QUEUE_RETRIES, QUEUE_WAIT, QUEUE_WORK, QUEUE_UNFINISHED),
    *(QUEUE_LONGEST, RECONCILES, RECONCILE_ERRORS, RECONCILE_SECONDS, ACTIVE_WORKERS, MAX_WORKERS, LEADING),
    *(PROCESS_CPU, PROCESS_MEMORY),
)
FROM_FRONTS = (REQUESTS, REQUEST_SECONDS, BATCH_ROWS, BATCH_SECONDS, REQUESTS_WAITING, VERSION_LOADS)
FROM_RAY = (
    *(SERVE_REPLICA_HEALTHY, RAY_NODE_CPU, RAY_NODE_CPUS, RAY_NODE_MEMORY_USED, RAY_NODE_MEMORY_TOTAL),
    *(RAY_NODE_GPU, RAY_NODE_GPU_MEMORY_USED),
)
FROM_PROMETHEUS = (UP, ALERTS)

# --- Labels that our PodMonitors give to what Ray pods serve ----------------------------------------------------------
RUN_LABEL = "training_run"
DEPLOYMENT_LABEL = "model_deployment"
