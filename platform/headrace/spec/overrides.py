"""`--set train.epochs=2`: values that take the place of the file's, written as YAML.

They are put into the document before it is folded and judged, so a wrong one is found like any other mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from headrace.base.errors import Finding
from headrace.spec.yaml_reader import Path, parse_value, written

_KEY = re.compile(r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*|\.\d+|\[\d+\])*")
_TWINS: dict[Path, Path] = {
    ("task",): ("tasks",),
    ("tasks",): ("task",),
    ("train", "loss"): ("train", "losses"),
    ("train", "losses"): ("train", "loss"),
}
_BARE: dict[Path, str] = {  # what a bare value at such a path stands for, so that one of its keys can be set
    ("task",): "name",
    ("model",): "name",
    ("train", "optimizer"): "name",
    ("train", "schedule"): "name",
    ("train", "loss"): "name",
    ("register",): "name",
    ("deploy",): "name",
    ("data", "split"): "strategy",
}


def apply(document: dict[str, Any], overrides: Iterable[str]) -> tuple[list[Path], list[Finding]]:
    """Put each KEY=VALUE into DOCUMENT (changed in place); the paths that were set, and what could not be."""
    paths: list[Path] = []
    findings: list[Finding] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        where = f"--set {override}"
        if not equals or not _KEY.fullmatch(key):
            findings.append(
                Finding(where, "not KEY=VALUE", "as train.epochs=2", "write a key of the spec, `=`, a value")
            )
            continue
        path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[]", key.replace("]", "")))
        try:
            value = parse_value(text)
        except ValueError as error:
            findings.append(Finding(where, str(error), "a value in YAML", "put texts with `:` or `#` in quotes"))
            continue
        problem = _put(document, path, value)
        if problem:
            findings.append(Finding(where, problem, "", "set the whole of it instead, or correct the key"))
        else:
            paths.append(path)
    return paths, findings


def _put(document: dict[str, Any], path: Path, value: Any) -> str | None:
    """Set one value; what stands in the way, if anything does."""
    twin = _TWINS.get(path)
    at: Any = document
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(at, list):
            if not isinstance(part, int) or part >= len(at):
                return f"{written(path[:depth])} is a list of {len(at)}"
            if last:
                at[part] = value
            else:
                at[part] = at = _opened(at[part], path[: depth + 1])
        elif isinstance(at, dict):
            if last:
                at[str(part)] = value
                if twin is not None:
                    at.pop(str(twin[-1]), None)
            else:
                at[str(part)] = at = _opened(at.get(str(part)), path[: depth + 1])
        else:
            return f"{written(path[:depth])} is {at!r}, which has no keys"
    return None


def _opened(value: Any, path: Path) -> Any:
    """VALUE as something that has keys: a bare short form becomes the mapping it stands for."""
    if value is None:
        return {}
    if path == ("train", "workers") and isinstance(value, int):
        return {"min": value, "max": value}
    if isinstance(value, str) and path in _BARE:
        return {_BARE[path]: value}
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list) else value
