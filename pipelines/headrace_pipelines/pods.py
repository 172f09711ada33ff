"""What the steps' pods get in a workspace of the chart: its environment, another pod when one is lost, no cache.

All of it is part of the compiled pipeline, so that one golden file serves all sites; what differs between them stands
in the ConfigMap and the Secrets that the chart writes. kfp.local leaves the platform's part out.
"""

from __future__ import annotations

from typing import Any

SITE = "headrace-site"
SITE_KEYS = ("HEADRACE_SITE", "HEADRACE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_REGION")
SECRETS = {
    "headrace-store": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "headrace-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
}

# With the defaults that Kubeflow ships only a pod that is gone (deleted, its node lost) is tried again. A program that
# fails is not, and by Argo's source neither is a pod that a kubelet evicts: one that failed with a message is a failure
# to Argo, no error. So a step tries by itself what a second try can mend, and this is for what no program can.
LOST_PODS = 3
WAIT = "10s"
FACTOR = 2.0
# Argo's budget from the first try on, not a cap on one wait: shorter than the step, and nothing is tried again.
BUDGET = "336h"


def in_the_workspace(task: Any) -> None:
    """Give TASK, a task of the pipeline, what every step has."""
    from kfp import kubernetes

    # Kubeflow's cache knows neither our code nor the data; each step looks into the store.
    task.set_caching_options(False)
    task.set_retry(LOST_PODS, backoff_duration=WAIT, backoff_factor=FACTOR, backoff_max_duration=BUDGET)
    kubernetes.use_config_map_as_env(task, SITE, {key: key for key in SITE_KEYS}, optional=True)
    for secret, keys in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
