"""Names of a package that are imported when they are first used.

Several packages offer light and heavy things side by side: a plan on the base install fingerprints a source without
pyarrow, a step that needs the gate's arithmetic does not import pydantic. One function serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module-level `__getattr__` for PACKAGE.

    Args:
        package: its `__name__`.
        homes: each name, and the module of the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get
