"""The chart, by the real helm: rendered without a cluster, or installed in one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from headrace_testbed.api import Object
from headrace_testbed.builds import program

CHART = Path(__file__).resolve().parents[4] / "charts" / "headrace"
NAMESPACE = "headrace-system"


Render = Callable[..., "Objects"]


class HelmError(Exception):
    """helm ended with an error; its words."""


class Objects:
    """What a chart comes to."""

    def __init__(self, objects: list[Object]) -> None:
        self.all = objects

    def __iter__(self) -> Iterator[Object]:
        return iter(self.all)

    def of(self, kind: str) -> list[Object]:
        """Those of KIND."""
        return [each for each in self.all if each["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        """Names of those of KIND."""
        return {each["metadata"]["name"] for each in self.of(kind)}

    def one(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """The one of that KIND and NAME."""
        spaces = (None, namespace) if namespace else None
        found = [
            each
            for each in self.of(kind)
            if each["metadata"]["name"] == name and (not spaces or each["metadata"].get("namespace") in spaces)
        ]
        assert len(found) == 1, f"{len(found)} of {kind} {name}; there are {sorted(self.names(kind))}"
        return found[0]

    def pod_templates(self) -> Iterator[tuple[str, Object]]:
        """Every pod that they come to: `Kind/name`, and its template or itself."""
        for each in self.all:
            name = f"{each['kind']}/{each['metadata']['name']}"
            if each["kind"] == "Pod":
                yield name, each
            elif each["kind"] == "CronJob":
                yield name, each["spec"]["jobTemplate"]["spec"]["template"]
            elif "template" in each.get("spec", {}):
                yield name, each["spec"]["template"]


class Helm:
    """helm with its own files in FOLDER, and the cluster that KUBECONFIG names, if any."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None, chart: Path = CHART) -> None:
        self.chart = chart
        self._env = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
        if kubeconfig:
            self._env["KUBECONFIG"] = str(kubeconfig)

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None, timeout: float = 180) -> str:
        """What `helm ARGUMENTS` prints; VALUES come as a file."""
        given = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [program("helm"), *arguments, *given],
            env=self._env,
            input=yaml.safe_dump(values) if values is not None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stderr.strip())
        return done.stdout

    def template(self, values: Mapping[str, Any] | None = None, *arguments: str, namespace: str = NAMESPACE) -> Objects:
        """What the chart comes to with VALUES."""
        text = self.run("template", "headrace", str(self.chart), "-n", namespace, *arguments, values=values or {})
        return Objects([each for each in yaml.load_all(text, yaml.CSafeLoader) if each])

    def install(self, namespace: str, values: Mapping[str, Any] | None = None, chart: Path | None = None) -> str:
        """Install the chart, without waiting for its pods; its notes."""
        return self.run("install", "headrace", str(chart or self.chart), "-n", namespace, values=values or {})

    def upgrade(self, namespace: str, values: Mapping[str, Any] | None = None) -> str:
        """Upgrade to the chart; its notes."""
        return self.run("upgrade", "headrace", str(self.chart), "-n", namespace, values=values or {})

    def rollback(self, namespace: str, revision: int) -> None:
        """Go back to REVISION."""
        self.run("rollback", "headrace", str(revision), "-n", namespace)

    def uninstall(self, namespace: str) -> str:
        """Uninstall; what helm says."""
        return self.run("uninstall", "headrace", "-n", namespace)

    def manifest(self, namespace: str) -> Objects:
        """What the release in NAMESPACE is made of now."""
        text = self.run("get", "manifest", "headrace", "-n", namespace)
        return Objects([each for each in yaml.load_all(text, yaml.CSafeLoader) if each])

    def revisions(self, namespace: str) -> list[Object]:
        """The release's history."""
        history: list[Object] = json.loads(self.run("history", "headrace", "-n", namespace, "-o", "json"))
        return history


def rendering(helm: Helm) -> Render:
    """The chart with values, given as keywords; each set of them is rendered once."""
    known: dict[str, Objects] = {}

    def render(**values: Any) -> Objects:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            known[key] = helm.template(values)
        return known[key]

    return render


def template_of(objects: Objects, kind: str, name: str) -> Object:
    """The pod template of a workload."""
    template: Object = objects.one(kind, name)["spec"]["template"]
    return template


def container(template: Object, name: str) -> Object:
    """The container NAME of a pod template, one that starts it included."""
    spec = template["spec"]
    return next(each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == name)


def variables(of: Object) -> dict[str, Any]:
    """Environment variables of a container: their values, or where they come from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in of["env"]}
