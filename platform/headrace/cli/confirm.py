"""Asking before something that others rely on changes."""

from __future__ import annotations

import sys

from headrace.base.errors import Cancelled, InvalidInput
from headrace.cli.output import Output


def confirm(output: Output, change: list[str], *, yes: bool) -> None:
    """Show CHANGE and go on only if it is wanted.

    Raises:
        InvalidInput: nobody can be asked and --yes was not given.
        Cancelled: the answer was no.
    """
    for line in change:
        output.tell(line)
    if yes:
        return
    if not sys.stdin.isatty() or output.as_json:
        raise InvalidInput(
            "this changes what is there, and nobody can be asked", action="add --yes", code="confirmation-needed"
        )
    print("Do it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Cancelled("nothing was changed", action="")
