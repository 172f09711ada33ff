"""What must be in a cluster before Headrace, how it is known, and the command that installs it.

One table for two that ask: Helm, before it installs anything (the chart reads the generated file), and the operator's
pod, before it starts (`python -m headrace_operators.prerequisites NEED ...`): a cluster may lose what it had, and who
renders the chart without a cluster was told nothing. It needs no rights: whoever is known to an API server may ask
which kinds it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from headrace.base.generated import write_or_check
from headrace_operators.runtime.connection import NoConnection, connect
from headrace_operators.runtime.errors import ApiError
from headrace_operators.runtime.transport import Transport

FILE = Path("charts/headrace/files/prerequisites.yaml")
ROOT = Path(__file__).resolve().parents[2]
UNAVAILABLE = 4

Kinds = Callable[[str], Awaitable[frozenset[str]]]


@dataclass(frozen=True)
class Prerequisite:
    """Something that others make.

    Args:
        name: what people call it, with the version that we are tried with.
        kinds: `group/version/Kind` by which it is known; one of them is enough.
        required: `always`; `monitoring`, if that is enabled; or `never`: what it is good for is told.
        why: what does not go without it.
        command: what installs it.
    """

    name: str
    kinds: tuple[str, ...]
    required: str
    why: str
    command: str


_KUBEFLOW = "github.com/kubeflow/pipelines/manifests/kustomize"
PREREQUISITES = (
    Prerequisite(
        "KubeRay 1.6",
        ("ray.io/v1/RayCronJob",),  # new in 1.6: the definitions before drop fields that ours set, without a word
        "always",
        "trainings and endpoints run on Ray, whose pods its operator makes (definitions older than 1.6, which lack the "
        "kind RayCronJob, count as missing: helm does not upgrade them)",
        "helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm "
        "--version 1.6.0 --namespace kuberay-system --create-namespace",
    ),
    Prerequisite(
        "Prometheus Operator",
        ("monitoring.coreos.com/v1/ServiceMonitor",),
        "monitoring",
        "it reads the ServiceMonitors and rules that monitoring.enabled makes",
        "helm install kube-prometheus-stack kube-prometheus-stack "
        "--repo https://prometheus-community.github.io/helm-charts --namespace monitoring --create-namespace",
    ),
    Prerequisite(
        "Kubeflow Pipelines 2.17",
        ("kubeflow.org/v1beta1/ScheduledWorkflow", "pipelines.kubeflow.org/v2beta1/Pipeline"),
        "never",
        "`headrace run --on` sends runs to it; TrainingRuns and ModelDeployments go without",
        f"kubectl apply -k '{_KUBEFLOW}/cluster-scoped-resources?ref=2.17.0' && "
        f"kubectl apply -k '{_KUBEFLOW}/env/platform-agnostic?ref=2.17.0'",
    ),
    Prerequisite(
        "Kueue 0.17",
        ("kueue.x-k8s.io/v1beta2/LocalQueue", "kueue.x-k8s.io/v1beta1/LocalQueue"),
        "never",
        "trainings that name a queue wait in it for their quota; others start at once",
        "kubectl apply --server-side -f "
        "https://github.com/kubernetes-sigs/kueue/releases/download/v0.17.0/manifests.yaml",
    ),
)


async def missing(kinds: Kinds, of: Iterable[Prerequisite] = PREREQUISITES) -> list[Prerequisite]:
    """Those of OF that the cluster lacks; KINDS tells which kinds a `group/version` has."""
    lacking = []
    for each in of:
        named = [kind.rpartition("/") for kind in each.kinds]
        if not any([kind in await kinds(version) for version, _, kind in named]):
            lacking.append(each)
    return lacking


def told(lacking: Sequence[Prerequisite], needs: frozenset[str]) -> tuple[list[str], bool]:
    """What to say of those that are LACKING, and whether one of them is required: NEEDS names what is."""
    lines = []
    for each in lacking:
        word = "is missing" if each.required in needs else "is not there"
        lines += [f"{each.name} {word}: {each.why}.", f"  install it: {each.command}"]
    return lines, any(each.required in needs for each in lacking)


async def _ask(needs: frozenset[str]) -> int:
    try:
        transport = Transport(await connect(None), f"headrace-prerequisites/{version('headrace')}")
    except NoConnection as error:
        print(error, file=sys.stderr)
        return UNAVAILABLE

    async def kinds(group_version: str) -> frozenset[str]:
        try:
            served = json.loads(await transport.send("GET", f"/apis/{group_version}"))
        except ApiError as error:
            if error.status != 404:
                raise
            return frozenset()
        return frozenset(each["kind"] for each in served["resources"])

    try:
        lines, required = told(await missing(kinds), needs)
    except ApiError as error:
        print(f"the API server was not asked what it serves: {error}", file=sys.stderr)
        return UNAVAILABLE
    finally:
        await transport.close()
    print("\n".join(lines) or "nothing is missing", flush=True)
    return UNAVAILABLE if required else 0


def text() -> str:
    """The table as the chart reads it."""
    records = [{**asdict(each), "kinds": list(each.kinds)} for each in PREREQUISITES]
    made = "# Made by `make generate` from operators/headrace_operators/prerequisites.py. Do not edit.\n"
    return made + yaml.safe_dump({"prerequisites": records}, sort_keys=False, width=1000)


def main(arguments: list[str]) -> int:
    """With `--generate` write the chart's file (`--check`: compare it); else ask the cluster, ARGUMENTS being needs."""
    if "--generate" in arguments or "--check" in arguments:
        return write_or_check(ROOT, {FILE: text()}, arguments)
    return asyncio.run(_ask(frozenset(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
