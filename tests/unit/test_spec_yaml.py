"""YAML is read by the rules of 1.2, and its mistakes are told with their place."""

from __future__ import annotations

import math

import pytest

from headrace.spec.yaml_reader import parse_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("+3", 3),
        ("-2E+2", -200.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1f", 31),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("", None),
        ("~", None),
        ("null", None),
        ("'8'", "8"),
        ("!!str 8", "8"),
        ("[1, a]", [1, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("mine:Net", "mine:Net"),
    ],
)
def test_plain_values_mean_what_people_expect(text: str, value: object) -> None:
    got = parse_value(text)
    assert got == value
    assert type(got) is type(value)


def test_infinities_are_numbers() -> None:
    assert parse_value(".inf") == math.inf
    assert parse_value("-.inf") == -math.inf
    assert math.isnan(parse_value(".nan"))
    assert parse_value("1" * 400) == math.inf


@pytest.mark.parametrize(
    ("text", "where", "given_text"),
    [
        ("a: [1, 2\nb: 3\n", "line 2, column 2", "not YAML"),
        ("a: 1\n\tb: 2\n", "line 2, column 1", "not YAML"),
        ("a: 'x\n", "line 2, column 1", "not YAML"),
        ("a: *nothing\n", "line 1, column 4", "not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1", "a second document"),
        ("a: \x01\n", "the file", "not YAML"),
        ("a: !!python/name:os.system x\n", "a", "the tag"),
        ("a: !!int x\n", "a", "the tag"),
        ("[1]: 2\n", "the file", "a key that is no text (line 1)"),
        ("<<: 3\n", "the file", "`<<` with something that has no keys"),
        ("[" * 1200, "the file", "nesting too deep"),
    ],
)
def test_mistakes_of_yaml_are_told_with_their_place(text: str, where: str, given_text: str) -> None:
    (found,) = read_yaml(text).findings
    assert found.where == where
    assert given_text in found.given


def test_every_key_written_twice_is_told() -> None:
    document = read_yaml("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert {(f.where, f.given) for f in document.findings} == {
        ("a", "written twice, in lines 1 and 3"),
        ("b.c", "written twice, in lines 2 and 2"),
    }


def test_anchors_and_merges_are_followed_and_the_own_key_wins() -> None:
    document = read_yaml("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nmany: {<<: [{x: 9}, *b]}\n")
    assert document.value["use"] == {"x": 1, "y": 3}
    assert document.value["many"] == {"x": 9, "y": 2}
    assert document.findings == []


def test_aliases_that_multiply_are_cut_off() -> None:
    text = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True):
        text += f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    (found,) = read_yaml(text).findings
    assert "more than" in found.given


def test_an_alias_of_itself_is_cut_off() -> None:
    assert len(read_yaml("a: &a [*a]\n").findings) == 1


def test_lines_of_paths_are_known() -> None:
    assert read_yaml("a: 1\nb:\n  c:\n    - 1\n    - 2\n").lines["b", "c", 1] == 5
