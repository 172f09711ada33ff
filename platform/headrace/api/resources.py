"""The custom resources: their names, their types, the rules over a whole object, the columns of `kubectl get`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.config import JsonDict

from headrace.api import model_deployment, model_monitor, training_run
from headrace.api.parts import GROUP
from headrace.api.rules import rule
from headrace.api.texts import DNS_1035
from headrace.base.ids import LONGEST_NAME

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
