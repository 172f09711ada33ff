"""Is the operator well, does it keep up, and does what it stands on hold?"""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.alerts_operators import JOB
from headrace.monitoring.dashboards.parts import (
    GREEN,
    ORANGE,
    RED,
    Board,
    Panel,
    Query,
    Row,
    Steps,
    Variable,
    number,
)

OURS = f'job="{JOB}",namespace=~"$namespace"'
ALERTS = "Headrace(Operator|Reconcile|WorkQueue|MLflow|Backup).*"
_ZERO_IS_WELL = Steps(GREEN, ((1, RED),))
_ONE_IS_WELL = Steps(RED, ((1, GREEN),))


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{{{OURS}}}[$__rate_interval])))"


WELL = Row(
    "Is it well?",
    (
        number(
            "Leader",
            "Whether a replica holds the lease. Without one, nothing new begins and nothing is changed; what is served "
            "and what trains goes on.",
            f"sum({names.LEADING}{{{OURS}}}) or vector(0)",
            steps=_ONE_IS_WELL,
            words=(("0", "nobody"), ("1", "leads")),
            alert="HeadraceOperatorWithoutLeader",
        ),
        number(
            "Replicas",
            "Pods of the operator that Prometheus reaches. One acts, the others wait to take over.",
            f"sum({names.UP}{{{OURS}}}) or vector(0)",
            steps=_ONE_IS_WELL,
            alert="HeadraceOperatorWithoutLeader",
        ),
        number(
            "MLflow",
            "Whether the MLflow server of the installation answers the operator.",
            f'min({names.MLFLOW_UP}{{{OURS},own="true"}})',
            steps=_ONE_IS_WELL,
            words=(("0", "down"), ("1", "answers")),
            empty="not asked",
            alert="HeadraceMLflowDown",
        ),
        number(
            "Last good backup",
            "How long ago it ended.",
            f"time() - (max({names.BACKUP_SUCCESS}{{{OURS}}}) > 0)",
            "s",
            steps=Steps(GREEN, ((93600, ORANGE), (172800, RED))),
            empty="never",
            alert="HeadraceBackupTooOld",
        ),
        number(
            "Failed reconciles, last hour",
            "Each is tried again. A few after an upgrade are normal; one object that fails for ever is 12 an hour.",
            f"sum(increase({names.RECONCILE_ERRORS}{{{OURS}}}[1h]))",
            steps=_ZERO_IS_WELL,
            alert="HeadraceReconcileErrors",
        ),
        number(
            "Alerts",
            "Alerts of Headrace that fire now, on all dashboards.",
            f'sum({names.ALERTS}{{alertname=~"Headrace.*",alertstate="firing"}}) or vector(0)',
            steps=_ZERO_IS_WELL,
        ),
    ),
)
KEEPS_UP = Row(
    "Does it keep up?",
    (
        Panel(
            "Objects that wait for a worker",
            "Keys in the work queue, by controller. It is near 0 when all is quiet and jumps when much changes at "
            "once; it must come down again.",
            (Query(f"sum by (name) ({names.QUEUE_DEPTH}{{{OURS}}})", "{{name}}"),),
            steps=Steps(GREEN, ((100, ORANGE),)),
            alert="HeadraceWorkQueueGrowing",
        ),
        Panel(
            "How long they wait (99 % less than)",
            "From a change being seen to a worker taking it. Seconds mean that changes are taken up late.",
            (Query(_quantile(0.99, names.QUEUE_WAIT, "name"), "{{name}}"),),
            "s",
            alert="HeadraceWorkQueueGrowing",
        ),
        Panel(
            "Reconciles",
            "Rounds a second, by controller and result. `error` is tried again with growing pauses, `requeue` means "
            "that the object had changed meanwhile.",
            (
                Query(
                    f"sum by (controller, result) (rate({names.RECONCILES}{{{OURS}}}[$__rate_interval]))",
                    "{{controller}} {{result}}",
                ),
            ),
            "ops",
            "stacked",
            alert="HeadraceReconcileErrors",
        ),
        Panel(
            "Time of a reconcile (99 % less than)",
            "Nearly all of it is the API server's. A slow one is seen here first.",
            (Query(_quantile(0.99, names.RECONCILE_SECONDS, "controller"), "{{controller}}"),),
            "s",
        ),
        Panel(
            "Workers that are busy",
            "Share of the workers of each controller. At 100 % for long, work waits: see the API server below, or give "
            "the operator more workers.",
            (
                Query(
                    f"sum by (controller) ({names.ACTIVE_WORKERS}{{{OURS}}})"
                    f" / (sum by (controller) ({names.MAX_WORKERS}{{{OURS}}}) > 0)",
                    "{{controller}}",
                ),
            ),
            "percentunit",
            steps=Steps(GREEN, ((1, ORANGE),)),
        ),
        Panel(
            "The oldest reconcile under way",
            "One that hangs. Each is ended after 5 minutes.",
            (Query(f"max by (name) ({names.QUEUE_LONGEST}{{{OURS}}})", "{{name}}"),),
            "s",
            steps=Steps(GREEN, ((60, ORANGE),)),
        ),
    ),
)
STANDS_ON = Row(
    "What it stands on",
    (
        Panel(
            "Requests to the API server",
            "By answer. 409 is somebody else being faster; 403 is a missing right; 429 and 5xx are an API server with "
            "trouble of its own; <error> is none at all.",
            (Query(f"sum by (code) (rate({names.REST_REQUESTS}{{{OURS}}}[$__rate_interval]))", "{{code}}"),),
            "reqps",
            "stacked",
            alert="HeadraceReconcileErrors",
        ),
        Panel(
            "Time of a request (99 % less than)",
            "By method, without watches. Tens of milliseconds are normal.",
            (Query(_quantile(0.99, names.REST_SECONDS, "method"), "{{method}}"),),
            "s",
            steps=Steps(GREEN, ((1, ORANGE),)),
        ),
        Panel(
            "Watches that ended",
            "`timeout` is as asked, every 5 to 10 minutes. `error` is a connection that broke, `gone` a list that had "
            "to be read anew, which costs the API server much.",
            (Query(f"sum by (kind, why) (increase({names.WATCH_ENDS}{{{OURS}}}[10m]))", "{{kind}} {{why}}"),),
        ),
        Panel(
            "Objects in memory",
            "What the caches hold, by kind. It grows with what there is in the cluster.",
            (Query(f"max by (kind) ({names.CACHE_OBJECTS}{{{OURS}}})", "{{kind}}"),),
        ),
        Panel(
            "Memory",
            "Resident memory of each replica; see the limit of its pod. 10,000 TrainingRuns take about 200 MiB.",
            (Query(f"max by (pod) ({names.PROCESS_MEMORY}{{{OURS}}})", "{{pod}}"),),
            "bytes",
        ),
        Panel(
            "CPU",
            "Cores in use by each replica. It is one Python process: 1 is all that it can use.",
            (Query(f"sum by (pod) (rate({names.PROCESS_CPU}{{{OURS}}}[$__rate_interval]))", "{{pod}}"),),
            steps=Steps(GREEN, ((0.9, ORANGE),)),
        ),
    ),
)
BOARD = Board(
    "headrace-operators",
    "Headrace / Operators",
    "Whether the operator is well, keeps up, and what it stands on: the API server, MLflow, the backup.",
    (Variable("namespace", f'{names.LEADING}{{job="{JOB}"}}', "namespace", "Operator's namespace"),),
    (WELL, KEEPS_UP, STANDS_ON),
    ALERTS,
)
