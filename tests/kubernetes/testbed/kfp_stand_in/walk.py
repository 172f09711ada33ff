"""The way through a compiled pipeline: which task comes next, with which values, and whether its condition holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kfp_stand_in.documents import Node, Pipeline, ordered

_CONDITION = re.compile(r"inputs\.parameter_values\['(?P<key>[^']+)'\] (?P<sign>[!=]=) '(?P<value>[^']*)'")
JOB_ID = "{{$.pipeline_job_uuid}}"
Execute = Callable[[str, Node, Mapping[str, Any]], Mapping[str, Any]]
Skip = Callable[[str], None]


class Walk:
    """Goes through PIPELINE in order. EXECUTE does a task with an executor, SKIP is told of one that is not done."""

    def __init__(self, pipeline: Pipeline, run_id: str, execute: Execute, skip: Skip) -> None:
        self._pipeline = pipeline
        self._run_id = run_id
        self._execute = execute
        self._skip = skip

    def go(self, arguments: Mapping[str, Any]) -> None:
        """Do all of it."""
        self._dag(self._pipeline.spec["root"], arguments)

    def _dag(self, component: Node, inputs: Mapping[str, Any]) -> None:
        outputs: dict[str, Mapping[str, Any]] = {}
        tasks = component["dag"]["tasks"]
        for name in ordered(tasks):
            task = tasks[name]
            values = {
                key: self._value(source, inputs, outputs)
                for key, source in task.get("inputs", {}).get("parameters", {}).items()
            }
            if not holds(task.get("triggerPolicy", {}).get("condition", ""), values):
                self._skip(name)
                continue
            inner = self._pipeline.spec["components"][task["componentRef"]["name"]]
            if "dag" in inner:
                self._dag(inner, values)
            else:
                outputs[name] = self._execute(name, inner, values)

    def _value(self, source: Node, inputs: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]) -> Any:
        if "componentInputParameter" in source:
            return inputs[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            produced = source["taskOutputParameter"]
            return outputs[produced["producerTask"]][produced["outputParameterKey"]]
        constant = source["runtimeValue"]["constant"]
        return constant.replace(JOB_ID, self._run_id) if isinstance(constant, str) else constant


def holds(condition: str, values: Mapping[str, Any]) -> bool:
    """Whether CONDITION, of the form that our pipeline has, holds; an empty one does."""
    if not condition:
        return True
    match = _CONDITION.fullmatch(" ".join(condition.split()))
    if match is None:
        raise NotImplementedError(f"the stand-in cannot judge {condition!r}")
    return (values[match["key"]] == match["value"]) is (match["sign"] == "==")
