"""What a field or a part tells the API server besides its type: rules in CEL, how lists merge, what a text holds.

Each function gives what pydantic takes as `json_schema_extra`; `headrace.api.crd` puts it into the CRDs.
A rule's message says what was given, what is allowed and what to do, as every error of Headrace does.
"""

from __future__ import annotations

from pydantic.config import JsonDict

PATTERN_IS_TOLD = "x-headrace-pattern-is-told"
DATE_TIME: JsonDict = {"format": "date-time"}


def rule(expression: str, message: str, *, field: str | None = None) -> JsonDict:
    """One CEL rule over `self`.

    Args:
        expression: true for what is allowed.
        message: a sentence; with `${...}` in it the CEL expressions inside are shown: texts of bounded length only,
            the API server cannot tell how long a number becomes.
        field: path below `self` that the error names, as `.spec.train`.
    """
    entry: JsonDict = {"rule": expression}
    if "${" in message:
        entry["messageExpression"] = _interpolated(message)
    entry["message"] = message if "${" not in message else _plain(message)
    if field is not None:
        entry["fieldPath"] = field
    return entry


def rules(*entries: JsonDict) -> JsonDict:
    """CEL rules of a part or a field."""
    return {"x-kubernetes-validations": list(entries)}


def matching(pattern: str, message: str) -> JsonDict:
    """The rule that a text matches PATTERN, in words: of a pattern itself the API server would quote the expression."""
    return {**rules(rule(f"self.matches(r'{pattern}')", message)), PATTERN_IS_TOLD: True}


def list_map(*keys: str) -> JsonDict:
    """A list whose items are told apart by KEYS: several writers can each own some of them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def list_set() -> JsonDict:
    """A list of different values, whose order means nothing."""
    return {"x-kubernetes-list-type": "set"}


def _pieces(message: str) -> list[tuple[str, bool]]:
    """The message's pieces, each with whether it is CEL."""
    pieces: list[tuple[str, bool]] = []
    for index, part in enumerate(message.split("${")):
        if index == 0:
            pieces.append((part, False))
            continue
        expression, _, text = part.partition("}")
        pieces += [(expression, True), (text, False)]
    return [piece for piece in pieces if piece[0]]


def _interpolated(message: str) -> str:
    texts = [piece if is_cel else "'" + piece.replace("'", r"\'") + "'" for piece, is_cel in _pieces(message)]
    return " + ".join(texts)


def _plain(message: str) -> str:
    """MESSAGE for a server that cannot compute it: without what was given."""
    return "".join("..." if is_cel else piece for piece, is_cel in _pieces(message))
