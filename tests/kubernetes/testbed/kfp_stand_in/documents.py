"""Compiled pipelines as the API server judges them: what an upload refuses, and what only a run refuses.

The table of broken pipelines in KUBEFLOW.md: whatever protobuf cannot read, and the head of the document, are looked at
in both; how tasks hang together only when a run is made; images and unwired inputs never.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

SCHEMA = "2.1.0"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_TYPES: dict[str, Any] = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool}
Node = Mapping[str, Any]


class Unreadable(ValueError):
    """The document is none that the API server takes."""


class BadArguments(ValueError):
    """The arguments of a run are none that the pipeline takes."""


@dataclass(frozen=True)
class Pipeline:
    """A readable pipeline: its specification, and what the platform is to do by executor."""

    spec: Node
    platform: Node

    @property
    def name(self) -> str:
        """As it calls itself."""
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def inputs(self) -> dict[str, Node]:
        """Its parameters."""
        found: dict[str, Node] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    def executor(self, label: str) -> Node:
        """The container of an executor."""
        found: Node = self.spec["deploymentSpec"]["executors"][label]["container"]
        return found

    def kubernetes(self, label: str) -> Node:
        """What kfp-kubernetes asks for an executor."""
        spec = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        found: Node = spec.get("executors", {}).get(label, {})
        return found


def read(text: str) -> Pipeline:
    """The pipeline in TEXT, as an upload judges it. Raises Unreadable."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError as error:
        raise Unreadable(f"invalid pipeline spec: {error}") from error
    if not documents or not isinstance(documents[0], dict):
        raise Unreadable("unknown pipeline spec format")
    spec = documents[0]
    platform: dict[str, Any] = documents[1] if len(documents) > 1 else {}
    _judge_messages(spec, platform)
    if not str(spec.get("schemaVersion") or "").startswith("2.1."):
        raise Unreadable(f"unsupported schemaVersion {spec.get('schemaVersion')!r}, expected {SCHEMA}")
    name = str((spec.get("pipelineInfo") or {}).get("name") or "")
    if _NAME.fullmatch(name) is None or len(name) > 128:
        raise Unreadable(f"pipeline's name is invalid: {name!r}; lowercase letters, digits and '-'")
    return Pipeline(spec, platform)


def _judge_messages(spec: dict[str, Any], platform: dict[str, Any]) -> None:
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        for config in executors.values():
            json_format.ParseDict(config, kubernetes_pb2.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        raise Unreadable(f"invalid pipeline spec: {error}") from error


def judge_structure(pipeline: Pipeline) -> None:
    """Raise Unreadable for what the compiler to Argo refuses when a run is made."""
    components = pipeline.spec.get("components", {})
    executors = pipeline.spec.get("deploymentSpec", {}).get("executors", {})
    for where, component in [("root", pipeline.spec["root"]), *components.items()]:
        label = component.get("executorLabel")
        if label is not None and label not in executors:
            raise Unreadable(f"component {where}: executor {label!r} not found")
        tasks = component.get("dag", {}).get("tasks", {})
        for name, task in tasks.items():
            reference = task["componentRef"]["name"]
            if reference not in components:
                raise Unreadable(f"task {name}: component {reference!r} not found")
            for other in depends(task):
                if other not in tasks:
                    raise Unreadable(f"task {name}: unknown task {other!r}")
        ordered(tasks)


def depends(task: Node) -> set[str]:
    """The tasks that must have ended before TASK."""
    produced = {
        value["taskOutputParameter"]["producerTask"]
        for value in task.get("inputs", {}).get("parameters", {}).values()
        if "taskOutputParameter" in value
    }
    return produced | set(task.get("dependentTasks", ()))


def ordered(tasks: Mapping[str, Node]) -> list[str]:
    """The names of TASKS, each after those that it needs. Raises Unreadable for a cycle."""
    done: list[str] = []
    while len(done) < len(tasks):
        ready = [name for name, task in tasks.items() if name not in done and depends(task) <= set(done)]
        if not ready:
            raise Unreadable("the tasks form a cycle")
        done += ready
    return done


def arguments(pipeline: Pipeline, given: Node) -> dict[str, Any]:
    """GIVEN with defaults filled in. Raises BadArguments, as create_run answers 400."""
    for name, value in given.items():
        declared = pipeline.inputs.get(name)
        if declared is None:
            raise BadArguments(f"parameter {name!r} is not one of the pipeline's")
        allowed = _TYPES.get(declared["parameterType"], object)
        if not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not bool):
            raise BadArguments(f"parameter {name!r} must be {declared['parameterType']}, got {value!r}")
    return {**dict(_defaults(pipeline)), **given}


def _defaults(pipeline: Pipeline) -> Iterator[tuple[str, Any]]:
    for name, declared in pipeline.inputs.items():
        if "defaultValue" in declared:
            yield name, declared["defaultValue"]
