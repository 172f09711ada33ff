"""The pipeline as it is sent to one target: the one compiled form with that target's image in it.

The same content has the same version name, so it is uploaded once. Arguments are judged here, since Kubeflow takes 2.5
for a whole number and answers a wrong name only when the run is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from headrace.base.errors import Finding, InvalidInput
from headrace_pipelines.compiler import compiled

PIPELINE = "headrace"  # small letters, digits and `-`: Kubeflow takes no other
PLACEHOLDER = "headrace-python"  # components.IMAGE, which only kfp can import
_KINDS: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


@dataclass(frozen=True)
class Ir:
    """One content: its text, the name of its version, and what it takes."""

    text: str
    version: str
    inputs: Mapping[str, Mapping[str, Any]]


@cache
def _compiled() -> str:
    return compiled()


def ir_for(image: str) -> Ir:
    """The pipeline whose steps run IMAGE."""
    text = _compiled().replace(f"image: {PLACEHOLDER}\n", f"image: {json.dumps(image)}\n")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    document = next(yaml.safe_load_all(text))
    return Ir(text, f"{PIPELINE}-{sha256[:16]}", document["root"]["inputDefinitions"]["parameters"])


def check_arguments(ir: Ir, arguments: Mapping[str, Any]) -> None:
    """Raise InvalidInput with a finding for each argument that IR does not take as it is."""
    findings = [
        Finding(name, "missing", "a value", "this is a bug of Headrace, please report it")
        for name, declared in ir.inputs.items()
        if name not in arguments and not declared.get("isOptional") and "defaultValue" not in declared
    ]
    for name, value in arguments.items():
        declared = ir.inputs.get(name)
        if declared is None:
            findings.append(Finding(name, "no parameter of the pipeline", ", ".join(ir.inputs), "leave it out"))
        elif not _fits(value, str(declared["parameterType"])):
            findings.append(
                Finding(name, repr(value)[:60], str(declared["parameterType"]), "pass a value of that type")
            )
    if findings:
        raise InvalidInput(
            "the pipeline's arguments are wrong", action="nothing was sent", code="arguments-invalid", findings=findings
        )


def _fits(value: Any, kind: str) -> bool:
    if kind in {"NUMBER_INTEGER", "NUMBER_DOUBLE"} and isinstance(value, bool):
        return False
    return isinstance(value, _KINDS.get(kind, object))
