"""What the test bed is made of and how each part is built: real programs, at versions that a go.sum locks.

Each recipe is a Go module of ours that requires the program's own; nothing is downloaded ready-made. Run as a program
(`python -m headrace_testbed.builds [NAME ...]`) it builds what is missing and says how long each part took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headrace_testbed.cache import cache_root, cached, digest_of
from headrace_testbed.debian import debian_program
from headrace_testbed.postgres import postgres_binaries
from headrace_testbed.toolchain import GO_MODULES, go, go_environment

_MANIFESTS = "manifests.json"
_KUBERNETES = "k8s.io/kubernetes/cmd/"
_VERSION_STRINGS = {"gitVersion": "v1.35.4", "gitMajor": "1", "gitMinor": "35", "gitTreeState": "clean"}


@dataclass(frozen=True)
class Recipe:
    """One folder of the cache: programs of one Go module, with the manifests by which their makers install them."""

    module: str
    programs: dict[str, str]  # a program's name and the Go package it is built from
    strings: dict[str, str] | None = None  # version strings: the linker's -X, name and value
    kustomization: tuple[str, str] | None = (
        None  # a Go module and the folder in it that says how the program is installed
    )

    def ldflags(self) -> str:
        """The linker's flags: no debugging tables (half the size), and the version strings."""
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in (self.strings or {}).items())])

    def folder_name(self, name: str) -> str:
        """The cache folder's name: NAME and a hash of whatever decides what is built."""
        folder = GO_MODULES / self.module
        sources = ["go.mod", "go.sum", *(["main.go"] if (folder / "main.go").exists() else [])]
        locks = [(folder / name).read_bytes() for name in sources]
        rest = (self.programs, self.ldflags(), self.kustomization, os.uname().machine)
        return f"{name}-{digest_of(*locks, go()[1], repr(rest))}"


_STRINGS = {f"k8s.io/component-base/version.{name}": value for name, value in _VERSION_STRINGS.items()}
_STRINGS["k8s.io/component-base/version.buildDate"] = "1970-01-01T00:00:00Z"
_HELM_STRINGS = {
    "helm.sh/helm/v3/internal/version.version": "v3.22.0",
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",  # what a chart is told when no cluster is asked
    "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": "35",
}
RECIPES = {
    "etcd": Recipe("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    "kubernetes": Recipe(
        "kubernetes",
        {
            name: _KUBERNETES + name
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        },
        _STRINGS,
    ),
    "kuberay": Recipe(
        "kuberay",
        {"ray-operator": "github.com/ray-project/kuberay/ray-operator"},
        kustomization=("github.com/ray-project/kuberay/ray-operator", "config/default"),
    ),
    "kueue": Recipe(
        "kueue",
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        kustomization=("sigs.k8s.io/kueue", "config/default"),
    ),
    "helm": Recipe("helm", {"helm": "helm.sh/helm/v3/cmd/helm"}, _HELM_STRINGS),
    "versitygw": Recipe(
        "versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}, {"main.Version": "v1.8.0"}
    ),
    "node": Recipe("kubernetes", {name: _KUBERNETES + name for name in ("kubelet", "kube-proxy")}, _STRINGS),
    "coredns": Recipe("coredns", {"coredns": "headrace.testbed/coredns"}),
    "pause": Recipe("pause", {"pause": "headrace.testbed/pause"}),
}
NODE = ("node", "coredns", "pause")  # what only a node needs


def _run_go(module: str, *arguments: str | Path) -> str:
    """Run go in our MODULE. Its errors go to the terminal as they come; what it prints is returned."""
    done = subprocess.run(
        [go()[0], *arguments],
        cwd=GO_MODULES / module,
        env=go_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go {arguments[0]} of {module} failed ({done.returncode}); what it said stands above")
    return done.stdout.strip()


def _render(kustomization: Path, target: Path) -> None:
    """Write what KUSTOMIZATION comes to as JSON: a hundred times faster to read than megabytes of YAML."""
    rendered = subprocess.run(
        [program("kubectl"), "kustomize", kustomization], stdout=subprocess.PIPE, check=True
    ).stdout
    target.write_text(json.dumps(list(yaml.load_all(rendered, yaml.CSafeLoader))))


def _build(name: str, recipe: Recipe, folder: Path) -> None:
    print(f"  building {', '.join(recipe.programs)} ({go()[1]}) ...", flush=True)
    started = time.monotonic()
    _run_go(recipe.module, "mod", "download")
    for program, package in recipe.programs.items():  # one at a time: linking an API server takes 2 GB
        _run_go(
            recipe.module,
            "build",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            recipe.ldflags(),
            "-o",
            folder / program,
            package,
        )
    if recipe.kustomization:
        source = Path(_run_go(recipe.module, "list", "-m", "-f", "{{.Dir}}", recipe.kustomization[0]))
        _render(source / recipe.kustomization[1], folder / _MANIFESTS)
    print(f"  built {name} in {time.monotonic() - started:.0f} s", flush=True)


def built(name: str) -> Path:
    """The folder of the recipe NAME, built first if it is missing."""
    recipe = RECIPES[name]
    return cached(recipe.folder_name(name), lambda folder: _build(name, recipe, folder))


def missing(names: Iterable[str] | None = None) -> list[str]:
    """The recipes, of NAMES or of those that every control plane may need, that are not built yet."""
    wanted = names if names is not None else [name for name in RECIPES if name not in NODE]
    return [name for name in wanted if not (cache_root() / RECIPES[name].folder_name(name)).exists()]


def program(name: str) -> Path:
    """The program NAME, built first if it is missing."""
    for recipe_name, recipe in RECIPES.items():
        if name in recipe.programs:
            return built(recipe_name) / name
    raise KeyError(f"no recipe builds {name}; there are {', '.join(p for r in RECIPES.values() for p in r.programs)}")


def manifests(name: str) -> list[dict[str, Any]]:
    """The objects by which the makers of the recipe NAME install it in a cluster."""
    return json.loads((built(name) / _MANIFESTS).read_text())


def main() -> None:
    """Build the recipes named on the command line, or all that need no root to run."""
    started = time.monotonic()
    print(f"The test bed lies in {cache_root()}", flush=True)
    for name in sys.argv[1:] or missing():
        built(name)
    if not sys.argv[1:]:
        debian_program("prometheus", "prometheus")
        postgres_binaries()
    print(f"The test bed is whole ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
