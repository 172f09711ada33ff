"""What a training tells the operator, by way of MLflow: tags of its run, found by the first of them.

The reporter of the training writes them, the operator reads them over MLflow's REST API; nothing else passes between
the two. Values are text, as MLflow's tags are.
"""

from __future__ import annotations

RUN_ID_TAG = "headrace.run_id"
ATTEMPT_TAG = "headrace.attempt"  # the pair "n.m" of whoever wrote last
CHECKPOINT_URI_TAG = "headrace.checkpoint_uri"  # the newest whole checkpoint
CHECKPOINT_EPOCH_TAG = "headrace.checkpoint_epoch"
PACKAGE_URI_TAG = "headrace.package_uri"  # of the trained package; of a registered version, too
PACKAGE_SHA256_TAG = "headrace.package_sha256"
CPU_SECONDS_TAG = "headrace.cpu_seconds"  # that workers reserved, all attempts together
GPU_SECONDS_TAG = "headrace.gpu_seconds"

# The last line of a driver that failed: this word and {"code", "message", "permanent"} as JSON. KubeRay keeps the end
# of the log in the RayJob's status.
FAILURE_LINE = "HEADRACE_FAILURE"
