"""What the steps may do in the namespace that they run in: exactly what they do, each right with its reason.

The ServiceAccount `headrace-steps` and its Role are generated from this table (`python -m headrace.cluster.rights
[--check]`), for the chart to put into every workspace. A test runs the steps under them on a real API server and holds
the table against the server's audit log: no right is missing, none is idle.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.api.parts import GROUP
from headrace.base.generated import write_or_check

NAME = "headrace-steps"
FILE = Path("charts/headrace/files/steps-rbac.yaml")
ROOT = Path(__file__).resolve().parents[3]

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Right:
    """What is done with one kind of object, and why."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str

    def to_rule(self) -> Manifest:
        """The rule that allows it."""
        return {"apiGroups": [self.group], "resources": [self.resource], "verbs": list(self.verbs)}


RIGHTS = (
    Right(
        GROUP,
        "trainingruns",
        ("get", "list", "watch", "create", "patch", "delete"),
        "apply one for a training, follow it, say that it is still waited for; end those of the run's earlier attempts",
    ),
    Right(
        GROUP,
        "modeldeployments",
        ("get", "list", "watch", "create", "patch", "delete"),
        "apply the endpoint, follow it, put back what was served where a version fails: nothing, at a first one",
    ),
    Right(
        "coordination.k8s.io",
        "leases",
        ("get", "list", "watch", "create", "patch"),
        "hold the right to move an alias, from the gate's check to the move; wait for another that holds it",
    ),
)


def role_rules() -> list[Manifest]:
    """The rules of the Role."""
    return [right.to_rule() for right in RIGHTS]


def manifests() -> list[Manifest]:
    """The ServiceAccount, its Role and their binding, without a namespace: whoever applies them names it."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": NAME}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": role_rules()},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME}],
        },
    ]


def text() -> str:
    """The manifests as YAML, each rule with its reason."""
    told = "---\n".join(yaml.dump(each, Dumper=_Plain, sort_keys=False) for each in manifests())
    for right in RIGHTS:
        rule = yaml.dump([right.to_rule()], Dumper=_Plain, sort_keys=False)
        told = told.replace(f"\n{rule}", f"\n# {right.why}\n{rule}", 1)
    return f"# Made by `make generate` from platform/headrace/cluster/rights.py. Do not edit.\n{told}"


class _Plain(yaml.SafeDumper):
    """Writes a value that stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether DATA gets no anchor."""
        return True


def main(arguments: list[str]) -> int:
    """Write the file, or with --check compare it; 1 where it has drifted."""
    return write_or_check(ROOT, {FILE: text()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
