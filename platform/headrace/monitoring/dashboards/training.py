"""What trains, what waits and why, what fails, and whether the machines that are paid for are used?"""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.alerts_training import ON_ITS_WAY
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

SPACE = 'namespace=~"$namespace"'
PODS = f'{SPACE},{names.RUN_LABEL}=~"$run",{names.RUN_LABEL}!=""'
ALERTS = "HeadraceTraining.*"
_POD = f"{{{{{names.RUN_LABEL}}}}} {{{{pod}}}}"


def _phase(*phases: str) -> str:
    return f'sum({names.TRAINING_RUNS}{{{SPACE},phase=~"{"|".join(phases)}"}}) or vector(0)'


def _ended(result: str) -> str:
    return f'sum(increase({names.TRAINING_ATTEMPTS}{{{SPACE},result=~"{result}"}}[24h]))'


def _wait(share: float) -> str:
    buckets = f"sum by (le) (rate({names.TRAINING_QUEUE_WAIT}_bucket{{{SPACE}}}[$__range]))"
    return f"histogram_quantile({share}, {buckets})"


NOW = Row(
    "Now",
    (
        number("Running", "Runs whose driver trains.", _phase("Running")),
        number(
            "Waiting",
            "Runs that are to train and do not: in a queue, without a node, pulling an image, between two attempts.",
            _phase("Pending", "Waiting", "Retrying"),
            alert="HeadraceTrainingRunWaiting",
        ),
        number("Suspended", "Runs that rest because somebody asked. They hold no pods.", _phase("Suspended")),
        number(
            "Waiting longest",
            "How long the run that waits longest has waited: for pods, nodes or images, not for its turn in a queue.",
            f"time() - min({names.TRAINING_WAITING_SINCE}{{{SPACE},{ON_ITS_WAY}}})",
            "s",
            steps=Steps(GREEN, ((1200, ORANGE), (7200, RED))),
            empty="none waits",
            alert="HeadraceTrainingRunWaiting",
        ),
        number(
            "Silent longest",
            "How long ago the run that has been silent longest reported something new. Longer than its epochs take is "
            "a run that stands still and holds its pods.",
            f"time() - min({names.TRAINING_PROGRESS}{{{SPACE}}})",
            "s",
            steps=Steps(GREEN, ((3600, ORANGE), (14400, RED))),
            empty="none runs",
            alert="HeadraceTrainingRunNoProgress",
        ),
        number(
            "Attempts that failed, 24 h",
            "Share of the attempts that ended. Attempts that were preempted or suspended are no failures.",
            f"{_ended('failed')} / ({_ended('.*')} > 0)",
            "percentunit",
            steps=Steps(GREEN, ((0.2, ORANGE), (0.5, RED))),
            empty="none ended",
            alert="HeadraceTrainingRunsFailing",
        ),
    ),
)
STUCK = Row(
    "What stands still?",
    (
        Panel(
            "Runs that wait",
            "Those that wait longest, for how long, and the reason that their status gives. A queue is for waiting.",
            (
                Query(
                    f"sort_desc(time() - max by (namespace, name, reason) ({names.TRAINING_WAITING_SINCE}{{{SPACE}}}))"
                ),
            ),
            "s",
            "table",
            Steps(GREEN, ((1200, ORANGE),)),
            empty="none waits",
            alert="HeadraceTrainingRunWaiting",
            value="for",
        ),
        Panel(
            "Runs that are silent",
            "Those that train and have been silent longest, and for how long.",
            (Query(f"sort_desc(time() - max by (namespace, name) ({names.TRAINING_PROGRESS}{{{SPACE}}}))"),),
            "s",
            "table",
            Steps(GREEN, ((3600, ORANGE),)),
            empty="none runs",
            alert="HeadraceTrainingRunNoProgress",
            value="for",
        ),
    ),
)
COURSE = Row(
    "How did it come to this?",
    (
        Panel(
            "Runs by phase",
            "All runs that there are. Waiting that grows while Running does not: the cluster is full, or nothing fits.",
            (Query(f"sum by (phase) ({names.TRAINING_RUNS}{{{SPACE}}})", "{{phase}}"),),
            look="stacked",
        ),
        Panel(
            "Attempts that ended",
            "In an hour, by how. Many that were interrupted: nodes go away, or Kueue preempts.",
            (Query(f"sum by (result) (increase({names.TRAINING_ATTEMPTS}{{{SPACE}}}[1h]))", "{{result}}"),),
            look="stacked",
            alert="HeadraceTrainingRunsFailing",
        ),
        Panel(
            "From attempt to driver",
            "Queue, scheduler, images and Ray together, of the attempts that began in the time shown.",
            (Query(_wait(0.5), "half less than"), Query(_wait(0.9), "90 % less than")),
            "s",
        ),
        Panel(
            "Cores and GPUs that workers reserve",
            "As their runs report it, about once an epoch.",
            (
                Query(f"sum(rate({names.TRAINING_CPU_SECONDS}{{{SPACE}}}[10m]))", "CPU cores"),
                Query(f"sum(rate({names.TRAINING_GPU_SECONDS}{{{SPACE}}}[10m]))", "GPUs"),
            ),
        ),
    ),
)
INSIDE = Row(
    "Are the pods' machines used?",
    (
        Panel(
            "CPU in use",
            "Cores by pod, as Ray measures them. Workers near 0 wait for data or for each other.",
            (Query(f"{names.RAY_NODE_CPU}{{{PODS}}} / 100 * {names.RAY_NODE_CPUS}{{{PODS}}}", _POD),),
        ),
        Panel(
            "Memory in use",
            "Share of what the pod may have. At 100 % its processes are killed, and the attempt with them.",
            (Query(f"{names.RAY_NODE_MEMORY_USED}{{{PODS}}} / {names.RAY_NODE_MEMORY_TOTAL}{{{PODS}}}", _POD),),
            "percentunit",
            steps=Steps(GREEN, ((0.9, RED),)),
        ),
        Panel(
            "GPUs in use",
            "Share of the time that each GPU computed. A low one waits for data: more loaders, larger batches.",
            (Query(f"{names.RAY_NODE_GPU}{{{PODS}}} / 100", f"{_POD} {{{{GpuIndex}}}}"),),
            "percentunit",
            empty="no GPUs",
        ),
        Panel(
            "GPU memory in use",
            "By GPU. Near its end, the next larger batch does not fit.",
            (Query(f"{names.RAY_NODE_GPU_MEMORY_USED}{{{PODS}}} * 1000000", f"{_POD} {{{{GpuIndex}}}}"),),
            "decbytes",
            empty="no GPUs",
        ),
    ),
)
BOARD = Board(
    "headrace-training",
    "Headrace / Training",
    "TrainingRuns: what trains, what waits and why, what fails, and whether the machines are used.",
    (
        Variable("namespace", names.TRAINING_RUNS, "namespace", "Namespace"),
        Variable("run", f'{names.RAY_NODE_MEMORY_USED}{{{SPACE},{names.RUN_LABEL}!=""}}', names.RUN_LABEL, "Run"),
    ),
    (NOW, STUCK, COURSE, INSIDE),
    ALERTS,
)
