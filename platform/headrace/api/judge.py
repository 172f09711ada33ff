"""What the API server cannot judge of the resources: what the catalog says of names and arguments, and what suits what.

The API server refuses what its schema and rules can see, before anything is stored. What is left becomes a condition of
the stored object, so that mending the object mends it. Models and tasks that this process does not know are warnings:
the pods' image may have packages that add them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from headrace.api.canonical import folded_of
from headrace.api.parts import Part
from headrace.api.training_run import TrainingRunSpec
from headrace.base.errors import Finding, SpecInvalid
from headrace.spec.files import PICKLES
from headrace.spec.findings import instead, report_errors, shown
from headrace.spec.fold import Folded
from headrace.spec.judge import judge
from headrace.spec.model import BUILTIN_SOURCES
from headrace.spec.yaml_reader import written
from headrace_models import catalog
from headrace_models.catalog import listed

S = TypeVar("S", bound=Part)


class Judgement(NamedTuple):
    """What is wrong (nothing is done until it is mended), and what may be."""

    errors: list[Finding]
    warnings: list[Finding]


def parse(spec: type[S], obj: Mapping[str, Any]) -> S:
    """The typed spec of an API object.

    Args:
        spec: `TrainingRunSpec`, `ModelDeploymentSpec` or `ModelMonitorSpec`.
        obj: the object as JSON values.

    Raises:
        SpecInvalid: it is not of that type (so an older API server, or an older CRD, let it in); with findings.
    """
    try:
        return spec.model_validate_json(json.dumps(obj.get("spec", {})), by_alias=True, by_name=False)
    except ValidationError as error:
        folded = Folded({})
        report_errors(folded, error, spec, ("spec",))
        name = f"{obj.get('kind', 'the object')} {obj.get('metadata', {}).get('name', '')}".strip()
        raise SpecInvalid(
            f"{name} is not as this version wants it: {folded.findings[0]}",
            action="mend it",
            findings=folded.findings,
        ) from None


def judge_training_run(spec: TrainingRunSpec) -> Judgement:
    """What is wrong with a TrainingRun, and what may be."""
    folded = folded_of(spec)
    judge(folded)
    doubtful = _doubtful(folded.record)
    errors = [finding for finding in folded.findings if finding.where not in doubtful]
    warnings = [
        replace(finding, action=f"{finding.action}, unless a package of the image adds it")
        for finding in folded.findings
        if finding.where in doubtful
    ]
    errors += [*_builtin(spec), *_pickled(spec)]
    warnings += [*_idle_gpus(spec), *_store_of_a_pod(spec)]
    return Judgement([_camel(finding) for finding in errors], [_camel(finding) for finding in warnings])


def _doubtful(record: Mapping[str, Any]) -> set[str]:
    """Places whose names a package may add that this process does not have, and what hangs on those names."""
    places: set[str] = set()
    for index, task in enumerate(record["tasks"]):
        if task["name"] not in catalog.tasks():
            places |= {written(("tasks", index, "name")), "train.early_stop.metric"}
    if record["model"]["name"] not in catalog.models():
        places.add("model.name")
    return places


def _builtin(spec: TrainingRunSpec) -> Iterator[Finding]:
    source = spec.data.source if spec.data is not None else ""
    if source.startswith("builtin:") and source not in BUILTIN_SOURCES:
        action = instead(source, BUILTIN_SOURCES, "take one of these, or a URL")
        yield Finding("data.source", f"no {shown(source)}", listed(source, BUILTIN_SOURCES), action)


def _pickled(spec: TrainingRunSpec) -> Iterator[Finding]:
    """What PyTorch saved is converted on the machine of `headrace run`; pods read safetensors alone."""
    given = spec.model.init_from
    if given is not None and given.endswith(PICKLES):
        allowed = "a .safetensors file or a package's folder"
        action = "convert it: `headrace run` does where `init_from` is the file itself, or save it as safetensors"
        yield Finding("model.init_from", shown(given), allowed, action)


def _idle_gpus(spec: TrainingRunSpec) -> Iterator[Finding]:
    wanted, there = spec.train.gpus_per_worker, spec.pods.worker.gpu
    if there > wanted:
        action = f"raise train.gpus_per_worker to {there}, or the rest stands idle"
        yield Finding("pods.worker.gpu", f"{there} in each pod, of which a worker uses {wanted}", "", action)


def _store_of_a_pod(spec: TrainingRunSpec) -> Iterator[Finding]:
    if spec.store.uri.startswith(("file://", "memory://")):
        allowed = "a store that all pods share: s3://, gs://, ..."
        yield Finding("store.uri", f"{shown(spec.store.uri)} ends with the pod", allowed, "name a bucket")


# paths and words as people write them in the object


def _camel(finding: Finding) -> Finding:
    place, args, rest = finding.where.partition(".args.")
    words = (finding.given, finding.allowed, finding.action)
    given, allowed, action = words if args else (_spelt(word) for word in words)
    return Finding(f"spec.{_spelt(place)}{args}{rest}", given, allowed, action)


def _spelt(text: str) -> str:
    names = _spellings(TrainingRunSpec)
    return re.sub(r"[a-z0-9]+(?:_[a-z0-9]+)+", lambda match: names.get(match[0], match[0]), text)


@cache
def _spellings(part: type[BaseModel]) -> dict[str, str]:
    """Each field below PART by the name it has in Python: the name it has in an object."""
    found: dict[str, str] = {}
    for name, field in part.model_fields.items():
        found[name] = field.alias or name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= _spellings(inner)
    return found
