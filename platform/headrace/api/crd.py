"""Writes the CustomResourceDefinitions and their reference from the types; `--check` says what has drifted.

Run by `make generate` and `make check` in a checkout: `python -m headrace.api.crd [--check]`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.config import JsonDict

from headrace.api import model_deployment, model_monitor, training_run
from headrace.api.crd_reference import reference
from headrace.api.parts import API_VERSION, GROUP, VERSION
from headrace.api.rules import rule
from headrace.api.structural import spec_schema, status_schema
from headrace.api.texts import DNS_1035, LONGEST_NAME

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("charts/headrace/files/crds")
PAGE = Path("docs/reference/crds.md")
MADE = "# Made by `make generate` from platform/headrace/api. Do not edit.\n"

_SHORT_NAME = rule(
    f"self.metadata.name.size() <= {LONGEST_NAME} && self.metadata.name.matches('{DNS_1035}')",
    f"metadata.name must be of small letters, digits and -, a letter first, at most {LONGEST_NAME} characters: what is "
    "made for it has this name and a number; take a shorter or plainer one",
)


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; those of priority 1 are shown by `-o wide` only."""

    name: str
    type: str
    path: str
    description: str = ""
    priority: int = 0

    def to_record(self) -> dict[str, Any]:
        """As the CRD has it."""
        record = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return {key: value for key, value in record.items() if value} | (
            {"priority": self.priority} if self.priority else {}
        )


@dataclass(frozen=True)
class Resource:
    """One custom resource: its names, its types, its rules over the whole object, its columns."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    rules: tuple[JsonDict, ...] = ()
    scale: JsonDict | None = None

    @property
    def example(self) -> Path:
        """An object of this kind, in the checkout."""
        return Path("examples/kubernetes") / f"{self.spec.__module__.rsplit('.', 1)[-1]}.yaml"

    @property
    def crd_name(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _true(condition: str) -> str:
    return f'.status.conditions[?(@.type=="{condition}")].status'


_MESSAGE = Column("Message", "string", ".status.message", "What is being waited for, or what is wrong.", priority=1)
_AGE = Column("Age", "date", ".metadata.creationTimestamp")

RESOURCES = (
    Resource(
        training_run.KIND,
        "trainingruns",
        "tr",
        "One training of one model, carried out by one RayJob an attempt until it succeeds or may try no more.",
        training_run.TrainingRunSpec,
        training_run.TrainingRunStatus,
        (
            Column("Phase", "string", ".status.phase", "Where it stands."),
            Column("Attempt", "integer", ".status.attempt", "The newest attempt; each is one RayJob."),
            Column("Epoch", "integer", ".status.checkpoint.epoch", "Epochs in the newest checkpoint."),
            Column("Epochs", "integer", ".spec.train.epochs", "Epochs that are wanted."),
            Column("Workers", "integer", ".spec.train.workers.max", "Most workers."),
            Column("Queue", "string", ".spec.queue", "Kueue's LocalQueue.", priority=1),
            _MESSAGE,
            _AGE,
        ),
        (_SHORT_NAME, *training_run.transition_rules()),
    ),
    Resource(
        model_deployment.KIND,
        "modeldeployments",
        "md",
        "One endpoint that answers with a version of the registry, carried out by one RayService.",
        model_deployment.ModelDeploymentSpec,
        model_deployment.ModelDeploymentStatus,
        (
            Column("Model", "string", ".spec.model.name", "Name in the registry."),
            Column("Wanted", "string", ".status.wantedVersion", "Version that the spec asks for."),
            Column("Serving", "string", ".status.servingVersion", "Version that truly answers."),
            Column("Answering", "integer", ".status.answeringReplicas", "Replicas that answer with what is wanted."),
            Column("Replicas", "integer", ".status.replicas", "Replicas that are wanted."),
            Column("Available", "string", _true("Available"), "Whether what is wanted answers."),
            Column("URL", "string", ".status.url", "Base address inside the cluster.", priority=1),
            _MESSAGE,
            _AGE,
        ),
        (_SHORT_NAME,),
        {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.answeringReplicas"},
    ),
    Resource(
        model_monitor.KIND,
        "modelmonitors",
        "mm",
        "How well an endpoint does, measured in Prometheus and held against objectives.",
        model_monitor.ModelMonitorSpec,
        model_monitor.ModelMonitorStatus,
        (
            Column("Deployment", "string", ".spec.deploymentName", "The ModelDeployment that is measured."),
            Column("Healthy", "string", _true("Healthy"), "Whether every objective is kept."),
            Column("Requests", "number", ".status.requests", "Requests in the window."),
            Column("Errors", "number", ".status.errorRatio", "Share of them that was answered 5xx."),
            Column("P99", "number", ".status.p99Seconds", "99th percentile of latency, in seconds."),
            _MESSAGE,
            _AGE,
        ),
    ),
)


def definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of RESOURCE."""
    schema: dict[str, Any] = {
        "description": resource.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{resource.kind}."},
            "metadata": {"type": "object"},
            "spec": spec_schema(resource.spec),
            "status": status_schema(resource.status),
        },
    }
    if resource.rules:
        schema["x-kubernetes-validations"] = list(resource.rules)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, **({"scale": resource.scale} if resource.scale else {})},
        "additionalPrinterColumns": [column.to_record() for column in resource.columns],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.crd_name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["headrace"],  # not `all`: `kubectl delete all --all` would take them
            },
            "versions": [version],
        },
    }


def files() -> dict[Path, str]:
    """Every generated file by its path in the checkout."""
    definitions = {resource.kind: definition(resource) for resource in RESOURCES}
    examples = {resource.kind: ROOT / resource.example for resource in RESOURCES}
    crds = {FOLDER / f"{GROUP}_{each.plural}.yaml": MADE + _yaml(definitions[each.kind]) for each in RESOURCES}
    return {**crds, PAGE: reference(definitions, examples)}


def _yaml(value: Any) -> str:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them; 1 where something has drifted."""
    wanted = files()
    if "--check" not in arguments:
        for path, text in wanted.items():
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
        return 0
    drifted = [
        path
        for path, text in wanted.items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    for path in drifted:
        print(f"{path} does not match the code: run 'make generate'", file=sys.stderr)
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
