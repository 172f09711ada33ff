"""The sites that `--on` can name. This release knows this machine; clusters come with their own targets."""

from __future__ import annotations

from headrace.base.errors import InvalidInput

LOCAL = "local"
TARGETS = (LOCAL,)


def require_target(name: str) -> str:
    """NAME, if it is a target that there is. Raises InvalidInput naming those."""
    if name not in TARGETS:
        raise InvalidInput(
            f"there is no target {name!r}; there is: {', '.join(TARGETS)}",
            action="leave out --on to run on this machine",
            code="unknown-target",
        )
    return name
