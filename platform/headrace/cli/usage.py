"""Mistakes in how a command was called, in the same words as all other mistakes."""

from __future__ import annotations

import re

from headrace.base.errors import InvalidInput

_UNKNOWN = re.compile(r"No such command '(?P<name>[^']*)'")


def as_usage_error(error: BaseException, commands: list[str]) -> InvalidInput | None:
    """The parser's ERROR as one of ours; None for any other.

    Known by what it can do, since the parser's classes have moved between releases of typer.
    """
    formatted = getattr(error, "format_message", None)
    if formatted is None or not hasattr(error, "exit_code"):
        return None
    message = str(formatted()).strip().rstrip(".")
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "headrace")
    action = f"see {path} --help"
    if match := _UNKNOWN.search(message):
        from headrace_models.catalog import nearest

        near = nearest(match["name"], commands)
        message = f"there is no command {match['name']!r}"
        action = f"did you mean `headrace {near[0]}`?" if near else "headrace --help lists them"
    return InvalidInput(message, action=action, code="usage")
