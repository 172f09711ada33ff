"""Where a run's time went: into its steps, or into Kubeflow's own beats between them.

As shipped, Kubeflow costs some 20 seconds a step and 10 a run (a driver's pod before each step, the step's own pod, the
controller's interval of 10 seconds between two looks). docs/kubeflow.md has the settings that shorten it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace_pipelines.kubeflow.tasks import Seen


def beats(seen: Seen, step_seconds: Mapping[str, float]) -> dict[str, Any]:
    """Seconds of the whole run, of its steps by their own word (STEP_SECONDS), and of Kubeflow; None if not over.

    `drivers` and `pods` are the parts of Kubeflow's time that its tasks tell: its driver's pods, and a step's pod
    beyond the step itself.
    """
    total = seen.whole.seconds or None
    steps = sum(step_seconds.values())
    pods = sum(max(0.0, span.seconds - step_seconds.get(step, 0.0)) for step, span in seen.steps.items())
    return {
        "seconds": None if total is None else round(total, 3),
        "steps_seconds": round(steps, 3),
        "own_seconds": None if total is None else round(max(0.0, total - steps), 3),
        "drivers_seconds": round(sum(span.seconds for span in seen.drivers.values()), 3),
        "pods_seconds": round(pods, 3),
    }
