"""Whether a TrainingRun can be carried out: what neither the API server nor its rules can see.

A refused one makes no attempt; mending it is seen at once. One that was accepted is not judged again until it changes.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.api.judge import judge_training_run
from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace_operators.ray_pods import reserved_variables
from headrace_operators.training_run.rayjob import spec_json

_LONGEST_SPEC_BYTES = 100_000  # the driver gets it as one environment variable, which Linux limits to 128 KiB
_WAYS_OUT = 5  # findings that are told


def findings(
    spec: TrainingRunSpec, status: TrainingRunStatus, generation: int, image: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is wrong (no attempt is made until it is mended), and what may be; nothing of a run that has ended."""
    if status.completion_time is not None:
        return (), ()
    own = tuple(_own(spec, image))
    before = next((entry for entry in status.conditions if entry.type == "Accepted"), None)
    if not own and before is not None and before.status == "True" and before.observed_generation == generation:
        return (), tuple(before.message.split("; ")[1:])
    judgement = judge_training_run(spec)
    errors = (*own, *(str(finding) for finding in judgement.errors))
    return errors[:_WAYS_OUT], tuple(str(finding) for finding in judgement.warnings[:_WAYS_OUT])


def _own(spec: TrainingRunSpec, image: str) -> Iterator[str]:
    if not image:
        yield "spec.pods.image: none, and the operator has no --runtime-image: name one"
    for name in reserved_variables(spec.pods):
        yield f"spec.pods.environment: {name} is set by KubeRay and Ray: leave it out"
    if len(spec_json(spec)) > _LONGEST_SPEC_BYTES:
        yield f"spec: more than {_LONGEST_SPEC_BYTES} bytes as JSON: shorten its lists (data.features, model.freeze)"
