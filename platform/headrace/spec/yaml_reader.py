"""YAML as people expect it: 1.2's numbers and words, each key once, and the line of everything.

PyYAML follows YAML 1.1, where `1e-3` is a text, `no` is false, `1:30` is ninety and `2026-01-01` is a date; here they
are a number, a text, a text and a text. Only plain JSON values come out. Mistakes are collected, not raised, so that
they are reported together with those of the spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from headrace.base.errors import Finding

LARGEST_NODES = 50_000  # a spec has a hundred; aliases of aliases could make billions

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Only composes: plain scalars get the tags of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), _first)


@dataclass
class Document:
    """What a text held: its value, the line of each path, and what is wrong with it."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def written(path: Path) -> str:
    """PATH as it is spoken of: `train.losses[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


def read_yaml(text: str) -> Document:
    """Read one YAML document of plain values."""
    document = Document()
    try:
        root = yaml.compose(text, _Loader)
        if root is not None:
            document.value = _Builder(document).value(root, ())
    except yaml.YAMLError as error:
        document.findings.append(_syntax(error))
    except RecursionError:
        document.findings.append(Finding("the file", "nesting too deep to read", "", "write it flatter"))
    except _TooLarge:
        document.findings.append(
            Finding("the file", f"more than {LARGEST_NODES} values", "", "write out what the aliases (*) repeat")
        )
    return document


def parse_value(text: str) -> Any:
    """The value of `--set KEY=TEXT`. Raises ValueError with a sentence."""
    document = read_yaml(text)
    if document.findings:
        raise ValueError(document.findings[0].given)
    return document.value


def _syntax(error: yaml.YAMLError) -> Finding:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = "the file" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if "single document" in str(getattr(error, "context", "")):
        return Finding(where, "a second document begins here", "one document", "remove `---` and what follows")
    action = "indent with spaces" if "\\t" in problem else "mend the YAML there, or just above"
    return Finding(where, f"not YAML: {problem}", "", action)


class _TooLarge(Exception):
    pass


class _Builder:
    """Turns composed nodes into plain values, noting lines and mistakes on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > LARGEST_NODES:
            raise _TooLarge
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _report(self, path: Path, given: str, allowed: str, action: str) -> None:
        self._document.findings.append(Finding(written(path), given, allowed, action))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        inherited: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag.endswith(":merge"):
                inherited = {**self._merged(value_node, path), **inherited}
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self._report(
                    path, f"a key that is no text (line {line})", "names", "write a plain name before the colon"
                )
            elif key in lines:
                self._report((*path, key), f"written twice, in lines {lines[key]} and {line}", "once", "remove one")
            else:
                lines[key] = self._document.lines[(*path, key)] = line
                own[key] = self.value(value_node, (*path, key))
        return {**inherited, **own}

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            found = self.value(source, path)
            if isinstance(found, dict):
                merged = {**found, **merged}
            else:
                self._report(path, "`<<` with something that has no keys", "an alias of a mapping", "remove it")
        return merged

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        try:
            match node.tag.removeprefix("tag:yaml.org,2002:"):
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return _integer(text)
                case "float":
                    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
                case "str":
                    return text
        except ValueError:
            pass
        self._report(path, f"the tag {node.tag} on {text!r}", "plain values", "remove the tag")
        return None


def _integer(text: str) -> int | float:
    if len(text) > 300:  # python refuses to parse very long ones
        return float("inf")
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
