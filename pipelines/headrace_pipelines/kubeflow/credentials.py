"""The bearer token of a target, looked up anew for every request: mounted tokens are replaced while a run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from headrace.base.errors import InvalidInput
from headrace.spec.targets import Kubeflow

Token = Callable[[], str]


def token_of(kubeflow: Kubeflow) -> Token | None:
    """What gives the token; None where the target names none. It raises InvalidInput where there is no token."""
    if kubeflow.token_env is not None:
        name = kubeflow.token_env
        return lambda: _from_environment(name)
    if kubeflow.token_file is not None:
        path = Path(kubeflow.token_file)
        return lambda: _from_file(path)
    return None


def _from_environment(name: str) -> str:
    token = os.environ.get(name, "").strip()
    if not token:
        raise InvalidInput(
            f"the environment variable {name}, which holds the token for Kubeflow, is not set",
            action=f"export {name}=..., a token with audience pipelines.kubeflow.org",
            code="token-missing",
        )
    return token


def _from_file(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInput(
            f"the token for Kubeflow cannot be read: {path}: {error.strerror}",
            action="write it there, or correct token_file in targets.yaml",
            code="token-missing",
        ) from error
    if not token:
        raise InvalidInput(f"{path}, the token for Kubeflow, is empty", action="write it there", code="token-missing")
    return token
