"""A target as commands use it: its store and its Kubeflow, made when they are first needed."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property

import fsspec

from headrace.spec.targets import Target, find_target
from headrace.store import Store
from headrace_pipelines.kubeflow.api import Kubeflow
from headrace_pipelines.kubeflow.connection import Connection


class Cluster:
    """The target NAME. Raises what `find_target` does."""

    def __init__(self, name: str, target: Target) -> None:
        self.name = name
        self.target = target

    @classmethod
    def named(cls, name: str) -> Cluster:
        """The target NAME of targets.yaml; what its store and MLflow need is put into this process's environment."""
        target = find_target(name)
        _enter(target)
        return cls(name, target)

    @property
    def address(self) -> dict[str, str | None]:
        """Where its Kubeflow is, as the store keeps it of what was sent there."""
        return {"host": self.target.kubeflow.host, "namespace": self.target.kubeflow.namespace}

    @cached_property
    def store(self) -> Store:
        """Its store."""
        return Store(self.target.store)

    @cached_property
    def kubeflow(self) -> Kubeflow:
        """Its Kubeflow."""
        return Kubeflow(Connection(self.target.kubeflow))


_said: dict[str, tuple[str, str | None]] = {}  # what a target says now in the environment, and what stood there before


def _enter(target: Target) -> None:
    """Let the environment say what TARGET says, and what it said before where that says nothing."""
    for name, (ours, before) in _said.items():
        if os.environ.get(name) == ours:
            os.environ.pop(name)
            os.environ.update({} if before is None else {name: before})
    _said.clear()
    for name, value in target.environment().items():
        _said[name] = value, os.environ.get(name)
        os.environ[name] = value
    protocol, separator, _ = target.store.partition("://")
    if separator:  # filesystems are kept by their arguments, and the environment is none
        with suppress(ImportError):  # said when the store is opened
            fsspec.get_filesystem_class(protocol).clear_instance_cache()
