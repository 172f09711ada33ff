"""What the operators may do in a cluster: exactly what they do, each right with its reason.

The manifests are generated from this table (`python -m headrace_operators.rbac [--check]`). A test runs the operators
under them on a real API server, and holds the table against the server's audit log: no right is missing, none is idle.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace.base.generated import write_or_check
from headrace_operators.kinds import (
    BACKUP_LEASE,
    ENDPOINT_SLICE,
    EVENT,
    LEASE,
    MODEL_DEPLOYMENT,
    MODEL_MONITOR,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    WORKLOAD,
)
from headrace_operators.runtime.kinds import Kind

NAME = "headrace-operator"
NAMESPACE = "headrace-system"
LEASE_NAME = "headrace-operator"
FILE = Path("charts/headrace/files/operator-rbac.yaml")
ROOT = Path(__file__).resolve().parents[2]

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Use:
    """What is done with one kind, or with a subresource of it, and why. NAMES limits it to objects of these names."""

    kind: Kind
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    names: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        """As RBAC names it."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def to_rule(self) -> Manifest:
        """The rule that allows it."""
        rule: Manifest = {"apiGroups": [self.kind.group], "resources": [self.resource], "verbs": list(self.verbs)}
        return {**rule, "resourceNames": list(self.names)} if self.names else rule


_FOLLOW = ("list", "watch")
_OWNED = "what is made for it names it as the owner that deletion waits for, which some clusters ask this right for"

USES = (
    Use(TRAINING_RUN, (*_FOLLOW, "delete"), "follow them; delete those whose ttlSecondsAfterFinished is over"),
    Use(TRAINING_RUN, ("patch",), "write what became of them", "status"),
    Use(TRAINING_RUN, ("update",), _OWNED, "finalizers"),
    Use(MODEL_DEPLOYMENT, _FOLLOW, "follow them"),
    Use(MODEL_DEPLOYMENT, ("patch",), "write which version answers", "status"),
    Use(MODEL_DEPLOYMENT, ("update",), _OWNED, "finalizers"),
    Use(MODEL_MONITOR, _FOLLOW, "follow them"),
    Use(MODEL_MONITOR, ("patch",), "write what was measured", "status"),
    Use(
        RAY_JOB,
        (*_FOLLOW, "get", "create", "delete"),
        "make one for each attempt, follow it, look whose it is where its name was taken, end it on suspend",
    ),
    Use(
        RAY_SERVICE,
        (*_FOLLOW, "create", "patch", "delete"),
        "apply one for each ModelDeployment, follow it, delete one that KubeRay has given up",
    ),
    Use(RAY_CLUSTER, _FOLLOW, "say why an attempt or an endpoint waits"),
    Use(POD, _FOLLOW, "say why they wait: image, unschedulable, evicted; find the head that runs the driver"),
    Use(ENDPOINT_SLICE, _FOLLOW, "find the fronts to ask which version they answer with"),
    Use(WORKLOAD, _FOLLOW, "say what Kueue waits for"),
    Use(EVENT, ("create", "patch"), "tell people; count what is told again"),
)

LEASE_USES = (
    Use(LEASE, ("create",), "the first replica makes the Lease"),
    Use(LEASE, ("get",), "look who leads, and how old the last backup is", names=(LEASE_NAME, BACKUP_LEASE)),
    Use(LEASE, ("update",), "the one that holds it renews it", names=(LEASE_NAME,)),
)


def manifests(namespace: str = NAMESPACE, watched: str | None = None) -> list[Manifest]:
    """The ServiceAccount, its roles and their bindings.

    Args:
        namespace: where the operator's pods are.
        watched: the only namespace that the operator looks at (`headrace operator --namespace`); None is all of them.
    """
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}}
    wide = _granted("" if watched else "Cluster", NAME, watched, USES, subject)
    return [account, *wide, *_granted("", f"{NAME}-lease", namespace, LEASE_USES, subject)]


def _granted(
    reach: str, name: str, namespace: str | None, uses: Iterable[Use], subject: Mapping[str, str]
) -> list[Manifest]:
    """A role of USES and its binding; REACH is "Cluster" or "" (of NAMESPACE)."""
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    api = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{api}/v1", "kind": f"{reach}Role", "metadata": metadata}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": f"{reach}RoleBinding",
        "metadata": dict(metadata),
        "roleRef": {"apiGroup": api, "kind": f"{reach}Role", "name": name},
        "subjects": [dict(subject)],
    }
    return [{**role, "rules": [use.to_rule() for use in uses]}, binding]


def text(namespace: str = NAMESPACE) -> str:
    """The manifests as YAML, each rule with its reason."""
    reasons = {yaml.safe_dump([use.to_rule()], sort_keys=False): use.why for use in (*USES, *LEASE_USES)}
    documents = []
    for manifest in manifests(namespace):
        document = yaml.safe_dump(manifest, sort_keys=False)
        for rule, why in reasons.items():
            document = document.replace(f"\n{rule}", f"\n# {why}\n{rule}", 1)
        documents.append(document)
    return "# Made by `make generate` from operators/headrace_operators/rbac.py. Do not edit.\n" + "---\n".join(
        documents
    )


def main(arguments: list[str]) -> int:
    """Write the file, or with --check compare it; 1 where it has drifted."""
    return write_or_check(ROOT, {FILE: text()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
