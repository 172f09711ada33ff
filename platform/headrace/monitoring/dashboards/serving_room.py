"""Is there room in the replicas of endpoints? With it, how the serving dashboard chooses series."""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.dashboards.parts import GREEN, RED, Panel, Query, Row, Steps

FRONT = 'namespace=~"$namespace",deployment=~"$deployment"'
OPERATOR = 'namespace=~"$namespace",name=~"$deployment"'
PODS = f'namespace=~"$namespace",{names.DEPLOYMENT_LABEL}=~"$deployment",{names.DEPLOYMENT_LABEL}!=""'
APPLICATION = 'namespace=~"$namespace",application=~"$deployment"'


def quantile(share: float, metric: str, by: str = "") -> str:
    """What a SHARE of the fronts' observations lies below, also BY labels (`, name`)."""
    return f"histogram_quantile({share}, sum by (le{by}) (rate({metric}_bucket{{{FRONT}}}[$__rate_interval])))"


def rate(metric: str, by: str) -> str:
    """How fast a counter of the fronts grows, BY labels."""
    return f"sum by ({by}) (rate({metric}{{{FRONT}}}[$__rate_interval]))"


ROOM = Row(
    "Is there room?",
    (
        Panel(
            "Requests inside the replicas",
            "Waiting or being computed, by pod. One that has many while others have none hangs.",
            (Query(f"sum by (deployment, pod) ({names.REQUESTS_WAITING}{{{FRONT}}})", "{{deployment}} {{pod}}"),),
        ),
        Panel(
            "Rows of a batch, and its time",
            "Rows that are computed together (about), and what 90 % of batches take less than. Large and slow batches: "
            "more replicas.",
            (
                Query(
                    f"{rate(f'{names.BATCH_ROWS}_sum', 'deployment')}"
                    f" / {rate(f'{names.BATCH_ROWS}_count', 'deployment')}",
                    "{{deployment}} rows",
                ),
                Query(quantile(0.9, names.BATCH_SECONDS, ", deployment"), "{{deployment}} seconds"),
            ),
        ),
        Panel(
            "CPU in use",
            "Cores by pod, as Ray measures them.",
            (Query(f"{names.RAY_NODE_CPU}{{{PODS}}} / 100 * {names.RAY_NODE_CPUS}{{{PODS}}}", "{{pod}}"),),
        ),
        Panel(
            "Memory in use",
            "Share of what the pod may have. At 100 % its processes are killed.",
            (Query(f"{names.RAY_NODE_MEMORY_USED}{{{PODS}}} / {names.RAY_NODE_MEMORY_TOTAL}{{{PODS}}}", "{{pod}}"),),
            "percentunit",
            steps=Steps(GREEN, ((0.9, RED),)),
        ),
        Panel(
            "Healthy replicas",
            "As Ray Serve counts them: it replaces those that are not.",
            (Query(f"sum by (application) ({names.SERVE_REPLICA_HEALTHY}{{{APPLICATION}}})", "{{application}}"),),
            alert="HeadraceDeploymentDegraded",
        ),
        Panel(
            "Time of a change (90 % less than)",
            "From a configuration being in the RayService to every replica answering with it.",
            (
                Query(
                    "histogram_quantile(0.9, sum by (le) "
                    f"(increase({names.DEPLOYMENT_SWAP_SECONDS}_bucket[$__range])))",
                    "all deployments",
                ),
            ),
            "s",
            alert="HeadraceDeploymentStuck",
        ),
    ),
)
