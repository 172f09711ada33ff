"""Writes the CustomResourceDefinitions and their reference from the types; `--check` says what has drifted.

Run by `make generate` and `make check` in a checkout: `python -m headrace.api.crd [--check]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from headrace.api.crd_reference import reference
from headrace.api.parts import API_VERSION, GROUP, VERSION
from headrace.api.resources import RESOURCES, Resource
from headrace.api.structural import spec_schema, status_schema
from headrace.base.generated import write_or_check

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("charts/headrace/files/crds")
PAGE = Path("docs/reference/crds.md")
MADE = "# Made by `make generate` from platform/headrace/api. Do not edit.\n"


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
    return write_or_check(ROOT, files(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
