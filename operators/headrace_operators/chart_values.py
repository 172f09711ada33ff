"""The chart's values.yaml as a tree: each value with its default, its comment and what `@schema` says of it.

values.yaml is the one place where a value is described. What people read (README.md) and what Helm checks
(values.schema.json) are made of this tree by `chart_reference`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_SCHEMA = "@schema "


class Undescribed(Exception):
    """A value without a comment, or whose type nobody can tell from its default."""


@dataclass(frozen=True)
class Value:
    """One value of the chart.

    Args:
        path: `operator.replicas`.
        text: its comment, in one line.
        default: what it is unless somebody sets it.
        schema: what `@schema` adds.
        children: the values inside, where it is a map whose keys are ours.
    """

    path: str
    text: str
    default: Any
    schema: dict[str, Any]
    children: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    def leaves(self) -> Iterator[Value]:
        """The values that are set, in the file's order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read(text: str) -> tuple[Value, ...]:
    """The values at the top of a values.yaml.

    Raises:
        Undescribed: one has no comment.
    """
    return _children(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")


def _children(mapping: yaml.Node | None, lines: list[str], above: str) -> tuple[Value, ...]:
    assert isinstance(mapping, yaml.MappingNode), f"{above or 'values.yaml'} is no map"
    return tuple(_value(key, value, lines, above) for key, value in mapping.value)


def _value(key: yaml.ScalarNode, node: yaml.Node, lines: list[str], above: str) -> Value:
    path = f"{above}.{key.value}" if above else key.value
    words, schema = _comment(lines, key.start_mark.line)
    if not words:
        raise Undescribed(f"{path} has no comment in values.yaml: say what it does")
    loader = yaml.SafeLoader("")
    default = loader.construct_object(node, deep=True)
    ours = isinstance(node, yaml.MappingNode) and node.value and "$ref" not in schema
    return Value(path, words, default, schema, _children(node, lines, path) if ours else ())


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """The comment right above LINE, joined, and what its `@schema` says."""
    words: list[str] = []
    schema: dict[str, Any] = {}
    while line > 0 and (said := lines[line - 1].strip()).startswith("#"):
        line -= 1
        said = said.lstrip("#").strip()
        if said.startswith(_SCHEMA):
            schema |= json.loads(said.removeprefix(_SCHEMA))
        else:
            words.insert(0, said)
    return " ".join(words), schema
